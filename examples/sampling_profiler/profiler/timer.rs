#![expect(unsafe_code, reason = "a signal handler")]
//! The interruptions: how often they come, and the handler of their signal.

use super::buffer::{FRAMES, SAMPLES};
use pcmap::trap::sample_guest;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::time::Duration;
use std::{mem, ptr};

/// Not a multiple of anything that the guests do.
pub(crate) const PERIOD: Duration = Duration::from_nanos(151_123);

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
