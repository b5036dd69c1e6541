#![expect(unsafe_code, reason = "asks the C library for the thread's stack")]
//! How far down the memory of a thread's own stack goes.
//!
//! Nothing here decides what an overflow is: a limit can change, and something can be mapped in its way. It
//! keeps those who read a stack from reading what was never a part of it.

use super::readable::is_readable;
use crate::sys::pages::round_up;
use core::mem::MaybeUninit;

/// A thread's own stack: it grows downwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadStack {
    /// No address below is a part of it; 0 if that is not settled: the system lets the first thread's
    /// stack grow.
    pub(crate) lowest: usize,
    /// The length of a page, in bytes.
    pub(crate) page: usize,
}

impl ThreadStack {
    /// The stack of the calling thread. A system call or two, mostly.
    pub(crate) fn own() -> Self {
        let page = page_size();
        let here = (&raw const page).addr();
        let told = if is_first_thread() { None } else { lowest_told() };
        // C libraries disagree on whether the guard is a part of the stack that they tell, and others
        // protect pages of it for themselves.
        let lowest = told.map_or(0, |told| {
            let pages = (told..here).step_by(page);
            pages.clone().find(|&at| is_readable(at)).unwrap_or(0)
        });
        Self { lowest, page }
    }
}

/// The length of a page, in bytes.
pub(crate) fn page_size() -> usize {
    round_up(1).unwrap_or(1 << 16)
}

/// Where the C library says that the stack of the calling thread starts, if it does.
fn lowest_told() -> Option<usize> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: asks about the calling thread, and there is room for the answer.
    if unsafe { libc::pthread_getattr_np(thread, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut start, mut size) = (core::ptr::null_mut(), 0);
    // SAFETY: written by the successful call; there is room for both numbers.
    let error =
        unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size) };
    // SAFETY: as above; used no more.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (error == 0).then(|| start.addr())
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
    use super::{ThreadStack, is_readable};

    #[test]
    fn a_local_lies_in_the_stack_and_what_is_lowest_can_be_read() {
        let stack = ThreadStack::own();
        let here = (&raw const stack).addr();
        assert!(0 < stack.lowest && stack.lowest < here, "{stack:x?}");
        assert!((stack.lowest..here).step_by(stack.page).all(is_readable), "{stack:x?}");
        assert!(!is_readable(stack.lowest - 1), "the guard");
    }
}
