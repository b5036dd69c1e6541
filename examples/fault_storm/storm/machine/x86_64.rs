#![expect(unsafe_code, reason = "assembly")]
//! The x86-64 port (System V).

use core::arch::x86_64::{_mm_lfence, _rdtsc};
use std::ops::Range;

pub(crate) const CODEGEN_TARGET: &str = "x86_64-unknown-linux-gnu";

// rdi: where to note the stack pointer, rsi: code, rdx: memory, rcx: a, r8: b.
// On entry rsp is 8 off a multiple of 16; seven pushes align it for the call.
core::arch::global_asm!(
    ".pushsection .text.fault_storm_enter, \"ax\", @progbits",
    ".balign 16",
    ".globl fault_storm_enter",
    ".hidden fault_storm_enter",
    ".type fault_storm_enter, @function",
    "fault_storm_enter:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "mov rax, rsi",
    "mov rsi, rcx",
    "mov [rdi], rsp", // from here on a fault resumes below
    "mov rdi, rdx",
    "mov rdx, r8",
    "call rax",
    "xor edx, edx",
    "jmp 2f",
    ".globl fault_storm_resume",
    ".hidden fault_storm_resume",
    "fault_storm_resume:",
    "xor eax, eax",
    "mov edx, 1",
    "2:",
    "pop rdi",
    "mov qword ptr [rdi], 0", // and from here on no more
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
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
    registers.gregs[libc::REG_RIP as usize] as usize
}

/// The interrupted stack pointer.
pub(crate) fn sp(registers: &libc::mcontext_t) -> usize {
    registers.gregs[libc::REG_RSP as usize] as usize
}

/// Changes where the interrupted thread goes on.
pub(crate) fn resume(registers: &mut libc::mcontext_t, pc: usize, sp: usize) {
    const DIRECTION: i64 = 1 << 10;
    registers.gregs[libc::REG_RIP as usize] = pc as i64;
    registers.gregs[libc::REG_RSP as usize] = sp as i64;
    // The calling convention wants it clear, wherever the guest was stopped.
    registers.gregs[libc::REG_EFL as usize] &= !DIRECTION;
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

/// Nothing to do: instruction fetches see stores, and what was mapped here before went with its
/// translations.
pub(crate) fn publish_instructions(_written: Range<usize>) {}
