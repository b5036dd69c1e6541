#![expect(unsafe_code, reason = "asks the C library for the thread's stack")]
//! Where a thread's own stack ends, and where an overflow of it faults.

use crate::sys::pages::{ErrorNumber, round_up};
use core::mem::MaybeUninit;
use core::ops::Range;

/// A thread's own stack: it grows downwards.
#[derive(Clone, Debug)]
pub(crate) struct ThreadStack {
    /// The lowest address that may be used.
    pub(crate) low: usize,
    /// Where an access faults that goes beyond: half-open.
    pub(crate) guard: Range<usize>,
}

/// The gap that Linux keeps free below the first thread's stack (`stack_guard_gap`, 256 pages by
/// default), which has no guard page of its own.
const GAP: usize = 1 << 20;

/// The stack of the calling thread.
///
/// # Errors
///
/// What the C library says.
pub(crate) fn own() -> Result<ThreadStack, ErrorNumber> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: asks about the calling thread, and there is room for the answer.
    let error = unsafe { libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) };
    if error != 0 {
        return Err(error);
    }
    let (mut start, mut size, mut guard) = (core::ptr::null_mut(), 0, 0);
    // SAFETY: written by the successful call; there is room for both numbers.
    let error =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size) };
    // SAFETY: as above.
    let other = unsafe { libc::pthread_attr_getguardsize(attributes.as_ptr(), &raw mut guard) };
    // SAFETY: as above; used no more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    if error != 0 || other != 0 {
        return Err(if error != 0 { error } else { other });
    }
    let low = start.addr();
    // C libraries disagree on whether the guard lies below the stack they tell or is its lowest
    // part. An access to either side can only fault if it is to the guard: what is not guard is
    // memory. (The first thread's lies where the system's limit is, to a page.)
    let page = round_up(1).unwrap_or(1 << 16);
    let guard = if is_first_thread() { guard.max(GAP) } else { guard };
    let below = low.saturating_sub(guard);
    Ok(ThreadStack { low, guard: below..low.saturating_add(guard.clamp(page, 16 * page)) })
}

/// Whether this is the thread that the process began with.
fn is_first_thread() -> bool {
    // SAFETY: asks for a number.
    let process = unsafe { libc::getpid() };
    // SAFETY: as above.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    thread == libc::c_long::from(process)
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn a_local_lies_in_the_stack_and_the_guard_below() {
        let local = 0_u8;
        let stack = own().expect("known");
        let address = (&raw const local).addr();
        assert!(stack.low < address && stack.guard.start < stack.low);
        assert!(!stack.guard.contains(&address));
    }
}
