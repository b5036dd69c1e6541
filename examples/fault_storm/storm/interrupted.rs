#![expect(unsafe_code, reason = "reads signal frames")]
//! What a signal interrupted: the thread's registers, as the kernel saved them.

use super::machine;
use std::ffi::c_void;

/// The frame of the signal whose handler is running.
///
/// The kernel's frame is shorter than the C library's `ucontext_t`, so only the parts that both
/// have are borrowed.
#[derive(Debug)]
pub(crate) struct Interrupted<'frame> {
    registers: &'frame libc::mcontext_t,
    stack: &'frame libc::stack_t,
}

impl Interrupted<'_> {
    /// # Safety
    ///
    /// `context` is what the kernel gave this handler, it is used nowhere else while the result
    /// lives, and the result does not outlive the handler.
    pub(crate) unsafe fn from_handler(context: *mut c_void) -> Self {
        let context: *const libc::ucontext_t = context.cast();
        // SAFETY: the kernel wrote it, it is aligned, and nobody else has it.
        let registers = unsafe { &(*context).uc_mcontext };
        // SAFETY: as above, and apart from the registers.
        let stack = unsafe { &(*context).uc_stack };
        Self { registers, stack }
    }

    pub(crate) fn pc(&self) -> usize {
        machine::pc(self.registers)
    }

    /// Whether the thread was running on its alternate stack: in another handler.
    pub(crate) fn in_handler(&self) -> bool {
        let below = machine::sp(self.registers).checked_sub(self.stack.ss_sp.addr());
        below.is_some_and(|offset| offset < self.stack.ss_size)
    }
}
