#![expect(unsafe_code, reason = "asks for signal actions, and installs some")]
//! Installing and uninstalling: in processes of their own, because what is installed is the
//! process's. The process without the trap handler only says what is expected.

use crate::compare::Ends::Well;
use crate::compare::Scenario;
use crate::stage::Stage;
use pcmap::trap::{GuestThread, TrapHandler, TrapOptions, UninstallRefused};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{mem, ptr};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "installing_again_is_installing_once", run: again, ends: Well },
    Scenario { name: "uninstalling_puts_back_what_was_there", run: uninstall, ends: Well },
    Scenario { name: "uninstalling_under_somebody_is_an_error", run: installed_over, ends: Well },
    Scenario { name: "installing_again_after_somebody_took_it_out", run: taken_out, ends: Well },
    Scenario { name: "signals_that_are_taken_over_later", run: taken_over_later, ends: Well },
    Scenario { name: "installing_on_many_threads", run: many_threads, ends: Well },
    Scenario { name: "installing_and_uninstalling_at_once", run: at_once, ends: Well },
];

const SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

fn action(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::sigaction(signal, ptr::null(), &mut action) }, 0);
    action
}

fn actions() -> [(usize, libc::c_int); 5] {
    // What the C library adds for itself.
    const SA_RESTORER: libc::c_int = 0x0400_0000;
    SIGNALS.map(action).map(|action| (action.sa_sigaction, action.sa_flags & !SA_RESTORER))
}

fn install() -> TrapHandler {
    TrapHandler::install(TrapOptions::new()).expect("installed")
}

fn again(stage: &Stage) {
    if stage.with_traps {
        let before = actions();
        let quiet = TrapHandler::install(TrapOptions::new().breakpoints(false)).expect("installed");
        assert_eq!(actions()[4], before[4], "SIGTRAP was not asked for");
        assert!(actions().iter().zip(&before).take(4).all(|(now, then)| now.0 != then.0));
        let handler = install();
        let first = actions();
        assert_ne!(first[4].0, before[4].0, "and now it was");
        let handles: Vec<_> = (0..10).map(|_| install()).collect();
        let more = handles.clone();
        assert_eq!(actions(), first);
        drop((handles, more, quiet));
        let thread = GuestThread::prepare(&handler).expect("prepared");
        drop(handler);
        stage.guests.run(&thread, "load", [0; 3]).expect_err("it traps");
        drop(thread);
        assert_eq!(actions(), first, "without a handle it stays");
        let thread = GuestThread::prepare(&install()).expect("prepared");
        stage.guests.run(&thread, "load", [0; 3]).expect_err("it traps");
    }
    println!("installed once");
}

fn uninstall(stage: &Stage) {
    if stage.with_traps {
        let before = actions();
        for _ in 0..10 {
            let handler = install();
            let other = handler.clone();
            let refused = handler.uninstall().expect_err("there is another handle");
            assert_eq!(refused.reason, UninstallRefused::InUse);
            drop(refused.handler);
            let thread = GuestThread::prepare(&other).expect("prepared");
            stage.guests.run(&thread, "load", [0; 3]).expect_err("it traps");
            let refused = other.uninstall().expect_err("a thread is prepared");
            assert_eq!(refused.reason, UninstallRefused::InUse);
            drop(thread);
            refused.handler.uninstall().expect("nobody has a handle");
            assert_eq!(actions(), before);
        }
    }
    println!("as before");
}

extern "C" fn over(_: libc::c_int) {}

fn installed_over(stage: &Stage) {
    if stage.with_traps {
        let before = actions();
        let handler = install();
        let ours = action(libc::SIGFPE);
        // SAFETY: zeros are a valid action.
        let mut theirs: libc::sigaction = unsafe { mem::zeroed() };
        theirs.sa_sigaction = over as *const () as usize;
        // SAFETY: a handler that does nothing.
        unsafe { libc::sigaction(libc::SIGFPE, &theirs, ptr::null_mut()) };
        let now = actions();
        let refused = handler.uninstall().expect_err("somebody is on top");
        let signal = "SIGFPE";
        assert_eq!(refused.reason, UninstallRefused::InstalledOver { signal });
        assert!(refused.to_string().contains(signal), "{refused}");
        assert_eq!(actions(), now, "nothing has changed");
        // And installing again does not go on top of those who are on top of us.
        let again = install();
        assert_eq!(actions(), now);
        drop(again);
        // SAFETY: what was installed.
        unsafe { libc::sigaction(libc::SIGFPE, &ours, ptr::null_mut()) };
        refused.handler.uninstall().expect("ours is on top");
        assert_eq!(actions(), before);
    }
    println!("refused");
}

