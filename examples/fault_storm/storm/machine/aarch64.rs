#![expect(unsafe_code, reason = "assembly")]
//! The AArch64 port (AAPCS64).

use core::arch::asm;
use std::ops::Range;

pub(crate) const CODEGEN_TARGET: &str = "aarch64-unknown-linux-gnu";

// x0: where to note the stack pointer, x1: code, x2: memory, x3: a, x4: b.
// The guest must preserve x19 to x29 and the low halves of v8 to v15; a fault may come while it
// has not put them back.
core::arch::global_asm!(
    ".pushsection .text.fault_storm_enter, \"ax\", @progbits",
    ".balign 16",
    ".globl fault_storm_enter",
    ".hidden fault_storm_enter",
    ".type fault_storm_enter, @function",
    "fault_storm_enter:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-176]!",
    ".cfi_def_cfa_offset 176",
    ".cfi_offset x29, -176",
    ".cfi_offset x30, -168",
    "mov x29, sp",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    "stp d8, d9, [sp, #96]",
    "stp d10, d11, [sp, #112]",
    "stp d12, d13, [sp, #128]",
    "stp d14, d15, [sp, #144]",
    "str x0, [sp, #160]",
    "mov x16, x1",
    "mov x17, sp",
    "isb",           // the code may be newer than what this core has fetched
    "str x17, [x0]", // from here on a fault resumes below
    "mov x0, x2",
    "mov x1, x3",
    "mov x2, x4",
    "blr x16",
    "mov x1, #0",
    "b 2f",
    ".globl fault_storm_resume",
    ".hidden fault_storm_resume",
    "fault_storm_resume:",
    "mov x0, #0",
    "mov x1, #1",
    "2:",
    "ldr x9, [sp, #160]",
    "str xzr, [x9]", // and from here on no more
    "ldp d14, d15, [sp, #144]",
    "ldp d12, d13, [sp, #128]",
    "ldp d10, d11, [sp, #112]",
    "ldp d8, d9, [sp, #96]",
    "ldp x27, x28, [sp, #80]",
    "ldp x25, x26, [sp, #64]",
    "ldp x23, x24, [sp, #48]",
    "ldp x21, x22, [sp, #32]",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #176",
    ".cfi_def_cfa_offset 0",
    "ret",
    ".cfi_endproc",
    ".globl fault_storm_enter_end",
    ".hidden fault_storm_enter_end",
    "fault_storm_enter_end:",
    ".size fault_storm_enter, . - fault_storm_enter",
    ".popsection",
);

/// The interrupted program counter.
pub(crate) fn pc(registers: &libc::mcontext_t) -> usize {
    registers.pc as usize
}

/// The interrupted stack pointer.
pub(crate) fn sp(registers: &libc::mcontext_t) -> usize {
    registers.sp as usize
}

/// Changes where the interrupted thread goes on.
pub(crate) fn resume(registers: &mut libc::mcontext_t, pc: usize, sp: usize) {
    registers.pc = pc as u64;
    registers.sp = sp as u64;
}

/// The generic timer's counter: coarser than the processor's clock on most machines.
pub(crate) fn ticks() -> u64 {
    let ticks: u64;
    // SAFETY: Linux leaves the counter to user code; it is read neither before what precedes it
    // nor behind what follows, and nothing else is touched.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", "isb", out(reg) ticks, options(nostack)) };
    ticks
}

/// Makes what was written visible to instruction fetches, on every core that then executes an
/// `isb`, as the way in does.
pub(crate) fn publish_instructions(written: Range<usize>) {
    let line_sizes: u64;
    // SAFETY: Linux lets user code read the register; nothing else is touched.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) line_sizes, options(nomem, nostack)) };
    let data_line = 4_usize << ((line_sizes >> 16) & 0xf);
    let instruction_line = 4_usize << (line_sizes & 0xf);
    for line in (written.start & !(data_line - 1)..written.end).step_by(data_line) {
        // SAFETY: cleans a line of memory that the caller has mapped; no value changes.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: waits for the above.
    unsafe { asm!("dsb ish", options(nostack)) };
    for line in (written.start & !(instruction_line - 1)..written.end).step_by(instruction_line) {
        // SAFETY: drops fetched copies of a line that the caller has mapped; no value changes.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: waits for the above, here and on the other cores.
    unsafe { asm!("dsb ish", "isb", options(nostack)) };
}
