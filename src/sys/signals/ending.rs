#![expect(unsafe_code, reason = "system calls, and a signal frame")]
//! The default action of a fault's signal, taken in a handler: the end of the process, as if no handler had
//! been there.
//!
//! To restore the default action and to return is not enough. Not every fault happens again: a frame of
//! another signal that did not fit, `int 4`, a single step, or a page that another thread has made
//! accessible meanwhile. So the signal itself is sent again, with all that the kernel has told. It is
//! delivered when the handler returns, before the interrupted instruction is executed.
//!
//! The first process of a container is another matter. The kernel drops a signal for which that process has
//! no handler, unless it forces the signal, as it does for faults. So a signal that was sent is dropped here,
//! too. Of a fault the frame is spoilt, in addition: the return from the handler is a fault then, for which
//! the kernel forces a SIGSEGV; and the process is no longer special. The signal that was sent again is the
//! first in the queue.

use super::action::Action;
use super::machine;
use super::signal::{SI_KERNEL, is_forced};
use core::ffi::{c_int, c_void};
use core::{mem, ptr};

/// Takes the default action of `signal`, when the handler that is running returns. Signal-safe: system calls
/// that may be made in handlers.
///
/// # Safety
///
/// 1. `info` and `context` are those of a delivery of `signal`, to a handler that is running on this thread.
/// 2. Nobody else uses the context.
#[cold]
pub(crate) unsafe fn take_default_action(signal: c_int, info: *const c_void, context: *mut c_void) {
    // SAFETY: by 1.
    let info = unsafe { &*info.cast::<libc::siginfo_t>() };
    // SAFETY: asks for a number.
    let process = unsafe { libc::getpid() };
    let is_first = process == 1;
    let forced = is_forced(signal, info.si_code);
    if is_first && !forced {
        return;
    }
    if Action::default().install(signal).is_err() {
        // A fault whose signal is blocked ends the process, whatever is installed.
        // SAFETY: (`block_in`) 1. by 1. and 2.
        unsafe { block_in(context, signal) };
        return;
    }
    // The caller of the handler may not have blocked it.
    // SAFETY: all zero is the empty set.
    let mut itself: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: adds a signal that exists to a set of ours.
    unsafe { libc::sigaddset(&raw mut itself, signal) };
    // SAFETY: a set of ours; the return from the handler restores the mask.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const itself, ptr::null_mut()) };
    // SAFETY: asks for a number.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    let queue = libc::SYS_rt_tgsigqueueinfo;
    // SAFETY: a thread may send itself whatever it likes.
    let sent = unsafe { libc::syscall(queue, process, thread, signal, ptr::from_ref(info)) };
    if sent != 0 && !forced {
        // SAFETY: may be called in handlers. (A fault happens again, mostly.)
        unsafe { libc::raise(signal) };
    }
    if is_first {
        let _ = Action::default().install(libc::SIGSEGV);
        // SAFETY: (`spoil`) 1. by 1. and 2.
        unsafe { machine::spoil(context) };
    }
}

/// Ends the process as the kernel does if it cannot write its frame: by a SIGSEGV that tells nothing, at the
/// interrupted instruction. Signal-safe, as above.
///
/// # Safety
///
/// 1. `context` is that of a handler that is running on this thread, and nobody else uses it.
#[cold]
pub(crate) unsafe fn end_without_room(context: *mut c_void) {
    // SAFETY: all zero is valid.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGSEGV, SI_KERNEL);
    // SAFETY: (`take_default_action`) 1. what the kernel would deliver next, and by 1.; 2. by 1.
    unsafe { take_default_action(libc::SIGSEGV, (&raw const info).cast(), context) };
}

/// Blocks a signal in the mask that is in force when the handler has returned.
///
/// # Safety
///
/// 1. `context` is what the kernel gave the handler that is running, and nobody else uses it.
unsafe fn block_in(context: *mut c_void, signal: c_int) {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: by 1. it is in the kernel's frame; only the address is taken.
    let mask = unsafe { &raw mut (*context).uc_sigmask }.cast::<u64>();
    // SAFETY: the kernel's set has so many bits, a bit for each signal from 1 on.
    unsafe { *mask |= 1 << (signal - 1) };
}
