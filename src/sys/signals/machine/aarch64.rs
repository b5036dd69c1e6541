#![expect(unsafe_code, reason = "assembly")]
//! The AArch64 port (AAPCS64).

use super::{Call, MOST_BYTES, Recovery, Registers, Setup, Unframed};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::ptr;

/// The longest instruction.
pub(crate) const LONGEST: usize = 4;

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

/// Defines what the kernel calls for a signal: it calls `$body`, and returns, or goes where that says.
macro_rules! handler_entry {
    ($(#[$attribute:meta])* $visibility:vis unsafe fn $name:ident => $body:path) => {
        $(#[$attribute])*
        #[unsafe(naked)]
        $visibility unsafe extern "C-unwind" fn $name(
            signal: core::ffi::c_int,
            info: *mut core::ffi::c_void,
            context: *mut core::ffi::c_void,
        ) {
            // What is given is kept for `depart`. The fourth argument is the stack pointer: if the
            // kernel has called, its frame.
            core::arch::naked_asm!(
                ".cfi_startproc",
                "hint #34",
                "mov x3, sp",
                "stp x29, x30, [sp, #-48]!",
                ".cfi_def_cfa_offset 48",
                ".cfi_offset x29, -48",
                ".cfi_offset x30, -40",
                "mov x29, sp",
                "stp x0, x1, [sp, #16]",
                "str x2, [sp, #32]",
                "bl {body}",
                "mov x9, x0",
                "mov x16, x1",
                "ldp x0, x1, [sp, #16]",
                "ldr x2, [sp, #32]",
                "ldp x29, x30, [sp], #48",
                ".cfi_def_cfa_offset 0",
                ".cfi_restore x29",
                ".cfi_restore x30",
                "cbz x9, 2f",
                "b {depart}",
                "2:",
                "ret",
                ".cfi_endproc",
                body = sym $body,
                depart = sym $crate::sys::signals::machine::depart,
            )
        }
    };
}
pub(crate) use handler_entry;

/// Leaves the kernel's frame for a copy of it, and calls the handler that is to have that: at the end
/// of a `handler_entry!`.
///
/// # Safety
///
/// 1. Not to be called: x9 and x16 are a [`Departure`](super::Departure), all other registers what the
///    kernel has called the entry with.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn depart() {
    naked_asm!(
        "mov x10, sp",
        "sub x10, x9, x10",
        "add x1, x1, x10",
        "add x2, x2, x10",
        "add x29, x29, x10",
        "mov sp, x9", // from here on nothing is left on the stack that was
        "br x16",
    )
}

/// Calls a signal handler as the kernel does: with three arguments, whatever it is declared with.
///
/// # Safety
///
/// 1. `handler` may be called with these arguments.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn call_handler(
    signal: c_int,
    info: *mut c_void,
    context: *mut c_void,
    handler: usize,
) {
    naked_asm!(".cfi_startproc", "hint #34", "mov x16, x3", "br x16", ".cfi_endproc")
}

/// Whether the kernel has called the handler that was given this: `frame` was its stack pointer.
/// Signal-safe.
pub(crate) fn is_kernels_frame(frame: usize, info: *mut c_void, _context: *mut c_void) -> bool {
    frame == info.addr()
}

/// The registers in a signal frame before the records: the fault's address, x0 to x30, sp, pc and the flags;
/// the records are at a multiple of 16.
const REGISTERS: usize = (35 * 8_usize).next_multiple_of(16);

