#![expect(unsafe_code, reason = "the futex call, which may be made in a handler")]
//! Waiting for another thread in a signal handler: Rust's own ways may not be used there.

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// After so many seconds a thread that is waited for is taken to hang.
const PATIENCE: libc::time_t = 60;

/// A number that only grows, and can be waited for.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU32);

impl Count {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(SeqCst)
    }

    /// Adds one; wakes who waits. Signal-safe.
    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, SeqCst);
        let word = self.0.as_ptr();
        // SAFETY: `word` is a valid word of this process.
        unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, libc::c_int::MAX) };
    }

    /// Waits until the number is above `count`; `false`: patience was lost. Signal-safe.
    #[must_use]
    pub(crate) fn wait_above(&self, count: u32) -> bool {
        let mut looks = 0;
        loop {
            let now = self.get();
            if now > count {
                return true;
            }
            if looks == PATIENCE {
                return false;
            }
            let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            let (word, wait) = (self.0.as_ptr(), libc::FUTEX_WAIT);
            // SAFETY: `word` is a valid word, `second` a valid time; the call returns when the word
            // differs from `now`, when woken, and after a second.
            let status =
                unsafe { libc::syscall(libc::SYS_futex, word, wait, now, &raw const second) };
            // SAFETY: the address of this thread's errno, always.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: this thread's errno.
            let errno = unsafe { *errno };
            looks += libc::time_t::from(status != 0 && errno == libc::ETIMEDOUT);
        }
    }
}

/// Stops this thread for ever. Signal-safe.
pub(crate) fn stop_for_ever() -> ! {
    loop {
        // SAFETY: no pointers; not a number of descriptors that could be wrong.
        unsafe { libc::poll(ptr::null_mut(), 0, -1) };
    }
}
