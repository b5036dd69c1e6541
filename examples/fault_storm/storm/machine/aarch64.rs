#![expect(unsafe_code, reason = "assembly")]
//! The AArch64 port (AAPCS64).

use core::arch::asm;

pub(crate) const CODEGEN_TARGET: &str = "aarch64-unknown-linux-gnu";

/// The interrupted program counter.
pub(crate) fn pc(registers: &libc::mcontext_t) -> usize {
    registers.pc as usize
}

/// The interrupted stack pointer.
pub(crate) fn sp(registers: &libc::mcontext_t) -> usize {
    registers.sp as usize
}

/// The generic timer's counter: coarser than the processor's clock on most machines.
pub(crate) fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: Linux leaves the counter to user code; it is read neither before what precedes it
    // nor behind what follows, and nothing else is touched.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", "isb", out(reg) ticks, options(nostack)) };
    ticks
}