/// Copies the kernel's frame to below `sp`, where the kernel would have put it; gives the copy, which
/// the thread can return from instead of the frame. Signal-safe.
///
/// ```text
/// frame   siginfo | context, which ends with records | what did not fit there, if so
/// record  magic number as u32 | size as u32 | …
/// ```
///
/// # Safety
///
/// 1. `info` and `context` are in the frame of the signal whose handler is running; the kernel has
///    called that, with the frame as its stack.
/// 2. The stack that `sp` points to is interrupted, and not used below.
pub(crate) unsafe fn copy_frame(
    frame: usize,
    _info: *mut c_void,
    context: *mut c_void,
    sp: usize,
) -> usize {
    const RECORDS: usize = 4096;
    // `struct extra_context`: where the rest is, and how long; it follows the frame.
    const EXTRA: u32 = 0x4558_5401;
    // The caller's frame pointer and link, above all (`struct frame_record`).
    const LINK: usize = 16;
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: by 1. the kernel has written it; only the address is taken.
    let registers = unsafe { &raw const (*context).uc_mcontext };
    let records: *const u8 = registers.cast::<u8>().wrapping_add(REGISTERS);
    let mut end = records.addr().wrapping_add(RECORDS);
    let (mut offset, mut extra) = (0, None);
    while offset + 24 <= RECORDS {
        // SAFETY: by 1., a record's head, aligned, within the records.
        let [magic, size] = unsafe { records.wrapping_add(offset).cast::<[u32; 2]>().read() };
        if magic == EXTRA {
            // SAFETY: as above: the record is so long.
            let [start, len] =
                unsafe { records.wrapping_add(offset + 8).cast::<[u64; 2]>().read() };
            end = (start as usize).wrapping_add(len as u32 as usize);
            extra = Some(offset + 8);
        }
        if magic == 0 || size == 0 {
            break;
        }
        offset = offset.wrapping_add(size as usize);
    }
    let end = end.wrapping_add(15) & !15;
    let len = end.wrapping_add(LINK).wrapping_sub(frame);
    let copy = sp.wrapping_sub(len) & !15;
    let at = ptr::with_exposed_provenance_mut::<u8>;
    // SAFETY: by 1. and 2.: from one stack to another.
    unsafe { ptr::copy_nonoverlapping(at(frame).cast_const(), at(copy), len) };
    if let Some(offset) = extra {
        let moved = records.addr().wrapping_sub(frame).wrapping_add(copy).wrapping_add(offset);
        let start = at(moved).cast::<u64>();
        // SAFETY: the copy of the record.
        let old = unsafe { start.read() } as usize;
        // SAFETY: as above.
        unsafe { start.write(old.wrapping_sub(frame).wrapping_add(copy) as u64) };
    }
    copy
}

/// An address that no other thread of the process has as long as this one lives: of its descriptor.
/// Signal-safe: a register.
#[inline]
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reads a register.
    unsafe {
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(pure, nomem, nostack, preserves_flags))
    };
    pointer
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

/// Whether a function's first instructions, which touch the stack, begin at `pc` with one that touches so many
/// bytes below. Signal-safe.
pub(crate) fn is_stack_probe(pc: usize, below: usize) -> bool {
    const TOUCH: u32 = 0xf940_021f; // ldr xzr, [x16]
    let at = ptr::with_exposed_provenance::<u32>(pc);
    // SAFETY: the thread executes it.
    let found = || unsafe { at.read_volatile() };
    matches!(below, 0x1000 | 0x2000 | 0x3000 | 0x4000) && found() == TOUCH
}

/// The registers of the caller of the function that is at its first instructions.
///
/// # Safety
///
/// 1. The registers are those of such a function, which nobody has left yet.
pub(crate) unsafe fn caller(registers: Registers) -> Registers {
    Registers { pc: registers.link, ..registers }
}

/// Whether the interrupted instruction may have raised a signal whose cause the kernel does not tell: of
/// instructions it tells the cause. Signal-safe.
#[inline]
pub(crate) fn may_have_raised(_context: &libc::mcontext_t, _signal: c_int) -> bool {
    false
}

/// Whether the interrupted instruction, which is told, cannot have raised that after all. Signal-safe.
#[inline]
pub(crate) fn cannot_have_raised(
    _context: &libc::mcontext_t,
    _signal: c_int,
    _instruction: [u8; LONGEST],
) -> bool {
    true
}

