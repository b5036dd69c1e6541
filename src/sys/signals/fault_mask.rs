#![expect(unsafe_code, reason = "a thread's signal mask")]
//! The signals of faults, taken out of a thread's mask: if a fault's signal is blocked, the kernel ends
//! the process, whatever is installed. Threads that are to get no signals often block all.

use super::chain::links;
use core::ffi::c_int;
use core::{mem, ptr};

/// As long as this lives, the thread that made it has no fault signal blocked that the runtime has
/// taken over; then those that it had are again.
#[derive(Debug)]
pub(crate) struct Unblocked {
    before: Vec<c_int>,
}

impl Unblocked {
    /// For the calling thread. None if there is no memory: nothing has changed.
    pub(crate) fn faults() -> Option<Self> {
        let mut mask = empty();
        // SAFETY: only asks, and there is room for the answer.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
        // SAFETY: asks about a signal that exists.
        let blocked = |signal| unsafe { libc::sigismember(&raw const mask, signal) } == 1;
        let mut before = Vec::new();
        for link in links(blocked).filter(|link| link.is_taken_over()) {
            before.try_reserve(1).ok()?;
            before.push(link.signal());
        }
        change(libc::SIG_UNBLOCK, &before);
        Some(Self { before })
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        change(libc::SIG_BLOCK, &self.before);
    }
}

fn empty() -> libc::sigset_t {
    // SAFETY: all zero is the empty set.
    unsafe { mem::zeroed() }
}

fn change(how: c_int, signals: &[c_int]) {
    let mut set = empty();
    for &signal in signals {
        // SAFETY: adds a signal that exists to a set of ours.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: a set of ours; the signals are those of faults, which the runtime handles.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}
