//! A sample between any two instructions of calls of guests, of their traps, of panics that are carried
//! over them, and of the fault handler itself: each finds exactly the guests that are running.
//!
//! The processor's trap flag makes the thread take a SIGTRAP after each instruction. Its handler does what
//! a profiler's would, and writes down which functions it finds on the stack; what it wrote must be the
//! course of the calls, and nothing in between.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(unsafe_code, reason = "signal handlers, and the trap flag")]

#[path = "../examples/mini_runtime/compiler.rs"]
mod compiler;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "trap_guests/mod.rs"]
mod trap_guests;

use pcmap::trap::{
    GuestExit, GuestThread, Trap, TrapHandler, TrapOptions, host_call, host_call_from, sample_guest,
};
use std::ffi::c_void;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use trap_guests::{Guest, Guests};

/// The functions that occur; a stack is written as one digit for each frame, innermost first: the
/// position here, from 1.
const NAMES: [&str; 5] = ["call", "add", "load", "unreachable", "descend"];
/// The digit of everything else.
const UNKNOWN: usize = 9;

/// Where they are: what handlers read.
static PLACES: [[AtomicUsize; 2]; NAMES.len()] =
    [const { [const { AtomicUsize::new(0) }; 2] }; NAMES.len()];

/// The stacks that were found, without repetitions; how many, and at how many boundaries.
static COURSE: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static BOUNDARIES: AtomicUsize = AtomicUsize::new(0);
/// Those of them that were in the fault handler.
static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);
static STEPPING: AtomicBool = AtomicBool::new(false);
static HANDLING: AtomicBool = AtomicBool::new(false);

const TRAP_FLAG: libc::greg_t = 0x100;

fn digit(pc: usize) -> usize {
    let holds =
        |[start, end]: &[AtomicUsize; 2]| (start.load(Relaxed)..end.load(Relaxed)).contains(&pc);
    PLACES.iter().position(holds).map_or(UNKNOWN, |position| position + 1)
}

/// Whether the last boundary was in a guest; and, of the first boundaries behind guests, at how many the upper
/// halves of vector registers are in use, and at how many not.
static IN_GUEST: AtomicBool = AtomicBool::new(false);
static UPPER_HALVES: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// Whether the upper halves of the interrupted code's vector registers are in use.
fn uses_upper_halves(context: *const libc::ucontext_t) -> bool {
    const STATE: usize = 512;
    const UPPER: usize = 576;
    // SAFETY: the kernel's; it is that long on processors with such registers, and only these are asked.
    let state = unsafe { (*context).uc_mcontext.fpregs }.cast::<u8>();
    // SAFETY: as above.
    let in_use = unsafe { state.wrapping_add(STATE).cast::<u64>().read() } & 1 << 2 != 0;
    // SAFETY: as above.
    let upper = unsafe { state.wrapping_add(UPPER).cast::<[u128; 16]>().read_unaligned() };
    in_use && upper != [0; 16]
}

