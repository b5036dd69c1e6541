#![expect(unsafe_code, reason = "faults on purpose, and is the first process of a container")]
//! Faults that do not come again when their instruction is executed again; and the first process of a
//! container, which the kernel sends no signal that it has no handler for.

use crate::compare::Ends::{self, By, Well};
use crate::compare::Scenario;
use crate::faults::{breakpoint, dereference_null, illegal, set_handler};
use crate::stage::Stage;
use pcmap::trap::{TrapHandler, TrapOptions};
use std::{mem, ptr};

const fn scenario(name: &'static str, run: fn(&Stage), ends: Ends) -> Scenario {
    Scenario { name, run, ends }
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("frame_that_does_not_fit", no_frame, By(libc::SIGSEGV)),
    scenario("frame_that_does_not_fit_while_ignored", no_frame_ignored, By(libc::SIGSEGV)),
    scenario("handler_on_top_that_does_not_defer", no_defer, By(libc::SIGSEGV)),
    scenario("handler_before_that_gives_up", gives_up, Well),
    scenario("first_process_of_a_container", first_process, Well),
    #[cfg(target_arch = "x86_64")]
    scenario("overflow_exception", |it| exception(it, OVERFLOW), By(libc::SIGSEGV)),
    #[cfg(target_arch = "x86_64")]
    scenario("overflow_exception_while_ignored", ignored, By(libc::SIGSEGV)),
    #[cfg(target_arch = "x86_64")]
    scenario("breakpoint_of_two_bytes", |it| exception(it, &[0xcd, 0x03]), By(libc::SIGTRAP)),
    #[cfg(target_arch = "x86_64")]
    scenario("breakpoint_of_hardware", |it| exception(it, &[0xf1]), By(libc::SIGTRAP)),
    #[cfg(target_arch = "x86_64")]
    scenario("single_step", |it| exception(it, STEP), By(libc::SIGTRAP)),
    #[cfg(target_arch = "x86_64")]
    scenario("overflow_exception_before_a_trap", before_a_trap, By(libc::SIGSEGV)),
    #[cfg(target_arch = "x86_64")]
    scenario("frame_that_does_not_fit_in_a_guest", |it| in_guest(it, false), By(libc::SIGSEGV)),
    #[cfg(target_arch = "x86_64")]
    scenario("frame_that_does_not_fit_after_a_trap", |it| in_guest(it, true), By(libc::SIGSEGV)),
];

const FAULTS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// The standard library has its handlers for some.
fn default() {
    FAULTS.iter().for_each(|&signal| set_handler(signal, libc::SIG_DFL));
}

extern "C" fn nothing(_: libc::c_int) {}

/// Where there is no stack.
fn no_stack() -> i64 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping.
    let page = unsafe { libc::mmap(ptr::null_mut(), 1 << 20, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    page.expose_provenance() as i64 + (1 << 19)
}

fn itself() -> [i64; 2] {
    // SAFETY: asks for a number.
    let process = unsafe { libc::getpid() };
    // SAFETY: as above.
    [process.into(), unsafe { libc::syscall(libc::SYS_gettid) }]
}

/// Sends SIGUSR1, whose handler is to run on a stack that is none.
fn send_without_a_stack() {
    set_handler(libc::SIGUSR1, nothing as *const () as usize);
    let ([process, thread], stack) = (itself(), no_stack());
    // SAFETY: the process ends, or the stack pointer is as before.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov r12, rsp", "mov rsp, {stack}", "syscall", "nop", "mov rsp, r12",
            stack = in(reg) stack, inout("rax") libc::SYS_tgkill => _, in("rdi") process,
            in("rsi") thread, in("rdx") libc::SIGUSR1, out("rcx") _, out("r11") _, out("r12") _)
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mov x9, sp", "mov sp, {stack}", "svc #0", "nop", "mov sp, x9",
            stack = in(reg) stack, in("x8") libc::SYS_tgkill, inout("x0") process => _,
            in("x1") thread, in("x2") libc::SIGUSR1, out("x9") _)
    };
}

