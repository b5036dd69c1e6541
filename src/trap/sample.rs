#![expect(unsafe_code, reason = "reads a signal frame and the stack of a guest")]
//! Looking at a guest that a signal has interrupted: what a sampling profiler's handler does.

use super::backtrace::walk;
use super::thread_record::threads;
use crate::registry::process_code_map;
use crate::sys::signals::interrupted::Interrupted;
use core::ffi::c_void;
use core::ptr;

/// Writes the program counters of the interrupted guest's frames to `frames`, innermost first; gives
/// how many.
///
/// 0 if it is no guest that was interrupted: the program counter is in no registered code. Of a guest
/// that does not run by way of an activation only the program counter is told. Those behind the first
/// are return addresses: see [`TrapFrame::lookup_address`](super::TrapFrame::lookup_address).
/// The second frame may be missing, where it is of a [trace](super::Trap::has_all_frames).
///
/// ```no_run
/// use core::ffi::{c_int, c_void};
///
/// unsafe extern "C" fn on_sample(_: c_int, _: *mut c_void, context: *mut c_void) {
///     let mut frames = [0; 32];
///     // SAFETY: the kernel's, and nobody else looks at it meanwhile.
///     let count = unsafe { pcmap::trap::sample_guest(context, &mut frames) };
///     # let _ = count;
///     // Put `frames[..count]` where no lock is needed.
/// }
/// ```
///
/// **Cost**: two lookups, and one for each frame. **Progress**: wait-free. **Errors, panics**: none.
/// **Signal-safe**: yes; it is for handlers.
///
/// # Safety
///
/// 1. `context` is what the kernel gave the handler that is running, installed with `SA_SIGINFO`, and
///    nobody else looks at it during the call.
pub unsafe fn sample_guest(context: *mut c_void, frames: &mut [usize]) -> usize {
    // SAFETY: (`from_handler`) 1. by 1.; 2. by 1., and it is gone at the end.
    let interrupted = unsafe { Interrupted::from_handler(context) };
    let registers = interrupted.registers();
    let code = process_code_map().enter();
    if code.lookup(registers.pc).is_none() {
        return 0;
    }
    let threads = threads();
    let known = threads.own().and_then(|thread| {
        // SAFETY: null, or a call that has not returned, in the stack of this thread.
        let call = unsafe { thread.innermost().as_ref() }?;
        Some((thread.guest_stack(registers.sp, None, call.recovery().sp), thread.suspended()))
    });
    let (stack, outer) = known.unwrap_or((0..0, ptr::null_mut()));
    // SAFETY: (`walk`) 1. nothing, or stack of this thread, from where the guest is up to where it
    // was called; 2. null, or its thread's.
    unsafe { walk(&code, registers, stack, outer, frames) }.0
}
