#![expect(unsafe_code, reason = "a signal handler, and a timer that raises its signal")]
//! Samples of guests, under the checks that the path of traps is under.

use crate::allocation::watch;
use crate::child::{Ending, in_child};
use crate::system_calls::{exit, forbid};
use crate::trap_guests::{Guests, prepared};
use pcmap::trap::sample_guest;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{mem, ptr};

/// Samples of guests; the most frames of one.
static SAMPLES: AtomicUsize = AtomicUsize::new(0);
static FRAMES: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_alarm(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let mut frames = [0; 64];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else's.
    let count = unsafe { sample_guest(context, &mut frames) };
    SAMPLES.fetch_add(usize::from(count > 0), Relaxed);
    FRAMES.fetch_max(count, Relaxed);
}

/// Raises SIGALRM every so often from now on.
fn start_timer() {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_alarm as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a handler that does what handlers may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) }, 0);
    let period = libc::timeval { tv_sec: 0, tv_usec: 200 };
    let times = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: a whole description.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &times, ptr::null_mut()) }, 0);
}

#[test]
fn a_sample_allocates_nothing_and_makes_no_system_call() {
    let ending = in_child(|| {
        let (guests, thread) = (Guests::load(), prepared());
        let (guest, itself) = (guests.guest("descend"), guests.address("descend"));
        let word = 7_i64;
        watch();
        start_timer();
        forbid();
        // As many calls as there could be in a minute.
        let enough = (0..100_000_000).any(|_| {
            let with = (itself, 50, (&raw const word).addr() as i64);
            // SAFETY: (`call`) 1. kept by `guests`; 2. to 4. it calls itself.
            let run = thread.catch_traps(|it| unsafe { it.call(guest, with) });
            run.is_err() || SAMPLES.load(Relaxed) >= 500
        });
        exit(enough && FRAMES.load(Relaxed) > 30);
    });
    assert_eq!(ending, Ending::Status(0));
}