fn no_frame(stage: &Stage) {
    default();
    stage.install();
    send_without_a_stack();
}

fn no_frame_ignored(stage: &Stage) {
    set_handler(libc::SIGSEGV, libc::SIG_IGN);
    stage.install();
    send_without_a_stack();
}

/// A handler that was installed later hands on what it gets, and has its own signal not blocked.
fn no_defer(stage: &Stage) {
    static BEFORE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    extern "C" fn hands_on(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        match BEFORE.load(std::sync::atomic::Ordering::Relaxed) {
            // As polite handlers do it.
            libc::SIG_DFL => set_handler(signal, libc::SIG_DFL),
            before => {
                // SAFETY: what was installed, with `SA_SIGINFO`.
                let before = unsafe { mem::transmute::<usize, Handler>(before) };
                before(signal, info, context);
            }
        }
    }
    default();
    stage.install();
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = hands_on as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    let mut before = action;
    // SAFETY: a handler that hands on.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, &mut before) }, 0);
    BEFORE.store(before.sa_sigaction, std::sync::atomic::Ordering::Relaxed);
    dereference_null();
}

/// The handler before restores the default action and returns, as that of Rust's standard library does. What
/// does not come again leaves the process alive: then the handler can be installed again.
fn gives_up(stage: &Stage) {
    extern "C" fn restores(signal: libc::c_int) {
        set_handler(signal, libc::SIG_DFL);
        println!("restored");
    }
    let restores = restores as *const () as usize;
    set_handler(libc::SIGSEGV, restores);
    stage.install();
    for _ in 0..3 {
        // SAFETY: has no preconditions.
        unsafe { libc::raise(libc::SIGSEGV) };
        if stage.with_traps {
            drop(TrapHandler::install(TrapOptions::new()).expect("installed"));
            stage.install();
        }
        // Over it, the next time.
        set_handler(libc::SIGSEGV, restores);
    }
}

/// Machine code that raises an exception behind itself, or behind the next instruction.
#[cfg(target_arch = "x86_64")]
const OVERFLOW: &[u8] = &[0xcd, 0x04]; // int 4
/// Sets the trap flag: pushfq; or byte [rsp + 1], 1; popfq
#[cfg(target_arch = "x86_64")]
const STEP: &[u8] = &[0x9c, 0x80, 0x4c, 0x24, 0x01, 0x01, 0x9d];

/// A guest of such text, in whose table at most one instruction is.
pub(crate) fn load(
    text: &[u8],
    trap: Option<usize>,
) -> (pcmap::registry::EngineCode, crate::trap_guests::Guest) {
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
    let mut image = CodeImage::builder(text.to_vec());
    image.function(FuncKey::new(0, 0), 0..text.len(), "guest").expect("in the text");
    if let Some(at) = trap {
        image.trap(at, TrapCode::new(7)).expect("in the text");
    }
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    let start = code.text_range().start.as_ptr();
    // SAFETY: such a function.
    (code, unsafe { mem::transmute::<*const u8, crate::trap_guests::Guest>(start) })
}

/// In a guest, for which the tables know of no trap.
#[cfg(target_arch = "x86_64")]
fn exception(stage: &Stage, instruction: &[u8]) {
    default();
    stage.install();
    let (_code, guest) = load(&[instruction, &[0x90, 0x90, 0xc3]].concat(), None);
    stage.enter(guest, [0; 3]);
}

#[cfg(target_arch = "x86_64")]
fn ignored(stage: &Stage) {
    set_handler(libc::SIGSEGV, libc::SIG_IGN);
    stage.install();
    let (_code, guest) = load(&[OVERFLOW, &[0xc3]].concat(), None);
    stage.enter(guest, [0; 3]);
}

/// The instruction behind is in the table, and has not been executed.
#[cfg(target_arch = "x86_64")]
fn before_a_trap(stage: &Stage) {
    default();
    stage.install();
    let text = [OVERFLOW, &[0x48, 0x8b, 0x04, 0x24, 0xc3]].concat(); // …; mov rax, [rsp]; ret
    let (_code, guest) = load(&text, Some(2));
    stage.enter(guest, [0; 3]);
}