/// Makes the return from a handler a fault, once the registers are as they were: the kernel then finds a first
/// record of a kind that there is not. Signal-safe.
///
/// # Safety
///
/// 1. `context` is what the kernel gave the handler that is running, and nobody else uses it.
pub(crate) unsafe fn spoil(context: *mut c_void) {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: by 1. the kernel has written it; only the address is taken.
    let registers = unsafe { &raw mut (*context).uc_mcontext };
    let magic: *mut u32 = registers.cast::<u8>().wrapping_add(REGISTERS).cast();
    // SAFETY: by 1. a record's head, or the end of them.
    unsafe { magic.write(u32::MAX) };
}

/// Sends the interrupted code to a recovery point. Signal-safe.
///
/// # Safety
///
/// 1. The context is that of the kernel's frame of the handler that is running.
#[inline]
pub(crate) unsafe fn recover(context: &mut libc::mcontext_t, to: Recovery) {
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

/// How many instructions from a function's start its frame is set up, and how many may follow its end.
const REACH: usize = 16;

/// Whether the function has its frame at its byte `at`; `byte` gives a byte of its text, by the offset in it.
/// Signal-safe: a bounded number of bytes.
pub(crate) fn setup(byte: impl Fn(usize) -> Option<u8>, at: usize) -> Setup {
    let word = |at: usize| {
        let bytes = [0, 1, 2, 3].map(|i| byte(at + i));
        bytes
            .iter()
            .all(Option::is_some)
            .then(|| u32::from_le_bytes(bytes.map(|it| it.unwrap_or(0))))
    };
    let is = |at: usize, bits: u32, mask: u32| word(at).is_some_and(|it| it & mask == bits);
    // mov x29, sp; and with a distance: add x29, sp, #…
    let sets = |&at: &usize| is(at, 0x9100_03fd, 0xff80_03ff);
    // ldp x29, x30, [sp], #…; ldp x29, x30, [sp, #…]
    let ends = |at: usize| is(at, 0xa8c0_7bfd, 0xffc0_7fff) || is(at, 0xa940_7bfd, 0xffc0_7fff);
    // ret; br; b
    let leaves = |at: usize| {
        is(at, 0xd65f_0000, 0xffff_fc1f)
            || is(at, 0xd61f_0000, 0xffff_fc1f)
            || is(at, 0x1400_0000, 0xfc00_0000)
    };
    const NOT: Setup = Setup::Not(Unframed::Linked);
    let set = (0..REACH).map(|i| i * 4).take_while(|&i| i <= at).find(sets);
    if at == 0 || set == Some(at) || is(at, 0xd65f_03c0, u32::MAX) {
        return NOT;
    }
    let before = (1..=REACH).filter_map(|i| at.checked_sub(i * 4));
    let end = before.take_while(|&i| !leaves(i)).any(ends);
    match set {
        _ if end => NOT,
        Some(_) => Setup::Done,
        None => NOT,
    }
}

/// What the instruction before a return address calls: nobody asks.
pub(crate) fn call_before(_return_address: usize, _byte: impl Fn(usize) -> Option<u8>) -> Call {
    Call::None
}

/// Whether an instruction accesses memory at an address that it computes from the stack pointer, however
/// far from it; if that can be told.
#[inline]
pub(crate) fn accesses_by_stack_pointer(instruction: [u8; MOST_BYTES]) -> bool {
    // Loads and stores are these (Arm's manual, "Top-level encodings"), with a base register; those that
    // have none are relative to the instruction.
    const KIND: u32 = 0x0a00_0000;
    const ACCESS: u32 = 0x0800_0000;
    const RELATIVE: u32 = 0x3b00_0000;
    const LITERAL: u32 = 0x1800_0000;
    const BASE: u32 = 0b11111 << 5;
    let instruction = u32::from_le_bytes(instruction);
    instruction & KIND == ACCESS && instruction & RELATIVE != LITERAL && instruction & BASE == BASE
}
