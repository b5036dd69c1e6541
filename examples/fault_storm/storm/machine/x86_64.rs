#![expect(unsafe_code, reason = "assembly")]
//! The x86-64 port (System V).

use core::arch::x86_64::{_mm_lfence, _rdtsc};

pub(crate) const CODEGEN_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The interrupted program counter.
pub(crate) fn pc(registers: &libc::mcontext_t) -> usize {
    registers.gregs[libc::REG_RIP as usize] as usize
}

/// The interrupted stack pointer.
pub(crate) fn sp(registers: &libc::mcontext_t) -> usize {
    registers.gregs[libc::REG_RSP as usize] as usize
}

/// The processor's counter, read neither before what precedes it nor behind what follows.
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { _mm_lfence() };
    // SAFETY: as above; Linux leaves it to user code.
    let ticks = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}
