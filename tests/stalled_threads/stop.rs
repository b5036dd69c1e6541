#![expect(unsafe_code, reason = "a signal handler that never returns")]
//! Stops a thread for ever at a random instruction of a call.
//!
//! A signal interrupts the thread at random times. Its handler stops there if the thread is inside the call,
//! and at an instruction of this program's own. So it is never inside the C library's allocator, whose
//! locks others need.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use std::{mem, ptr};

/// A thread that is to be stopped.
pub(crate) struct Victim {
    /// Whether it is where it may be stopped.
    is_inside: AtomicBool,
    /// Whether it may only be stopped at an instruction of this program.
    in_program: bool,
    /// Where it was stopped; 0: it was not.
    stopped_at: AtomicUsize,
}

impl Victim {
    /// Runs `call`, in which this thread may be stopped.
    pub(crate) fn may_stop<R>(&self, call: impl FnOnce() -> R) -> R {
        self.is_inside.store(true, SeqCst);
        let result = call();
        self.is_inside.store(false, SeqCst);
        result
    }
}

thread_local! {
    static SELF: std::cell::Cell<*const Victim> = const { std::cell::Cell::new(ptr::null()) };
}

static PROGRAM_START: AtomicUsize = AtomicUsize::new(0);
static PROGRAM_END: AtomicUsize = AtomicUsize::new(0);

/// Notes where the code of this program is: the loader lists it first.
unsafe extern "C" fn note_program(
    object: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader's, for the length of this call.
    let object = unsafe { &*object };
    // SAFETY: the object's table, as the loader describes it.
    let headers = unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    for header in headers {
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            let start = (object.dlpi_addr + header.p_vaddr) as usize;
            PROGRAM_START.store(start, SeqCst);
            PROGRAM_END.store(start + header.p_memsz as usize, SeqCst);
        }
    }
    1
}

/// The address of the interrupted instruction.
fn interrupted(context: &libc::ucontext_t) -> usize {
    #[cfg(target_arch = "x86_64")]
    return context.uc_mcontext.gregs[libc::REG_RIP as usize] as usize;
    #[cfg(target_arch = "aarch64")]
    return context.uc_mcontext.pc as usize;
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: null, or set by this thread to what lives for ever.
    let Some(victim) = (unsafe { SELF.get().as_ref() }) else { return };
    // SAFETY: what the kernel hands to a handler with SA_SIGINFO.
    let pc = interrupted(unsafe { &*context.cast::<libc::ucontext_t>() });
    let start = PROGRAM_START.load(SeqCst);
    let is_program = (start..PROGRAM_END.load(SeqCst)).contains(&pc);
    if !victim.is_inside.load(SeqCst) || victim.in_program && !is_program {
        return;
    }
    victim.stopped_at.store(pc.wrapping_sub(start), SeqCst);
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut all: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: a place for a set.
    unsafe { libc::sigfillset(&raw mut all) };
    loop {
        // SAFETY: a valid set, of all signals: nothing wakes this thread.
        unsafe { libc::sigsuspend(&raw const all) };
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the callback stores to atomics.
        unsafe { libc::dl_iterate_phdr(Some(note_program), ptr::null_mut()) };
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_signal;
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: a valid action, whose handler is signal-safe.
        let installed =
            unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
        assert_eq!(installed, 0);
    });
}

/// Starts a thread that runs `work`, and stops it for ever inside a call that may be stopped. Tells at
/// which instruction, from the start of the program's code.
pub(crate) fn stop_one(work: impl FnOnce(&Victim) + Send + 'static, in_program: bool) -> usize {
    install();
    let victim: &'static Victim = Box::leak(Box::new(Victim {
        is_inside: AtomicBool::new(false),
        in_program,
        stopped_at: AtomicUsize::new(0),
    }));
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        SELF.set(victim);
        // SAFETY: asks for this thread's own name.
        tell.send(unsafe { libc::pthread_self() }).expect("somebody waits");
        work(victim);
    });
    let thread = told.recv().expect("it starts");
    let begin = Instant::now();
    while victim.stopped_at.load(SeqCst) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "it is never inside");
        thread::sleep(Duration::from_micros(fastrand::u64(20..2000)));
        // SAFETY: a thread that never ends.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        // The handler has a moment to say so.
        thread::sleep(Duration::from_micros(200));
    }
    victim.stopped_at.load(SeqCst)
}
