#![expect(unsafe_code, reason = "maps a stack and hands it to the kernel")]
//! A stack for a thread's handlers, with a guard page below.
//!
//! Handlers nest on it: a fault's, and a profiling signal's on top. A frame with the vector state
//! of a large x86-64 is some ten kilobytes; there is room for several.

use super::guest_memory::page_size;
use std::ffi::c_void;
use std::io::Error;
use std::mem::MaybeUninit;
use std::ptr;

const SIZE: usize = 128 << 10;

/// In force for the thread that made it until it is dropped, there.
#[derive(Debug)]
pub(crate) struct HandlerStack {
    /// The mapping: the guard page, then the stack.
    base: *mut c_void,
    len: usize,
    /// What the thread had before (the standard library gives each of its threads one).
    before: libc::stack_t,
}

impl HandlerStack {
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn install() -> Result<Self, Error> {
        let (guard, len) = (page_size(), page_size() + SIZE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a new mapping, at a place of the system's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let ss_sp = base.wrapping_byte_add(guard);
        // SAFETY: the mapping above but for its first page; nobody uses it yet.
        if unsafe { libc::mprotect(ss_sp, SIZE, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            return Err(Error::last_os_error());
        }
        let stack = libc::stack_t { ss_sp, ss_flags: 0, ss_size: SIZE };
        let mut before = MaybeUninit::uninit();
        // SAFETY: the stack is ours and stays mapped until it is out of force.
        if unsafe { libc::sigaltstack(&stack, before.as_mut_ptr()) } != 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: written by the successful call.
        let before = unsafe { before.assume_init() };
        Ok(Self { base, len, before })
    }
}

impl Drop for HandlerStack {
    fn drop(&mut self) {
        // SAFETY: puts back what was in force; this code runs on the thread's own stack.
        if unsafe { libc::sigaltstack(&self.before, ptr::null_mut()) } == 0 {
            // SAFETY: ours, whole, and out of force.
            unsafe { libc::munmap(self.base, self.len) };
        }
    }
}