extern "C" fn on_step(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: what the kernel gave to this handler.
    if unsafe { (*info).si_code } != libc::TRAP_TRACE {
        // The `int3` of `step`, which begins or ends.
        let on = !STEPPING.fetch_xor(true, Relaxed);
        // SAFETY: as above, and nobody else has it.
        let flags = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let flags = &mut flags[libc::REG_EFL as usize];
        *flags = if on { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
        return;
    }
    let mut frames = [0; 16];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else's.
    let count = unsafe { sample_guest(context, &mut frames) };
    // Behind the first they are return addresses.
    let lookup = frames[..count].iter().enumerate().map(|(i, &pc)| pc - usize::from(i > 0));
    let stack = lookup.fold(0, |stack, pc| stack * 10 + digit(pc));
    BOUNDARIES.fetch_add(1, Relaxed);
    IN_HANDLER.fetch_add(usize::from(HANDLING.load(Relaxed)), Relaxed);
    if !HANDLING.load(Relaxed)
        && IN_GUEST.swap(stack != 0, Relaxed)
        && stack == 0
        && std::is_x86_feature_detected!("avx")
    {
        UPPER_HALVES[usize::from(uses_upper_halves(context.cast()))].fetch_add(1, Relaxed);
    }
    let count = COUNT.load(Relaxed);
    if count == 0 || COURSE[(count - 1) % COURSE.len()].load(Relaxed) != stack {
        COURSE[count % COURSE.len()].store(stack, Relaxed);
        COUNT.store(count + 1, Relaxed);
    }
}

/// The fault handler, which the runtime installed: it is called from here.
static ON_FAULT: AtomicUsize = AtomicUsize::new(0);

/// Steps through the fault handler, too: the kernel clears the flag for handlers.
extern "C" fn over(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
    // SAFETY: what was installed, with `SA_SIGINFO`.
    let handler = unsafe { mem::transmute::<usize, Handler>(ON_FAULT.load(Relaxed)) };
    let stepping = STEPPING.load(Relaxed);
    HANDLING.store(true, Relaxed);
    if stepping {
        // SAFETY: sets the flag, and nothing else.
        unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    }
    handler(signal, info, context);
    if stepping {
        // SAFETY: clears it.
        unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
    }
    HANDLING.store(false, Relaxed);
}

fn install(signal: libc::c_int, handler: usize) -> libc::sigaction {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: zeros are a valid action.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: a handler that does what handlers may.
    assert_eq!(unsafe { libc::sigaction(signal, &action, &mut before) }, 0);
    before
}

fn prepared() -> GuestThread {
    // The signal of steps is the test's.
    let handler = TrapHandler::install(TrapOptions::new().breakpoints(false)).expect("installed");
    if ON_FAULT.load(Relaxed) == 0 {
        install(libc::SIGTRAP, on_step as *const () as usize);
        for signal in [libc::SIGSEGV, libc::SIGILL] {
            let before = install(signal, over as *const () as usize);
            ON_FAULT.store(before.sa_sigaction, Relaxed);
        }
    }
    GuestThread::prepare(&handler).expect("prepared")
}

/// Runs `work` in steps. Gives the stacks that were found on the way, and how many boundaries there were
/// outside of the fault handler and in it.
fn step<R>(work: impl FnOnce() -> R) -> (R, Vec<usize>, [usize; 2]) {
    #[inline(never)]
    fn toggle() {
        // SAFETY: the handler changes the flag, and nothing else.
        unsafe { std::arch::asm!("int3") };
    }
    for count in [&COUNT, &BOUNDARIES, &IN_HANDLER] {
        count.store(0, Relaxed);
    }
    toggle();
    let result = work();
    toggle();
    let count = COUNT.load(Relaxed);
    assert!(count <= COURSE.len(), "{count} changes");
    let course = COURSE[..count].iter().map(|stack| stack.load(Relaxed)).collect();
    let inside = IN_HANDLER.load(Relaxed);
    println!("{} boundaries, {inside} of them in the fault handler", BOUNDARIES.load(Relaxed));
    (result, course, [BOUNDARIES.load(Relaxed) - inside, inside])
}

/// A guest that traps, for `host`.
static UNREACHABLE: AtomicUsize = AtomicUsize::new(0);

fn stage() -> Guests {
    let guests = Guests::load();
    for (place, name) in PLACES.iter().zip(NAMES) {
        let (start, len) = (guests.address(name) as usize, guests.function(name).range.len());
        place[0].store(start, Relaxed);
        place[1].store(start + len as usize, Relaxed);
    }
    UNREACHABLE.store(guests.guest("unreachable") as usize, Relaxed);
    guests
}

fn run(thread: &GuestThread, guest: Guest, [a, b, c]: [i64; 3]) -> Result<i64, Trap> {
    // SAFETY: (`call`) 1. kept by the test; 2. its frames are its own; 3. host functions of these tests
    // are in `host_call`; 4. it runs here.
    thread.catch_traps(|activation| unsafe { activation.call(guest, (a, b, c)) })
}

/// One at a time: there is one course.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_call_and_its_return() {
    let _alone = ALONE.lock();
    let (guests, thread) = (stage(), prepared());
    let (guest, call, add) = (guests.guest("call"), guests.address("call"), guests.address("add"));
    let (result, course, [boundaries, _]) = step(|| run(&thread, guest, [call, add, 5]));
    assert_eq!(result.expect("no trap"), 5 + 1 + 1);
    assert_eq!(course, [0, 1, 11, 211, 11, 1, 0]);
    assert!(boundaries > 30, "{boundaries}");
}

