#![expect(unsafe_code, reason = "a signal handler")]
//! The fault handler: which module, function and trap is this, and back to the thread's way in.

use super::activation::{Activation, FAULTS};
use super::chain;
use super::interrupted::Interrupted;
use super::machine;
use super::module::CODE;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::{mem, ptr};

/// Installs the handler for every signal that a fault arrives as.
///
/// # Errors
///
/// What the system says.
pub(crate) fn install() -> Result<(), Error> {
    // SAFETY: all zero is a valid action (default, no flags, empty mask).
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = (on_fault as *const ()).addr();
    // SA_SIGINFO: the handler needs the interrupted registers, to read and to change.
    // SA_ONSTACK: the thread's own stack is the guest's, and may be what faulted.
    // No SA_NODEFER: the handler is a lookup and does not fault. If it did all the same, with its
    //   signal blocked, the kernel ends the process on the spot, which beats handling it for ever.
    // Empty mask: profiling signals come through, for a lookup must survive one in a lookup.
    // No SA_RESTART: a fault interrupts no system call.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for (signal, _) in FAULTS {
        // First remember, then install: whatever faults in between goes the old way.
        chain::remember(signal)?;
        // SAFETY: the action is whole, and the handler does only what a handler may.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } != 0 {
            return Err(Error::last_os_error());
        }
    }
    Ok(())
}

/// Signal-safe: a lookup, loads and stores. Nothing here touches `errno`.
extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, and gone before the handler returns or passes it on.
    let interrupted = unsafe { Interrupted::from_handler(context) };
    // SAFETY: the kernel's too.
    let code = unsafe { (*info).si_code };
    // Sent by a process, or a fault of another handler: not a guest's, wherever the guest is.
    if chain::is_from_kernel(code) && !interrupted.in_handler() {
        let began = machine::ticks();
        let attribution = CODE.lookup(interrupted.pc(), |hit| hit.value().explain(hit.offset()));
        let took = machine::ticks().wrapping_sub(began);
        // Thread-local state comes second. A runtime would stop here if the map knew nothing; a
        // test that wants to count what the map misses must ask whether a guest was running.
        if let Some(activation) = Activation::running() {
            activation.lookups.record(took);
            activation.note_fault(signal, attribution);
            interrupted.resume_at(machine::resume_label(), activation.resume_sp());
            return;
        }
    }
    // SAFETY: what the kernel gave this handler, handed on.
    unsafe { chain::pass_on(signal, info, context) };
}
