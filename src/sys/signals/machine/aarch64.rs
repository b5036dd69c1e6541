#![expect(unsafe_code, reason = "assembly")]
//! The AArch64 port (AAPCS64).

use super::{MOST_BYTES, Recovery, Registers, Unframed};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};

/// Bytes below the stack pointer that interrupted code may use.
pub(crate) const RED_ZONE: usize = 0;

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
    // Preserved are x19 to x29, the low halves of v8 to v15, and the rounding mode and the like in
    // FPCR, which a guest may have changed when it faults. (`hint #34` is `bti c`, `hint #36` is
    // `bti j`.)
    naked_asm!(
        ".cfi_startproc",
        "hint #34",
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
        "mrs x9, fpcr",
        "str x9, [sp, #160]",
        "mov x9, sp",
        "adr x10, 2f",
        "stp x9, x10, [x0]", // from here on the thread can be sent to 2
        "mov x0, x2",
        "blr x1",
        "mov x0, #0",
        "b 3f",
        "2:",
        "hint #36",
        "mov x29, sp",
        "ldr x9, [sp, #160]",
        "msr fpcr, x9",
        "mov x0, #1",
        "3:", // from here on no more
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
        ".cfi_restore x29",
        ".cfi_restore x30",
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
    naked_asm!("hint #34", "ldp x9, x16, [x0]", "mov sp, x9", "br x16")
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
        "hint #34",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        ".cfi_def_cfa x29, 16",
        "mov x9, x1",
        "cbz x0, 2f",
        "mov sp, x0",
        "2:",
        "mov w0, w2",
        "mov x1, x3",
        "mov x2, x4",
        "blr x9",
        "mov sp, x29",
        ".cfi_def_cfa sp, 16",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
    )
}

/// The interrupted registers. Signal-safe.
#[inline]
pub(crate) fn registers(context: &libc::mcontext_t) -> Registers {
    Registers {
        pc: context.pc as usize,
        sp: context.sp as usize,
        fp: context.regs[29] as usize,
        link: return_address(context.regs[30] as usize),
    }
}

/// Sends the interrupted code to a recovery point. Signal-safe.
#[inline]
pub(crate) fn recover(context: &mut libc::mcontext_t, to: Recovery) {
    // What kind of branch led to the interrupted instruction: that is over.
    const BRANCH_TYPE: u64 = 0b11 << 10;
    context.pc = to.pc as u64;
    context.sp = to.sp as u64;
    context.pstate &= !BRANCH_TYPE;
}

/// The return address in what a call has stored: without its signature, if it has one.
#[inline]
pub(crate) fn return_address(stored: usize) -> usize {
    let address: usize;
    // SAFETY: `xpaclri`, which is a `nop` on processors that do not sign; it changes x30 only.
    unsafe {
        asm!("mov x30, {stored}", "hint #7", "mov {address}, x30", stored = in(reg) stored,
            address = lateout(reg) address, out("x30") _, options(nomem, nostack, preserves_flags))
    };
    address
}

/// Where the return address is, if an instruction stands where functions have no frame: `first` says
/// that it is a function's first.
#[inline]
pub(crate) fn unframed(instruction: [u8; MOST_BYTES], first: bool) -> Option<Unframed> {
    const SAVE: u32 = 0xa9bf_7bfd; // stp x29, x30, [sp, #-16]!
    const SET: u32 = 0x9100_03fd; // mov x29, sp
    const RETURN: u32 = 0xd65f_03c0; // ret
    let known = matches!(u32::from_le_bytes(instruction), SAVE | SET | RETURN);
    (known || first).then_some(Unframed::Linked)
}