#[test]
fn a_call_and_its_trap() {
    let _alone = ALONE.lock();
    let (guests, thread) = (stage(), prepared());
    let (guest, call) = (guests.guest("call"), guests.address("call"));
    for (name, digit) in [("load", 3), ("unreachable", 4)] {
        let with = [call, guests.address(name), 0];
        let (result, course, [boundaries, inside]) = step(|| run(&thread, guest, with));
        let trap = result.expect_err("it traps");
        assert_eq!(trap.frames().len(), 3);
        assert_eq!(trap.function(), Some(guests.function(name).key));
        assert_eq!(course, [0, 1, 11, 100 * digit + 11, 0]);
        assert!(boundaries > 30 && inside > 100, "{boundaries}, {inside}");
    }
    let (guest, descend) = (guests.guest("descend"), guests.address("descend"));
    let (result, course, _) = step(|| run(&thread, guest, [descend, 3, 0]));
    assert_eq!(result.expect_err("it traps").frames().len(), 4);
    assert_eq!(course, [0, 5, 55, 555, 5555, 0]);
}

/// Functions that do something before they have a frame, or when they have none any more: at each boundary
/// all callers are found.
#[test]
fn edges_of_frames() {
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
    const EACH: usize = 64;
    // push rbp; mov rbp, rsp; nop; pop rbp; ret
    const PLAIN: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0xc3];
    const LEAVES: [&[u8]; 7] = [
        // …; pop rbp; test [rsi], eax; ret
        &[0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0x85, 0x06, 0xc3],
        // …; pop rbp; rep ret
        &[0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0xf3, 0xc3],
        // …; leave; nop; vzeroupper; ret
        &[0x55, 0x48, 0x89, 0xe5, 0xc9, 0x90, 0xc5, 0xf8, 0x77, 0xc3],
        // endbr64; mov [rsp - 0x1000], eax; push rbp; mov rbp, rsp; pop rbp; ret
        &[
            0xf3, 0x0f, 0x1e, 0xfa, 0x89, 0x84, 0x24, 0x00, 0xf0, 0xff, 0xff, 0x55, 0x48, 0x89,
            0xe5, 0x5d, 0xc3,
        ],
        // nop; mov eax, [rsi]; nop; ret
        &[0x90, 0x8b, 0x06, 0x90, 0xc3],
        // push rbp; mov rbp, rsp; pop r13, as it was pushed; mov rbx, [rbp - 8]; …, with pushes before
        &[
            0x55, 0x48, 0x89, 0xe5, 0x53, 0x41, 0x55, 0x90, 0x41, 0x5d, 0x48, 0x8b, 0x5d, 0xf8,
            0x90, 0x5b, 0x5d, 0xc3,
        ],
        // …; pop rbp; jmp [rdi], which is `PLAIN`
        &[0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0xff, 0x27],
    ];
    let _alone = ALONE.lock();
    let thread = prepared();
    for (i, leaf) in LEAVES.into_iter().enumerate() {
        if i == 2 && !std::is_x86_feature_detected!("avx") {
            continue;
        }
        // endbr64; push rbp; mov rbp, rsp; push rbx; sub rsp, 8; call the one before; add rsp, 8; pop rbx;
        // pop rbp; ret
        let middle: Vec<_> = [
            &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 0x08, 0xe8],
            &(-(EACH as i32) - 18).to_le_bytes()[..],
            &[0x48, 0x83, 0xc4, 0x08, 0x5b, 0x5d, 0xc3],
        ]
        .concat();
        let mut image = Vec::new();
        for function in [PLAIN, leaf, &middle, &middle] {
            image.extend(function);
            image.resize(image.len().next_multiple_of(EACH), 0xcc);
        }
        let mut image = CodeImage::builder(image);
        for index in 0..4 {
            let start = index as usize * EACH;
            let key = FuncKey::new(0, index);
            image.function(key, start..start + EACH, "guest").expect("in the text");
        }
        let engine = Engine::new(EngineConfig::new()).expect("memory");
        let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
        let base = code.text_range().start;
        // The digits 4, 1, 2, 3, in the order of the text.
        for (place, index) in PLACES.iter().zip([1, 2, 3, 0, 4]) {
            let start = base.address() + index * EACH;
            place[0].store(start, Relaxed);
            place[1].store(start + if index < 4 { EACH } else { 0 }, Relaxed);
        }
        let (plain, mut word) = (base.address(), 0_u64);
        let outer = base.as_ptr().wrapping_add(3 * EACH);
        // SAFETY: such a guest.
        let outer = unsafe { mem::transmute::<*const u8, Guest>(outer) };
        let with = [(&raw const plain).addr() as i64, (&raw mut word).addr() as i64, 0];
        let (result, course, _) = step(|| run(&thread, outer, with));
        result.expect("no trap");
        let expected: &[usize] =
            if i == 6 { &[0, 3, 23, 123, 423, 23, 3, 0] } else { &[0, 3, 23, 123, 23, 3, 0] };
        assert_eq!(course, expected, "{i}");
    }
}

