//! Every allocation of the trap runtime fails once: installing the handler, preparing a thread, and
//! the backtrace of a trap.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "installs and asks for signal actions and an alternate stack")]

#[path = "../examples/mini_runtime/compiler.rs"]
mod compiler;
mod refusing;
#[expect(dead_code, reason = "of the guests, one is needed here")]
mod trap_guests;

use pcmap::Refused;
use pcmap::trap::{GuestThread, InstallError, PrepareError, TrapHandler, TrapOptions};
use refusing::{each_refusal, live_bytes, refusing};
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard};
use std::{mem, ptr};
use trap_guests::Guests;

/// What the handler may be installed for.
const SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// One test at a time: signal actions are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// Where the action for each signal leads.
fn actions() -> [usize; SIGNALS.len()] {
    SIGNALS.map(|signal| {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: asks only; `action` is a valid place.
        assert_eq!(unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) }, 0);
        action.sa_sigaction
    })
}

extern "C" fn nothing(_: libc::c_int) {}

/// Installs an action that no other round installs, so that the trap runtime has to remember it: a
/// handler that does nothing, with a mask of its own.
fn install_something_else(round: usize) {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    for bit in (0..16).filter(|bit| round & 1 << bit != 0) {
        // SAFETY: `action` is ours, and these are signals.
        unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGRTMIN() + bit) };
    }
    for signal in SIGNALS {
        // SAFETY: the handler has the signature it should have, and does nothing.
        assert_eq!(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }, 0);
    }
}

#[test]
fn installing() {
    let _alone = alone();
    let before = SIGNALS.map(|signal| {
        // SAFETY: as in `actions`; the default action is a valid one.
        unsafe { libc::signal(signal, libc::SIG_DFL) }
    });
    let round = Cell::new(0);
    each_refusal("install", |k, for_good| {
        round.set(round.get() + 1);
        install_something_else(round.get());
        let found = actions();
        let options = TrapOptions::new().breakpoints(true);
        refusing(k, for_good, || TrapHandler::install(options)).map(|result| match result {
            Ok(handler) => {
                assert!(actions().iter().zip(found).all(|(now, before)| *now != before));
                handler.uninstall().expect("nobody else has it");
                assert_eq!(actions(), found, "put back");
                true
            }
            Err(error) => {
                assert_eq!(error, InstallError::OutOfMemory);
                assert_eq!(actions(), found, "all, or none");
                false
            }
        })
    });
    for (signal, action) in SIGNALS.into_iter().zip(before) {
        // SAFETY: what was there before.
        unsafe { libc::signal(signal, action) };
    }
}

/// The alternate stack that is in force.
fn alternate_stack() -> (usize, usize, libc::c_int) {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: asks only; `stack` is a valid place.
    assert_eq!(unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) }, 0);
    (stack.ss_sp.addr(), stack.ss_size, stack.ss_flags)
}

/// A thread that is not prepared, for want of memory, is as it was; and so is the process: in the end
/// nobody has the handler. Nothing leaks, to the byte, between two moments at which the map of threads
/// is as full of garbage.
#[test]
fn preparing() {
    let _alone = alone();
    // A thread whose alternate stack is its own: the test harness's has one of Rust's.
    let work = || {
        let handler = TrapHandler::install(TrapOptions::new()).expect("memory");
        let disabled =
            libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: takes the thread's alternate stack out of use; the thread is not on it.
        unsafe { libc::sigaltstack(&raw const disabled, ptr::null_mut()) };
        let least = Cell::new(isize::MAX);
        let round = |k, for_good| {
            let stack = alternate_stack();
            let prepare = || GuestThread::prepare(&handler);
            let outcome = refusing(k, for_good, prepare).map(|result| match result {
                Ok(thread) => {
                    assert!(GuestThread::current().is_some());
                    assert_ne!(alternate_stack(), stack);
                    drop(thread);
                    true
                }
                Err(error) => {
                    let refused = matches!(error, PrepareError::Refused(Refused::OutOfMemory { bytes }) if bytes != 0);
                    assert!(refused, "{error}");
                    false
                }
            });
            assert!(GuestThread::current().is_none());
            assert_eq!(alternate_stack(), stack);
            least.set(least.get().min(live_bytes()));
            outcome
        };
        each_refusal("prepare", round);
        // As many writes as it takes for garbage to be taken out, and a few times that.
        let levels = [(); 5].map(|()| {
            least.set(isize::MAX);
            for i in 0..240 {
                round(1 + i % 8, i % 3 == 0);
            }
            least.get()
        });
        // (The first rounds fill what the map keeps at hand.)
        assert!(levels[4] <= levels[1], "a refused call leaks: {levels:?}");
        println!("at least {levels:?} bytes in use");
        handler.uninstall().expect("no other handle is left");
    };
    std::thread::spawn(work).join().expect("no panic");
}

/// A trap is told without memory, too: all but its frames.
#[test]
fn trapping() {
    let _alone = alone();
    let guests = Guests::load();
    let handler = TrapHandler::install(TrapOptions::new()).expect("memory");
    let thread = GuestThread::prepare(&handler).expect("memory");
    let call = [guests.address("call"), guests.address("unreachable"), 0];
    let whole = guests.run(&thread, "call", call).expect_err("it traps");
    assert_eq!((whole.frames().len(), whole.has_all_frames()), (3, true));
    each_refusal("a trap", |k, for_good| {
        let before = live_bytes();
        let outcome = refusing(k, for_good, || guests.run(&thread, "call", call));
        let outcome = outcome.map(|result| {
            let trap = result.expect_err("it traps");
            assert_eq!((trap.cause(), trap.pc()), (whole.cause(), whole.pc()));
            assert_eq!(trap.function(), whole.function());
            let frames = trap.frames().len();
            assert_eq!(trap.has_all_frames(), frames == 3);
            assert!(frames == 3 || frames == 0, "{frames}");
            frames == 3
        });
        assert_eq!(live_bytes(), before, "memory leaked");
        outcome
    });
    drop(thread);
    handler.uninstall().expect("no other handle is left");
}
