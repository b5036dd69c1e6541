#![expect(unsafe_code, reason = "assembly")]
//! The x86-64 port (System V).

use super::{MOST_BYTES, Recovery, Registers, Unframed};
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};

/// Bytes below the stack pointer that interrupted code may use.
pub(crate) const RED_ZONE: usize = 128;

/// Calls `call(data)`. Returns 0 behind it, and [`RECOVERED`](super::RECOVERED) if the thread was sent
/// to `recovery`, which is written before the call.
///
/// # Safety
///
/// 1. `recovery` may be written.
/// 2. `call` may be called with `data`, and follows the calling convention if it returns.
/// 3. The thread is sent to `recovery` only from within the call, and only if all frames that are
///    younger than this one may be given up.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(
    recovery: *mut Recovery,
    call: unsafe extern "C" fn(*mut c_void),
    data: *mut c_void,
) -> usize {
    // rsp is 8 off a multiple of 16 here; the six registers and the control words align it for the
    // call. Of the vector and floating-point units the convention preserves only the control words,
    // which a guest may have changed when it faults; it also wants the x87 stack empty and the
    // direction flag clear.
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "push rbx",
        ".cfi_offset rbx, -24",
        "push r12",
        ".cfi_offset r12, -32",
        "push r13",
        ".cfi_offset r13, -40",
        "push r14",
        ".cfi_offset r14, -48",
        "push r15",
        ".cfi_offset r15, -56",
        "sub rsp, 8",
        "stmxcsr [rsp]",
        "fnstcw [rsp + 4]",
        "lea rax, [rip + 2f]",
        "mov [rdi + 8], rax",
        "mov [rdi], rsp", // from here on the thread can be sent to 2
        "mov rdi, rdx",
        "call rsi",
        "xor eax, eax",
        "jmp 3f",
        "2:",
        "endbr64",
        "lea rbp, [rsp + 48]",
        "fninit",
        "fldcw [rsp + 4]",
        "ldmxcsr [rsp]",
        "cld",
        "mov eax, 1",
        "3:", // from here on no more
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Goes back to a recovery point.
///
/// # Safety
///
/// 1. It is that of a call of [`enter`] on this thread that has not returned; 3 of its conditions
///    holds.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn leave(recovery: *const Recovery) -> ! {
    naked_asm!("mov rsp, [rdi]", "jmp [rdi + 8]")
}

/// Calls a signal handler as the kernel does, with three arguments whatever it is declared with, on
/// the stack that ends at `stack`; on the current one if that is 0.
///
/// # Safety
///
/// 1. `stack` is 0, or a multiple of 16 with free memory below.
/// 2. `handler` may be called with these arguments.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn call_handler(
    stack: usize,
    handler: usize,
    signal: c_int,
    info: *mut c_void,
    context: *mut c_void,
) {
    naked_asm!(
        ".cfi_startproc",
        "endbr64",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "test rdi, rdi",
        "cmovnz rsp, rdi",
        "mov r11, rsi",
        "mov edi, edx",
        "mov rsi, rcx",
        "mov rdx, r8",
        "xor eax, eax",
        "call r11",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// The interrupted registers. Signal-safe.
#[inline]
pub(crate) fn registers(context: &libc::mcontext_t) -> Registers {
    let register = |number: c_int| context.gregs[number as usize] as usize;
    Registers {
        pc: register(libc::REG_RIP),
        sp: register(libc::REG_RSP),
        fp: register(libc::REG_RBP),
        link: 0,
    }
}

/// Sends the interrupted code to a recovery point. Signal-safe.
#[inline]
pub(crate) fn recover(context: &mut libc::mcontext_t, to: Recovery) {
    context.gregs[libc::REG_RIP as usize] = to.pc as i64;
    context.gregs[libc::REG_RSP as usize] = to.sp as i64;
}

/// The return address in what a call has stored.
#[inline]
pub(crate) fn return_address(stored: usize) -> usize {
    stored
}

/// Where the return address is, if an instruction stands where functions have no frame: `first` says
/// that it is a function's first.
#[inline]
pub(crate) fn unframed(instruction: [u8; MOST_BYTES], first: bool) -> Option<Unframed> {
    match instruction {
        // push rbp; ret
        [0x55, ..] | [0xc3, ..] => Some(Unframed::OnStack(0)),
        // mov rbp, rsp
        [0x48, 0x89, 0xe5, _] | [0x48, 0x8b, 0xec, _] => Some(Unframed::OnStack(8)),
        _ => first.then_some(Unframed::OnStack(0)),
    }
}
