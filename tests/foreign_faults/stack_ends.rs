#![expect(unsafe_code, reason = "limits, protects and replaces stacks")]
//! Where a stack ends is what the fault finds, not what somebody noted: overflows of guests after limits
//! were changed, with memory in the way, and on stacks that others have guarded. The process without the
//! trap handler only says what is expected.

use crate::compare::Ends::{By, Well};
use crate::compare::Scenario;
use crate::stage::Stage;
use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
use pcmap::trap::{Cause, GuestThread, MOST_FRAMES, Trap};
use std::ffi::c_void;
use std::{mem, ptr};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("stack_limit_lowered_before_preparing", |stage| limited(stage, Some(1), None)),
    scenario("stack_limit_raised_before_preparing", |stage| limited(stage, Some(64), None)),
    scenario("stack_limit_raised_beyond_the_room", |stage| limited(stage, Some(512), None)),
    scenario("stack_limit_lowered_after_preparing", |stage| limited(stage, None, Some(1))),
    scenario("stack_limit_raised_after_preparing", |stage| limited(stage, None, Some(64))),
    scenario("trap_beyond_the_limit_of_before", trap_beyond),
    scenario("first_thread_where_no_file_tells_of_its_stack", no_file),
    scenario("address_space_that_is_limited", address_space),
    scenario("memory_in_the_way_of_the_stack", |stage| in_the_way(stage, libc::PROT_READ)),
    scenario("guard_in_the_way_of_the_stack", |stage| in_the_way(stage, libc::PROT_NONE)),
    scenario("stack_with_a_guard_of_the_program's", guarded_by_the_program),
    scenario("stack_with_zones_that_are_protected_later", protected_later),
    scenario("frame_pointer_into_the_guard", frame_pointer_into_the_guard),
    Scenario {
        name: "later_handler_without_a_stack_for_an_overflow",
        run: later_handler_without_room,
        ends: By(libc::SIGSEGV),
    },
];

const fn scenario(name: &'static str, run: fn(&Stage)) -> Scenario {
    Scenario { name, run, ends: Well }
}

/// A guest that does not end overflows the stack, a few times.
fn overflow(stage: &Stage) {
    let thread = GuestThread::current().expect("prepared");
    for name in ["forever", "strides", "leaps", "forever"] {
        let itself = stage.guests.address(name);
        let trap = stage.guests.run(&thread, name, [itself, 1, 1]).expect_err("it does not end");
        assert_eq!(trap.cause(), Cause::StackOverflow, "{name}");
        assert!(trap.frames().len() == MOST_FRAMES || trap.has_all_frames(), "{name}");
        assert!(trap.frames().len() > 10, "{name}");
    }
}

/// Sets a limit of this process. (C libraries disagree on the type of its number.)
fn limit(resource: i32, most: u64) {
    // SAFETY: zeros are written over.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: there is room for it.
    assert_eq!(unsafe { libc::getrlimit(resource as _, &mut limit) }, 0);
    limit.rlim_cur = most;
    // SAFETY: a whole limit.
    assert_eq!(unsafe { libc::setrlimit(resource as _, &limit) }, 0);
}

/// Limits of the first thread's stack, in MiB.
fn limited(stage: &Stage, before: Option<u64>, after: Option<u64>) {
    if stage.with_traps {
        if let Some(mib) = before {
            limit(libc::RLIMIT_STACK as i32, mib << 20);
        }
        stage.install();
        if let Some(mib) = after {
            limit(libc::RLIMIT_STACK as i32, mib << 20);
        }
        overflow(stage);
    }
    println!("overflowed");
}

/// A trap that the table knows, deeper than the limit was when the thread was prepared.
fn trap_beyond(stage: &Stage) {
    stage.install();
    limit(libc::RLIMIT_STACK as i32, 64 << 20);
    if stage.with_traps {
        let thread = GuestThread::current().expect("prepared");
        let itself = stage.guests.address("descend");
        let run = |depth| stage.guests.run(&thread, "descend", [itself, depth, 8]);
        let told = |trap: Trap| (trap.cause(), trap.frames().len(), trap.has_all_frames());
        let (cause, frames, complete) = told(run(10).expect_err("it loads from nowhere"));
        assert_eq!((frames, complete), (11, true));
        // Frames of two words at least.
        let deep = told(run((20 << 20) / 16).expect_err("it loads from nowhere"));
        assert_eq!(deep, (cause, MOST_FRAMES, false));
    }
    println!("trapped");
}

/// As in a sandbox without `/proc`.
fn no_file(stage: &Stage) {
    if stage.with_traps {
        limit(libc::RLIMIT_NOFILE as i32, 0);
        std::fs::File::open("/proc/self/maps").expect_err("no file can be opened");
        stage.install();
        overflow(stage);
    }
    println!("overflowed");
}

fn address_space(stage: &Stage) {
    stage.install();
    if stage.with_traps {
        let told = std::fs::read_to_string("/proc/self/statm").expect("the pages of this process");
        let pages = told.split(' ').next().and_then(|it| it.parse::<u64>().ok()).expect("a number");
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
        limit(libc::RLIMIT_AS as i32, pages * page + (3 << 20));
        overflow(stage);
    }
    println!("overflowed");
}

fn in_the_way(stage: &Stage, protection: libc::c_int) {
    stage.install();
    if stage.with_traps {
        let here = 0_u8;
        let at = (&raw const here).wrapping_sub(3 << 20).map_addr(|at| at & !0xffff);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: new memory, where there is none.
        let mapped = unsafe { libc::mmap(at.cast_mut().cast(), 1 << 16, protection, flags, -1, 0) };
        assert_eq!(mapped.cast_const().cast(), at);
        overflow(stage);
    }
    println!("overflowed");
}

