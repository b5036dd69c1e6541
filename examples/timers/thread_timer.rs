#![expect(unsafe_code, reason = "the system's timers")]
//! A timer of a thread's own, for sampling it.

use std::io::Error;
use std::time::Duration;
use std::{mem, ptr};

/// Raises SIGPROF on the thread that made it, again and again, until dropped.
///
/// Other threads may change how often: a thread that is interrupted faster than it can handle the
/// signals cannot.
#[derive(Debug)]
pub(crate) struct ThreadTimer(libc::timer_t);

// SAFETY: a number, which every thread of the process may use; the kernel knows whom it interrupts.
unsafe impl Send for ThreadTimer {}
// SAFETY: as above; the kernel orders changes.
unsafe impl Sync for ThreadTimer {}

impl ThreadTimer {
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn start(period: Duration) -> Result<Self, Error> {
        // SAFETY: all zero is a valid event.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        // SAFETY: asks for this thread's number.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: the event is whole, and there is room for the answer.
        if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } != 0 {
            return Err(Error::last_os_error());
        }
        let timer = Self(timer);
        timer.set_period(period)?;
        Ok(timer)
    }

    /// Changes how often, from now on; a period of zero stops it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn set_period(&self, period: Duration) -> Result<(), Error> {
        let period = libc::timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer of ours, and a whole description.
        match unsafe { libc::timer_settime(self.0, 0, &times, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: ours, and not deleted yet.
        unsafe { libc::timer_delete(self.0) };
    }
}