/// Somebody puts another action in its place, or itself without what it needs: installing again sees that.
fn taken_out(stage: &Stage) {
    if stage.with_traps {
        for before in [libc::SIG_DFL, libc::SIG_IGN, over as *const () as usize] {
            // SAFETY: a handler that does nothing, or none.
            SIGNALS
                .iter()
                .for_each(|&it| unsafe { assert_ne!(libc::signal(it, before), libc::SIG_ERR) });
            let handler = install();
            let thread = GuestThread::prepare(&handler).expect("prepared");
            let ours = action(libc::SIGSEGV).sa_sigaction;
            for instead in [before, libc::SIG_DFL, ours, libc::SIG_IGN] {
                for signal in SIGNALS {
                    // SAFETY: what was installed, or none.
                    assert_ne!(unsafe { libc::signal(signal, instead) }, libc::SIG_ERR);
                    drop(install());
                    assert_eq!(action(signal).sa_sigaction, ours);
                }
                for name in ["load", "unreachable", "divide"] {
                    stage.guests.run(&thread, name, [0; 3]).expect_err("it traps");
                }
            }
            drop(thread);
            // What was found last is what goes back; where nothing of ours is, nothing does.
            // SAFETY: none.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            handler.uninstall().expect("nobody is on top");
            let [segv, bus, ..] = actions().map(|it| it.0);
            assert_eq!([segv, bus], [libc::SIG_IGN, libc::SIG_DFL]);
            assert!(actions().iter().all(|it| it.0 != ours));
        }
    }
    println!("in force");
}

/// A thread that has blocked everything, and was prepared before its signal was taken over.
fn taken_over_later(stage: &Stage) {
    #[cfg(target_arch = "x86_64")]
    const BREAKPOINT: &[u8] = &[0xcc, 0xc3];
    #[cfg(target_arch = "aarch64")]
    const BREAKPOINT: &[u8] = &[0x00, 0x00, 0x20, 0xd4, 0xc0, 0x03, 0x5f, 0xd6];
    fn is_blocked(signal: libc::c_int) -> bool {
        // SAFETY: zeros are the empty set.
        let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: only asks.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask) };
        // SAFETY: asks about a signal that exists.
        unsafe { libc::sigismember(&mask, signal) == 1 }
    }
    if stage.with_traps {
        // SAFETY: zeros are the empty set.
        let mut all: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: a set of ours.
        unsafe { libc::sigfillset(&mut all) };
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, ptr::null_mut()) };
        let (_code, guest) = crate::once::load(BREAKPOINT, Some(0));
        let few = TrapOptions::new().breakpoints(false);
        for prepares_again in [false, true] {
            let handler = TrapHandler::install(few).expect("installed");
            let thread = GuestThread::prepare(&handler).expect("prepared");
            stage.guests.run(&thread, "load", [0; 3]).expect_err("it traps");
            assert!(is_blocked(libc::SIGTRAP) && !is_blocked(libc::SIGSEGV));
            // And options that ask for less take nothing away.
            let more = [install(), TrapHandler::install(few).expect("installed")];
            assert!(is_blocked(libc::SIGTRAP), "on no other thread's behalf");
            if prepares_again {
                drop(GuestThread::prepare(&handler).expect("prepared"));
                assert!(!is_blocked(libc::SIGTRAP));
            }
            // SAFETY: (`call`) 1. kept by `_code`; 2. to 4. it calls nothing.
            let run = thread.catch_traps(|it| unsafe { it.call(guest, (0, 0, 0)) });
            assert_eq!(run.expect_err("it traps").signal(), Some(libc::SIGTRAP));
            drop((thread, more));
            assert!(SIGNALS.into_iter().all(is_blocked), "as before");
            handler.uninstall().expect("nobody has a handle");
        }
    }
    println!("trapped");
}

fn many_threads(stage: &Stage) {
    if stage.with_traps {
        let guest = stage.guests.guest("load");
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let thread = GuestThread::prepare(&install()).expect("prepared");
                    // SAFETY: (`call`) 1. kept by the stage; 2. to 4. it only loads.
                    let run = || thread.catch_traps(|it| unsafe { it.call(guest, (0, 0, 0)) });
                    (0..100).for_each(|_| drop(run().expect_err("it traps")));
                });
            }
        });
        install().uninstall().expect("all threads have gone");
    }
    println!("all trapped");
}

/// Some install and uninstall, others install and trap: a trap finds the handler as long as its thread is
/// prepared, and in the end everything is as before.
fn at_once(stage: &Stage) {
    if stage.with_traps {
        let (before, guest) = (actions(), stage.guests.guest("load"));
        let taken_out = AtomicUsize::new(0);
        let install = || TrapHandler::install(TrapOptions::new());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(handler) = install() else { continue };
                        let thread = GuestThread::prepare(&handler).expect("prepared");
                        // SAFETY: (`call`) 1. kept by the stage; 2. to 4. it only loads.
                        let run = thread.catch_traps(|it| unsafe { it.call(guest, (0, 0, 0)) });
                        run.expect_err("it traps");
                    }
                });
                // It succeeds when nobody else has a handle: at last, when the others have ended.
                scope.spawn(|| {
                    while taken_out.load(Relaxed) < 100 {
                        let Ok(handler) = install() else { continue };
                        taken_out.fetch_add(usize::from(handler.uninstall().is_ok()), Relaxed);
                    }
                });
            }
        });
        install().expect("installed").uninstall().expect("nobody has a handle");
        assert_eq!(actions(), before);
    }
    println!("as before");
}
