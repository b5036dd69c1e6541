#![expect(unsafe_code, reason = "a filter of system calls, and a signal handler")]
//! What the system and the heap may refuse to those who catch traps: in child processes, where nothing
//! has been installed.

use crate::child::{Ending, in_child};
use crate::refusing::{Outcome, each_refusal, refusing};
use crate::trap_guests::{Guests, prepared};
use pcmap::Refused;
use pcmap::trap::{
    Cause, GuestThread, InstallError, PrepareError, TrapHandler, TrapOptions, UninstallRefused,
    sample_guest,
};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Makes a system call fail in this process from here on, with `EPERM`.
fn refuse(call: libc::c_long) {
    filter(call, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
}

/// Has the kernel do something else in place of a system call, in this process from here on.
fn filter(call: libc::c_long, instead: u32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, (jt, jf)| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, (0, 0)),
        step(IS, call as u32, (0, 1)),
        step(RETURN, instead, (0, 0)),
        step(RETURN, libc::SECCOMP_RET_ALLOW, (0, 0)),
    ];
    let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: asks that this process gains no more rights.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a whole program, which the kernel copies.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0);
}

fn install() -> Result<TrapHandler, InstallError> {
    TrapHandler::install(TrapOptions::new())
}

/// The child's panic is its status.
#[track_caller]
fn holds_in_child(body: impl FnOnce()) {
    assert_eq!(in_child(body), Ending::Status(0));
}

#[test]
fn a_system_that_lets_no_handler_be_installed() {
    holds_in_child(|| {
        refuse(libc::SYS_rt_sigaction);
        assert_eq!(install().expect_err("refused"), InstallError::System(libc::EPERM));
    });
    holds_in_child(|| {
        let handler = install().expect("installed");
        refuse(libc::SYS_rt_sigaction);
        let refused = handler.uninstall().expect_err("refused");
        assert_eq!(refused.reason, UninstallRefused::System(libc::EPERM));
        // The handle is good, and the handler where it was.
        let thread = GuestThread::prepare(&refused.handler).expect("prepared");
        let trap = Guests::load().run(&thread, "load", [8, 0, 0]).expect_err("it traps");
        assert!(matches!(trap.cause(), Cause::Code(_)));
    });
}

/// What is nobody's here ends the process all the same.
#[test]
fn a_system_that_lets_no_action_be_restored() {
    let ending = in_child(|| {
        // SAFETY: the default action; and an end, if the fault were handled for ever.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        // SAFETY: as above.
        unsafe { libc::alarm(20) };
        let _handler = install().expect("installed");
        refuse(libc::SYS_rt_sigaction);
        let nowhere = std::ptr::without_provenance::<u8>(std::hint::black_box(8));
        // SAFETY: none: this is the fault.
        unsafe { nowhere.read_volatile() };
    });
    assert_eq!(ending, Ending::Signal(libc::SIGSEGV));
}

/// What installing said inside the system call of an uninstallation: 1 for `BeingUninstalled`, else 2.
#[cfg(target_arch = "x86_64")]
static MEANWHILE: AtomicUsize = AtomicUsize::new(0);

/// In place of a system call: installs, and lets the call fail.
#[cfg(target_arch = "x86_64")]
extern "C" fn on_call(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let is_refused = install().is_err_and(|error| error == InstallError::BeingUninstalled);
    MEANWHILE.store(if is_refused { 1 } else { 2 }, SeqCst);
    // SAFETY: what the kernel gave this handler.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = -i64::from(libc::EPERM);
}

/// Installing during an uninstallation is refused.
#[cfg(target_arch = "x86_64")]
#[test]
fn installing_while_somebody_uninstalls() {
    holds_in_child(|| {
        let handler = install().expect("installed");
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_call as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the handler has the signature it should have.
        let set = unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        filter(libc::SYS_rt_sigaction, libc::SECCOMP_RET_TRAP);
        let refused = handler.uninstall().expect_err("the call fails");
        assert_eq!(refused.reason, UninstallRefused::System(libc::EPERM));
        assert_eq!(MEANWHILE.load(SeqCst), 1, "refused with `BeingUninstalled`");
    });
}

#[test]
fn a_system_that_gives_no_stack() {
    holds_in_child(|| {
        let handler = install().expect("installed");
        refuse(libc::SYS_sigaltstack);
        let error = GuestThread::prepare(&handler).expect_err("refused");
        assert_eq!(error, PrepareError::System(libc::EPERM));
        assert!(GuestThread::current().is_none(), "nothing has changed");
        handler.uninstall().expect("no thread is prepared");
    });
}

#[test]
fn no_heap_memory() {
    holds_in_child(|| {
        each_refusal("install", |k, for_good| {
            let outcome = refusing(k, for_good, install);
            if let Err(error) = &outcome.result {
                assert_eq!(*error, InstallError::OutOfMemory);
            }
            let (asked, refused) = (outcome.asked, outcome.refused);
            Outcome {
                result: outcome.result.is_ok_and(|it| it.uninstall().is_ok()),
                asked,
                refused,
            }
        });
    });
    holds_in_child(|| {
        let handler = install().expect("installed");
        each_refusal("prepare", |k, for_good| {
            let outcome = refusing(k, for_good, || GuestThread::prepare(&handler));
            if let Err(error) = &outcome.result {
                let refused = matches!(error, PrepareError::Refused(Refused::OutOfMemory { bytes }) if *bytes != 0);
                assert!(refused, "{error}");
                assert!(GuestThread::current().is_none(), "nothing has changed");
            }
            let (asked, refused) = (outcome.asked, outcome.refused);
            Outcome { result: outcome.result.is_ok(), asked, refused }
        });
        handler.uninstall().expect("no thread is prepared");
    });
}

#[test]
fn a_thread_that_is_not_prepared() {
    std::thread::spawn(|| assert!(GuestThread::current().is_none())).join().expect("no panic");
}

/// Frames that were told of what SIGUSR1 interrupted, plus one.
static SAMPLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_sample(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let mut frames = [7; 4];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else's.
    let count = unsafe { sample_guest(context, &mut frames) };
    let untouched = frames == [7; 4];
    SAMPLED.store(if untouched { count + 1 } else { 0 }, SeqCst);
}

#[test]
fn a_sample_of_no_guest() {
    holds_in_child(|| {
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sample as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: a handler that does only what handlers may.
        let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        assert_eq!(set, 0);
        // On a thread that is not prepared, and on one that is.
        for is_prepared in [false, true] {
            let _thread = is_prepared.then(prepared);
            SAMPLED.store(0, SeqCst);
            // SAFETY: there is a handler.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
            assert_eq!(SAMPLED.load(SeqCst), 1, "no frames");
        }
    });
}

/// What is asked of another store is not found there.
#[test]
fn a_trap_and_a_store_that_does_not_know_it() {
    holds_in_child(|| {
        let (guests, others, thread) = (Guests::load(), Guests::load(), prepared());
        let trap = guests.run(&thread, "load", [8, 0, 0]).expect_err("it traps");
        let known = |it: &Guests| trap.frame_infos(&it.registry).filter_map(|it| it.1).count();
        assert_eq!((known(&guests), known(&others)), (1, 0));
    });
}
