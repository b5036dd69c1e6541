#![expect(unsafe_code, reason = "assembly")]
//! The x86-64 port (System V).

pub(crate) use super::frame_setup::{call_before, setup};
pub(crate) use super::general_protection::LONGEST;
use super::general_protection::is_plain_access;
use super::{MOST_BYTES, Recovery, Registers};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
use core::mem::offset_of;
use core::ptr;

/// Flags: string instructions go downwards; accesses are checked for alignment.
const DIRECTION: i32 = 1 << 10;
pub(crate) const ALIGNMENT_CHECK: i32 = 1 << 18;

/// Bytes below the stack pointer that interrupted code may use.
const RED_ZONE: usize = 128;

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
    // direction flag clear. That accesses are not checked for alignment, compilers take for granted.
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
        "pushfq",
        "and dword ptr [rsp], {flags}",
        "popfq",
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
        flags = const !(DIRECTION | ALIGNMENT_CHECK),
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
            // The signal's number and what is told about it are kept for `depart`. The fourth argument
            // is where the return address is: if the kernel has called, its frame. The kernel clears the
            // direction flag for handlers, and leaves alignment checks as they were.
            core::arch::naked_asm!(
                ".cfi_startproc",
                "endbr64",
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                "push rdi",
                "push rsi",
                "pushfq",
                "and dword ptr [rsp], {flags}",
                "popfq",
                "lea rcx, [rbp + 8]",
                "call {body}",
                "pop rsi",
                "pop rdi",
                "pop rbp",
                ".cfi_def_cfa rsp, 8",
                "test rax, rax",
                "jnz {depart}",
                "ret",
                ".cfi_endproc",
                flags = const !$crate::sys::signals::machine::ALIGNMENT_CHECK,
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
/// 1. Not to be called: rax and rdx are a [`Departure`](super::Departure), edi and rsi what the entry was given, and rsp
///    is the kernel's frame.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn depart() {
    naked_asm!(
        "sub rsi, rsp",
        "add rsi, rax",
        "mov rsp, rax", // from here on nothing is left on the stack that was
        "mov rax, rdx",
        "lea rdx, [rsp + 8]",
        "jmp rax",
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
    naked_asm!(".cfi_startproc", "endbr64", "jmp rcx", ".cfi_endproc")
}

/// Whether the kernel has called the handler that was given this: `frame` is where its return address
/// is. Signal-safe.
pub(crate) fn is_kernels_frame(frame: usize, _info: *mut c_void, context: *mut c_void) -> bool {
    frame.checked_add(size_of::<usize>()) == Some(context.addr())
}

/// The first part of the floating-point and vector state in a signal frame; where in it the kernel says what
/// more there is (`struct _fpx_sw_bytes`): a magic number, the length.
const LEGACY: usize = 512;
const TOLD: usize = 464;
const MAGIC: u32 = 0x4650_5853;

/// Copies the kernel's frame to below `sp`, where the kernel would have put it; gives the copy, which
/// the thread can return from instead of the frame. Signal-safe.
///
/// ```text
/// frame   return address | context, which points to the state | siginfo | …
/// state   512 bytes, which tell how much more there is | …      (a multiple of 64)
/// ```
///
/// # Safety
///
/// 1. `info` and `context` are in the frame of the signal whose handler is running; the kernel has
///    called that, with the frame as its stack.
/// 2. The stack that `sp` points to is interrupted, and not used below its red zone.
pub(crate) unsafe fn copy_frame(
    frame: usize,
    info: *mut c_void,
    context: *mut c_void,
    sp: usize,
) -> usize {
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: by 1. the kernel has written it.
    let state: *const u8 = unsafe { vector_state(in_context(context)).read() };
    // SAFETY: by 1. as long as this at least, and aligned.
    let [magic, len] = unsafe { state.wrapping_add(TOLD).cast::<[u32; 2]>().read() };
    let len = if magic == MAGIC { len as usize } else { LEGACY };
    let state_copy = sp.wrapping_sub(RED_ZONE + len) & !63;
    let fixed = info.addr().wrapping_add(size_of::<libc::siginfo_t>()).wrapping_sub(frame);
    let copy = (state_copy.wrapping_sub(fixed) & !15).wrapping_sub(size_of::<usize>());
    let at = ptr::with_exposed_provenance_mut::<u8>;
    // SAFETY: by 1. and 2.: from one stack to another.
    unsafe { ptr::copy_nonoverlapping(state, at(state_copy), len) };
    // SAFETY: as above.
    unsafe { ptr::copy_nonoverlapping(at(frame).cast_const(), at(copy), fixed) };
    let context: *mut libc::ucontext_t = at(copy).wrapping_add(size_of::<usize>()).cast();
    // SAFETY: the copy of a context.
    unsafe { vector_state(in_context(context)).write(at(state_copy)) };
    copy
}

/// The registers of a context.
#[inline]
fn in_context(context: *mut libc::ucontext_t) -> *mut libc::mcontext_t {
    context.wrapping_byte_add(offset_of!(libc::ucontext_t, uc_mcontext)).cast()
}

/// Where a context points at the state of the floating-point and vector units: behind the 23 general registers.
///
/// The kernel lays a context out (`struct sigcontext` in its `asm/sigcontext.h`). Not every C library's header
/// gives this word a name.
#[inline]
fn vector_state(context: *mut libc::mcontext_t) -> *mut *mut u8 {
    const { assert!(offset_of!(libc::mcontext_t, gregs) == 0) };
    context.wrapping_byte_add(23 * size_of::<u64>()).cast()
}

/// An address that no other thread of the process has as long as this one lives: of its descriptor.
/// Signal-safe: the first word of it, where the convention for thread-local storage has its address.
#[inline]
pub(crate) fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: reads that word, which every thread has, and which does not change.
    unsafe {
        asm!("mov {}, fs:[0]", out(reg) pointer, options(pure, readonly, nostack, preserves_flags))
    };
    pointer
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

/// Whether a function's first instructions, which touch the stack, begin at `pc` with one that touches so many
/// bytes below. Signal-safe.
pub(crate) fn is_stack_probe(pc: usize, below: usize) -> bool {
    let [b0, b1, b2, b3] = (below as i32).wrapping_neg().to_le_bytes();
    let probe = [0x84, 0x84, 0x24, b0, b1, b2, b3]; // test byte ptr [rsp - below], al
    let is_next = |(at, byte): (usize, &u8)| {
        // SAFETY: the thread executes that byte, or another one in front of it of another instruction.
        let found = unsafe { ptr::with_exposed_provenance::<u8>(at).read_volatile() };
        found == *byte
    };
    matches!(below, 0x1000 | 0x2000 | 0x3000 | 0x4000) && (pc..).zip(&probe).all(is_next)
}

/// The registers of the caller of the function that is at its first instructions.
///
/// # Safety
///
/// 1. The registers are those of such a function, which nobody has left yet.
pub(crate) unsafe fn caller(registers: Registers) -> Registers {
    let stored = ptr::with_exposed_provenance::<usize>(registers.sp);
    // SAFETY: by 1. the return address.
    let pc = unsafe { stored.read_volatile() };
    Registers { pc, sp: registers.sp.wrapping_add(size_of::<usize>()), ..registers }
}

/// Whether the interrupted instruction may have raised a signal whose cause the kernel does not tell: which
/// exception the thread's last one was. Signal-safe.
#[inline]
pub(crate) fn may_have_raised(context: &libc::mcontext_t, signal: c_int) -> bool {
    // Intel's manual, volume 3, chapter 6; `linux/arch/x86/kernel/traps.c` has their signals.
    const BREAKPOINT: i64 = 3;
    const NOT_PRESENT: i64 = 11;
    const STACK: i64 = 12;
    const GENERAL_PROTECTION: i64 = 13;
    let exception = context.gregs[libc::REG_TRAPNO as usize];
    matches!(
        (signal, exception),
        (libc::SIGTRAP, BREAKPOINT)
            | (libc::SIGBUS, NOT_PRESENT | STACK)
            | (libc::SIGSEGV, GENERAL_PROTECTION)
    )
}

/// Whether the interrupted instruction, which is told, cannot have raised that after all: the exception was an
/// earlier one. Signal-safe.
pub(crate) fn cannot_have_raised(
    context: &libc::mcontext_t,
    signal: c_int,
    instruction: [u8; LONGEST],
) -> bool {
    const REGISTERS: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let register = |number: u8| {
        let at = REGISTERS.get(usize::from(number)).map_or(0, |&at| at as usize);
        context.gregs.get(at).map_or(0, |&value| value as u64)
    };
    signal == libc::SIGSEGV && is_plain_access(&instruction, register)
}

/// Makes the return from a handler a fault, once the registers are as they were: the kernel then finds the state
/// of the floating-point and vector units in its own memory. Signal-safe.
///
/// # Safety
///
/// 1. `context` is what the kernel gave the handler that is running, and nobody else uses it.
pub(crate) unsafe fn spoil(context: *mut c_void) {
    const OF_THE_KERNEL: usize = usize::MAX & !0xfff;
    let context: *mut libc::ucontext_t = context.cast();
    // SAFETY: by 1.
    unsafe { vector_state(in_context(context)).write(ptr::without_provenance_mut(OF_THE_KERNEL)) };
}

/// Sends the interrupted code to a recovery point. Signal-safe.
///
/// The upper halves of the vector registers are cleared: code of 128-bit instructions, such as a Rust
/// compiler's by default, is slow where they are in use (Intel's optimization manual, "Mixing Intel AVX code
/// with Intel SSE code"), and nothing else clears them.
///
/// # Safety
///
/// 1. The context is that of the kernel's frame of the handler that is running.
#[inline]
pub(crate) unsafe fn recover(context: &mut libc::mcontext_t, to: Recovery) {
    // Parts of the state that are in use: in the header, behind the legacy part.
    const UPPER_HALVES: u64 = (1 << 2) | (1 << 6);
    context.gregs[libc::REG_RIP as usize] = to.pc as i64;
    context.gregs[libc::REG_RSP as usize] = to.sp as i64;
    // SAFETY: a word of the context.
    let state = unsafe { vector_state(ptr::from_mut(context)).read() };
    // SAFETY: by 1. the state, aligned, is as long as this at least.
    let [magic, _] = unsafe { state.wrapping_add(TOLD).cast::<[u32; 2]>().read() };
    if magic == MAGIC {
        let in_use = state.wrapping_add(LEGACY).cast::<u64>();
        // SAFETY: by 1., as the magic number says that the header is there.
        unsafe { *in_use &= !UPPER_HALVES };
    }
}

/// The return address in what a call has stored.
#[inline]
pub(crate) fn return_address(stored: usize) -> usize {
    stored
}

/// Whether an instruction accesses memory at an address that it computes from the stack pointer, however
/// far from it; if that can be told. (Compilers move the stack pointer here before they touch a page.)
#[inline]
pub(crate) fn accesses_by_stack_pointer(_instruction: [u8; MOST_BYTES]) -> bool {
    false
}
