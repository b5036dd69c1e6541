#![expect(unsafe_code, reason = "the system's timers")]
//! A timer of a thread's own, for sampling it.

use std::io::Error;
use std::marker::PhantomData;
use std::time::Duration;
use std::{mem, ptr};

/// Raises SIGPROF on this thread, again and again, until dropped.
#[derive(Debug)]
pub(crate) struct ThreadTimer {
    timer: libc::timer_t,
    /// It belongs to the thread that started it.
    not_send: PhantomData<*mut ()>,
}

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
        let timer = Self { timer, not_send: PhantomData };
        let period = libc::timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer of ours, and a whole description.
        match unsafe { libc::timer_settime(timer.timer, 0, &times, ptr::null_mut()) } {
            0 => Ok(timer),
            _ => Err(Error::last_os_error()),
        }
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        // SAFETY: ours, and not deleted yet.
        unsafe { libc::timer_delete(self.timer) };
    }
}
