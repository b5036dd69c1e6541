#![expect(unsafe_code, reason = "enters generated code")]
//! What a port must supply: the way into a guest and out of it, the registers in a signal frame, a
//! clock to read in a handler, and instruction memory made coherent.
//!
//! The way in saves what the calling convention asks to be preserved on the stack, notes the stack
//! pointer in the activation, and calls the guest. A guest that returns comes back behind the call.
//! One that faults is sent to the resume label with the noted stack pointer: there the same
//! registers are taken from the same stack, and the frames of the guest are simply gone. No
//! `setjmp`: nothing is saved but what the one label needs.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{CODEGEN_TARGET, pc, publish_instructions, resume, sp, ticks};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{CODEGEN_TARGET, pc, publish_instructions, resume, sp, ticks};

use std::ops::Range;
use std::sync::atomic::AtomicUsize;

/// How a call of a guest ended: two registers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    /// What it returned; nothing if it faulted.
    pub(crate) value: u64,
    /// Not zero if it was resumed after a fault.
    pub(crate) faulted: u64,
}

// Defined by the port in assembly, one behind the other.
unsafe extern "C" {
    /// Calls the guest at `code` with `memory`, `a` and `b`. `resume_sp` is the stack pointer to
    /// resume with from just before the call to just behind it, and zero otherwise.
    fn fault_storm_enter(
        resume_sp: *const AtomicUsize,
        code: usize,
        memory: usize,
        a: u64,
        b: u64,
    ) -> Exit;
    /// Where a fault resumes; not a function.
    fn fault_storm_resume();
    /// The end of both; not a function.
    fn fault_storm_enter_end();
}

/// Calls a guest.
///
/// # Safety
///
/// 1. `code` is a guest's first instruction, and stays mapped during the call.
/// 2. The fault handlers are installed, and resume this thread at [`resume_label`] with the value
///    of `resume_sp`, or not at all.
pub(crate) unsafe fn enter(
    resume_sp: &AtomicUsize,
    code: usize,
    memory: usize,
    a: u64,
    b: u64,
) -> Exit {
    // SAFETY: 1 and 2 are the caller's; the rest is what the assembly promises.
    unsafe { fault_storm_enter(resume_sp, code, memory, a, b) }
}

/// Where to resume a thread whose guest faulted.
pub(crate) fn resume_label() -> usize {
    (fault_storm_resume as *const ()).addr()
}

/// The way in and out: host code that runs while `resume_sp` is not zero.
pub(crate) fn entry_code() -> Range<usize> {
    (fault_storm_enter as *const ()).addr()..(fault_storm_enter_end as *const ()).addr()
}
