#![expect(unsafe_code, reason = "reads and changes signal frames")]
//! What a signal interrupted: the thread's registers, as the kernel saved them.

use super::alternate_stack;
use super::machine::{self, LONGEST, Recovery, Registers};
use core::ffi::{c_int, c_void};
use core::ops::Range;

/// The frame of the signal whose handler is running.
///
/// The kernel's frame is shorter than the C library's `ucontext_t`, so only parts that both have are
/// borrowed.
#[derive(Debug)]
pub(crate) struct Interrupted<'frame> {
    registers: &'frame mut libc::mcontext_t,
    stack: &'frame libc::stack_t,
}

impl Interrupted<'_> {
    /// Signal-safe.
    ///
    /// # Safety
    ///
    /// 1. `context` is what the kernel gave a handler that has not returned.
    /// 2. It is used by nobody else while the result lives, which is not longer than the handler.
    #[inline]
    pub(crate) unsafe fn from_handler(context: *mut c_void) -> Self {
        let context: *mut libc::ucontext_t = context.cast();
        // SAFETY: by 1. the kernel has written it, and it is aligned; by 2. nobody else has it.
        let registers = unsafe { &mut (*context).uc_mcontext };
        // SAFETY: as above, and apart from the registers.
        let stack = unsafe { &(*context).uc_stack };
        Self { registers, stack }
    }

    #[inline]
    pub(crate) fn registers(&self) -> Registers {
        machine::registers(self.registers)
    }

    /// The thread's alternate stack, in force when the signal came, whether or not the handler runs
    /// on it.
    #[inline]
    pub(crate) fn alternate_stack(&self) -> Option<Range<usize>> {
        alternate_stack::range(self.stack)
    }

    /// Whether the interrupted instruction may have raised a signal whose cause the kernel does not tell.
    #[inline]
    pub(crate) fn may_have_raised(&self, signal: c_int) -> bool {
        machine::may_have_raised(self.registers, signal)
    }

    /// Whether the interrupted instruction, which is told, cannot have raised such a signal after all.
    pub(crate) fn cannot_have_raised(&self, signal: c_int, instruction: [u8; LONGEST]) -> bool {
        machine::cannot_have_raised(self.registers, signal, instruction)
    }

    /// Makes the thread go on at a recovery point when the handler returns, with the signal mask and
    /// the alternate stack that it had.
    #[inline]
    pub(crate) fn recover(self, to: Recovery) {
        // SAFETY: (`recover`) 1. by 1. of `from_handler`.
        unsafe { machine::recover(self.registers, to) };
    }
}
