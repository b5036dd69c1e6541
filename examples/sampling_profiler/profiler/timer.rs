#![expect(unsafe_code, reason = "a signal handler, and timers that raise its signal")]
//! The interruptions: a timer of each thread's own, and the handler of its signal.

use super::buffer::{FRAMES, SAMPLES};
use pcmap::trap::sample_guest;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::marker::PhantomData;
use std::time::Duration;
use std::{mem, ptr};

/// Not a multiple of anything that the guests do.
const PERIOD: Duration = Duration::from_nanos(151_123);

/// Installs the handler.
///
/// # Errors
///
/// What the system says.
pub(crate) fn install() -> Result<(), Error> {
    // SA_ONSTACK: the guest's stack is not ours to use. SA_RESTART: no system call shall notice.
    let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    set_action((on_sample as *const ()).addr(), flags)
}

/// Ignores the signal: one may still be on its way.
pub(crate) fn retire() -> Result<(), Error> {
    set_action(libc::SIG_IGN, 0)
}

fn set_action(handler: usize, flags: c_int) -> Result<(), Error> {
    // SAFETY: all zero is a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action is whole, and the handler does only what a handler may.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Signal-safe: lookups, loads and stores.
extern "C" fn on_sample(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let mut frames = [0; FRAMES];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else looks at it.
    let count = unsafe { sample_guest(context, &mut frames) };
    SAMPLES.put(frames.get(..count).unwrap_or_default());
}

/// Samples this thread until dropped.
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
    pub(crate) fn start() -> Result<Self, Error> {
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
        let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD.subsec_nanos().into() };
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