/// Runs `body` with a stage of its own on a thread with a stack that this program has mapped: `zones` bytes
/// at its lower end can be protected. The C library is told of all but `outside` bytes of it.
fn on_own_stack(stage: &Stage, outside: usize, body: fn(&Stage, *mut c_void)) {
    struct Given {
        with_traps: bool,
        stack: *mut c_void,
        body: fn(&Stage, *mut c_void),
    }
    extern "C" fn thread(given: *mut c_void) -> *mut c_void {
        // SAFETY: of the thread that waits for this one.
        let given = unsafe { &*given.cast::<Given>() };
        (given.body)(&Stage::new(given.with_traps), given.stack);
        ptr::null_mut()
    }
    let len = 1 << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: new memory.
    let stack = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(stack, libc::MAP_FAILED);
    if outside > 0 {
        protect(stack, outside);
    }
    // SAFETY: written over.
    let mut attributes: libc::pthread_attr_t = unsafe { mem::zeroed() };
    // SAFETY: there is room for them.
    unsafe { libc::pthread_attr_init(&mut attributes) };
    let told = stack.wrapping_byte_add(outside);
    // SAFETY: memory for the thread alone.
    let set = unsafe { libc::pthread_attr_setstack(&mut attributes, told, len - outside) };
    assert_eq!(set, 0);
    let mut given = Given { with_traps: stage.with_traps, stack, body };
    // SAFETY: written over.
    let mut started: libc::pthread_t = unsafe { mem::zeroed() };
    // SAFETY: `given` stays until the thread has ended.
    let error =
        unsafe { libc::pthread_create(&mut started, &attributes, thread, (&raw mut given).cast()) };
    assert_eq!(error, 0);
    // SAFETY: a thread of ours.
    assert_eq!(unsafe { libc::pthread_join(started, ptr::null_mut()) }, 0);
}

fn protect(at: *mut c_void, len: usize) {
    // SAFETY: pages of a stack of this program's that nobody is on.
    assert_eq!(unsafe { libc::mprotect(at, len, libc::PROT_NONE) }, 0);
}

const ZONE: usize = 4 << 16;

/// The guard is below what the C library knows of, which was told of no guard.
fn guarded_by_the_program(stage: &Stage) {
    on_own_stack(stage, ZONE, |stage, _| {
        stage.install();
        if stage.with_traps {
            overflow(stage);
        }
    });
    println!("overflowed");
}

/// Another runtime on the thread protects pages within its stack, after it was prepared.
fn protected_later(stage: &Stage) {
    on_own_stack(stage, 0, |stage, stack| {
        stage.install();
        protect(stack, ZONE);
        if stage.with_traps {
            overflow(stage);
        }
    });
    println!("overflowed");
}

type TwoAddresses = unsafe extern "C" fn(usize, usize);

/// Takes the one for its stack pointer and the other for its frame pointer, and pushes.
#[cfg(target_arch = "x86_64")]
const LOST: [u8; 7] = [0x48, 0x89, 0xfc, 0x48, 0x89, 0xf5, 0x50];
#[cfg(target_arch = "aarch64")]
const LOST: [u8; 12] = [0x1f, 0x00, 0x00, 0x91, 0xfd, 0x03, 0x01, 0xaa, 0xe0, 0x0f, 0x1f, 0xf8];

fn load(text: &[u8]) -> EngineCode {
    let mut image = CodeImage::builder(text.to_vec());
    image.function(FuncKey::new(0, 0), 0..text.len(), "lost").expect("a function");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    EngineCode::load(&engine, image.finish().expect("an image")).expect("memory")
}

/// Runs a guest with these registers, which overflows the stack: the trap, where traps are caught.
fn lose(stack_pointer: usize, frame_pointer: usize) -> Trap {
    let code = load(&LOST);
    let start = ptr::with_exposed_provenance::<u8>(code.text_range().start.address());
    // SAFETY: such a function; code and data pointers are alike here.
    let guest = unsafe { mem::transmute::<*const u8, TwoAddresses>(start) };
    let Some(thread) = GuestThread::current() else {
        // SAFETY: none: this ends the process.
        unsafe { guest(stack_pointer, frame_pointer) };
        unreachable!("it does not come back");
    };
    let trap = thread.catch_traps(|activation| {
        // SAFETY: (`call`) 1. it stays while `code` does; 2. and 3. it calls nothing; 4. its stack pointer
        // leads into this thread's stack.
        unsafe { activation.call(guest, (stack_pointer, frame_pointer)) }
    });
    trap.expect_err("it overflows")
}

/// A guest whose frame pointer leads to where its stack is no more: nothing is read there, and the backtrace
/// says that it is cut.
fn frame_pointer_into_the_guard(stage: &Stage) {
    on_own_stack(stage, 0, |stage, stack| {
        stage.install();
        protect(stack, ZONE);
        if stage.with_traps {
            let end = stack.addr() + ZONE;
            let trap = lose(end - 64, end - 32);
            assert_eq!(trap.cause(), Cause::StackOverflow);
            assert_eq!((trap.frames().len(), trap.has_all_frames()), (1, false));
        }
    });
    println!("overflowed");
}

/// A handler that was installed later asks for the interrupted stack (no `SA_ONSTACK`), and that has no room
/// for it: no handler is called, and the process ends at the guest's instruction.
fn later_handler_without_room(stage: &Stage) {
    extern "C" fn later(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
        println!("called");
    }
    on_own_stack(stage, 0, |stage, stack| {
        stage.install();
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = later as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: a handler that is never called.
        assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
        protect(stack, ZONE);
        let end = stack.addr() + ZONE;
        lose(end, end);
    });
}