/// A trap leaves vector registers as a function does that has used their upper halves.
#[test]
fn upper_halves_of_vector_registers() {
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
    if !std::is_x86_feature_detected!("avx") {
        return println!("skipped: the processor has no such registers");
    }
    // vcmpps ymm7, ymm7, ymm7, 15; vcmpps ymm15, ymm15, ymm15, 15; ud2
    const TEXT: &[u8] =
        &[0xc5, 0xc4, 0xc2, 0xff, 0x0f, 0xc4, 0x41, 0x04, 0xc2, 0xff, 0x0f, 0x0f, 0x0b];
    let _alone = ALONE.lock();
    let thread = prepared();
    let mut image = CodeImage::builder(TEXT.to_vec());
    image.function(FuncKey::new(0, 0), 0..TEXT.len(), "vectors").expect("in the text");
    image.trap(TEXT.len() - 2, TrapCode::new(1)).expect("in the text");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    // SAFETY: such a guest.
    let guest = unsafe { mem::transmute::<*const u8, Guest>(code.text_range().start.as_ptr()) };
    UPPER_HALVES.iter().for_each(|count| count.store(0, Relaxed));
    for _ in 0..10 {
        step(|| run(&thread, guest, [0; 3])).0.expect_err("it traps");
    }
    assert_eq!(UPPER_HALVES.each_ref().map(|count| count.load(Relaxed)), [10, 0]);
}

/// Calls a guest in its turn, which traps.
unsafe extern "C" fn host(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(call_another) }
}

/// The same; and says where it was called.
#[unsafe(naked)]
unsafe extern "C" fn host_that_tells(_: i64, _: i64, _: i64) -> i64 {
    std::arch::naked_asm!("mov rdi, [rsp]", "mov rsi, rbp", "jmp {}", sym host_from)
}

unsafe extern "C" fn host_from(return_address: usize, frame_pointer: usize) -> i64 {
    let exit = GuestExit { return_address, frame_pointer };
    // SAFETY: (`host_call_from`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call_from(exit, call_another) }
}

fn call_another() -> i64 {
    let thread = GuestThread::current().expect("a guest has called");
    // SAFETY: such a guest.
    let guest = unsafe { mem::transmute::<usize, Guest>(UNREACHABLE.load(Relaxed)) };
    let trap = run(&thread, guest, [0; 3]).expect_err("it traps");
    trap.frames().len() as i64
}

#[test]
fn a_guest_of_a_guest() {
    let _alone = ALONE.lock();
    let (guests, thread) = (stage(), prepared());
    let guest = guests.guest("call");
    for (host, frames, stack) in [(host as Guest, 1, 4), (host_that_tells, 2, 41)] {
        let with = [host as *const () as i64, 0, 0];
        let (result, course, [boundaries, inside]) = step(|| run(&thread, guest, with));
        assert_eq!(result.expect("the outer one goes on"), frames + 1);
        assert_eq!(course, [0, 1, 0, stack, 0, 1, 0]);
        assert!(boundaries > 30 && inside > 100, "{boundaries}, {inside}");
    }
}

unsafe extern "C" fn throws(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(|| resume_unwind(Box::new(7))) }
}

#[test]
fn a_panic_over_a_guest() {
    let _alone = ALONE.lock();
    let (guests, thread) = (stage(), prepared());
    let (guest, throws) = (guests.guest("call"), throws as *const () as i64);
    let call = guests.address("call");
    let run = |with| catch_unwind(AssertUnwindSafe(|| run(&thread, guest, with)));
    // What the unwinder sets up at its first use is not looked at.
    let _ = run([throws, 0, 0]);
    let (result, course, _) = step(|| run([call, throws, 0]));
    assert_eq!(result.expect_err("it panics").downcast_ref::<i32>(), Some(&7));
    assert_eq!(course, [0, 1, 11, 0]);
}