/// A frame that does not fit while a guest is at an instruction that is in the table, and does not fault. Also
/// if the thread's last exception was of the kind that the kernel tells in the same way.
#[cfg(target_arch = "x86_64")]
fn in_guest(stage: &Stage, after_a_trap: bool) {
    // mov r8, rsp; mov rsp, rdx; mov edx, SIGUSR1; mov eax, SYS_tgkill; syscall;
    // mov rax, [r8]; mov rsp, r8; ret
    const TEXT: &[u8] = &[
        0x49, 0x89, 0xe0, 0x48, 0x89, 0xd4, 0xba, 0x0a, 0, 0, 0, 0xb8, 0xea, 0, 0, 0, 0x0f, 0x05,
        0x49, 0x8b, 0x00, 0x4c, 0x89, 0xc4, 0xc3,
    ];
    const LOAD: usize = 18;
    default();
    stage.install();
    set_handler(libc::SIGUSR1, nothing as *const () as usize);
    let (_code, guest) = load(TEXT, Some(LOAD));
    let [process, thread] = itself();
    if after_a_trap && stage.with_traps {
        let prepared = pcmap::trap::GuestThread::current().expect("prepared");
        let trap = stage.guests.run(&prepared, "load", [1 << 62, 0, 0]).expect_err("no address");
        assert_eq!(trap.faulting_address(), None);
    }
    stage.enter(guest, [process, thread, no_stack()]);
}

/// In a process that is the first of its container: sent signals are dropped, and faults end it.
fn first_process(stage: &Stage) {
    fn sent(stage: &Stage) {
        stage.install();
        for signal in FAULTS {
            // SAFETY: has no preconditions.
            unsafe { libc::raise(signal) };
        }
        // The handler is where it was.
        stage.install();
        println!("still here");
    }
    let faults: [fn(&Stage); 6] = [
        sent,
        no_frame,
        |stage| {
            stage.install();
            dereference_null();
        },
        breakpoint,
        illegal,
        #[cfg(target_arch = "x86_64")]
        |stage| exception(stage, OVERFLOW),
        #[cfg(not(target_arch = "x86_64"))]
        |_| {},
    ];
    for fault in faults {
        let body = || {
            default();
            assert_eq!(std::process::id(), 1);
            fault(stage);
        };
        match in_container(body) {
            Some(status) => println!("status {status:#x}"),
            None => println!("skipped: the system lets no container be made"),
        }
    }
}

/// Runs it in the first process of a container; gives its status. None if there are no containers.
fn in_container(body: impl FnOnce()) -> Option<libc::c_int> {
    fn ended(child: libc::pid_t) -> libc::c_int {
        let mut status = 0;
        assert!(child > 0);
        // SAFETY: a child of ours, and room for its status.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        status
    }
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: there is one thread.
    let between = unsafe { libc::fork() };
    if between == 0 {
        // SAFETY: there is one thread.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWPID) } == 0 {
            // SAFETY: as above.
            let first = unsafe { libc::fork() };
            if first == 0 {
                // SAFETY: a fault that nobody ends the process for comes for ever.
                unsafe { libc::alarm(20) };
                body();
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) };
            }
            let status = ended(first).to_ne_bytes();
            // SAFETY: four bytes.
            unsafe { libc::write(ends[1], status.as_ptr().cast(), status.len()) };
        }
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    ended(between);
    // SAFETY: of ours.
    unsafe { libc::close(ends[1]) };
    let mut status = [0; 4];
    // SAFETY: room for four bytes.
    let read = unsafe { libc::read(ends[0], status.as_mut_ptr().cast(), status.len()) };
    // SAFETY: of ours.
    unsafe { libc::close(ends[0]) };
    (read == 4).then(|| libc::c_int::from_ne_bytes(status))
}
