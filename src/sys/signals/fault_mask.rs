#![expect(unsafe_code, reason = "a thread's signal mask")]
//! The signals of faults, taken out of a thread's mask: if a fault's signal is blocked, the kernel ends
//! the process, whatever is installed. Threads that are to get no signals often block all.

use super::chain::{self, links};
use core::cell::Cell;
use core::ffi::c_int;
use core::{mem, ptr};

/// As long as this lives, the thread that made it has no fault signal blocked that the runtime has
/// taken over; then those that it had are again.
#[derive(Debug)]
pub(crate) struct Unblocked {
    /// Those that were blocked: a bit for each signal, from 1 on.
    before: Cell<u64>,
    /// How often signals had been taken over when the mask was looked at.
    seen: Cell<usize>,
}

impl Unblocked {
    /// For the calling thread.
    pub(crate) fn faults() -> Self {
        let unblocked = Self { before: Cell::new(0), seen: Cell::new(0) };
        unblocked.renew();
        unblocked
    }

    /// For the same thread, for signals that were taken over since. Two loads, if there are none.
    #[inline]
    pub(crate) fn renew(&self) {
        let now = chain::times_taken_over();
        if now != self.seen.get() {
            self.unblock();
            self.seen.set(now);
        }
    }

    #[cold]
    fn unblock(&self) {
        let mut mask = empty();
        // SAFETY: only asks, and there is room for the answer.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask) };
        // SAFETY: asks about a signal that exists.
        let blocked = |signal| unsafe { libc::sigismember(&raw const mask, signal) } == 1;
        let ours = links(blocked).filter(|link| link.is_taken_over());
        let bits = ours.fold(0, |bits, link| bits | 1 << (link.signal() - 1));
        change(libc::SIG_UNBLOCK, bits);
        self.before.set(self.before.get() | bits);
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        change(libc::SIG_BLOCK, self.before.get());
    }
}

fn empty() -> libc::sigset_t {
    // SAFETY: all zero is the empty set.
    unsafe { mem::zeroed() }
}

fn change(how: c_int, signals: u64) {
    let mut set = empty();
    for link in links(|signal| signals >> (signal - 1) & 1 != 0) {
        // SAFETY: adds a signal that exists to a set of ours.
        unsafe { libc::sigaddset(&raw mut set, link.signal()) };
    }
    // SAFETY: a set of ours; the signals are those of faults, which the runtime handles.
    unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
}
