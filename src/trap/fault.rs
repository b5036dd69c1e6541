#![expect(unsafe_code, reason = "a signal handler")]
//! The handler: is this fault a guest's, which trap is it, and back to where the guest was called.
//!
//! First it classifies, with what is safe on any thread: the program counter in the code map, then
//! the trap table. Only when both say that it is ours does it look for the thread. (In code that is not
//! registered one instruction counts as a guest's: a host function's first, `stack_probe`.) Whatever does not
//! fit goes on to what was installed before.

use super::backtrace::{MOST_FRAMES, instruction, walk};
use super::thread_record::threads;
use crate::registry::{ResidentCode, TrapCode, breakpoint_address, process_code_map};
use crate::sys::signals::action::Delivery;
use crate::sys::signals::chain;
use crate::sys::signals::interrupted::Interrupted;
use crate::sys::signals::machine::{self, Departure, Recovery, Registers, handler_entry};
use crate::sys::signals::signal::{Kind, Signal};
use crate::{Hit, Reader};
use core::ffi::{c_int, c_void};

/// Why a guest trapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The instruction is in the image's trap table, with this code.
    Code(TrapCode),
    /// The guest has used up the thread's stack, or left too little of it for a host function
    /// ([`StackLimits`](super::StackLimits)).
    StackOverflow,
    /// A breakpoint that was set at one of the image's breakpoint sites.
    Breakpoint,
    /// A host function has ended the guest, with this code: [`host_trap`](super::host_trap()).
    Host(TrapCode),
}

/// A fault of a guest, as the handler notes it.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) cause: Cause,
    /// 0 if no fault made it, but a host function.
    pub(crate) signal: c_int,
    /// What could not be accessed, if it was an access, and the processor told.
    pub(crate) address: Option<usize>,
    /// Of a fault, the instruction; else where the guest has called, behind that; 0 if nobody knows.
    pub(crate) pc: usize,
    /// From the start of the text, to the instruction or into the call.
    pub(crate) offset: usize,
    /// Of `pcs`, how many are told; and whether there was room for all.
    pub(crate) frames: usize,
    pub(crate) complete: bool,
    pub(crate) pcs: [usize; MOST_FRAMES],
}

impl Fault {
    pub(crate) const fn none() -> Self {
        Self {
            cause: Cause::Breakpoint,
            signal: 0,
            address: None,
            pc: 0,
            offset: 0,
            frames: 0,
            complete: true,
            pcs: [0; MOST_FRAMES],
        }
    }
}

handler_entry! {
    /// What the kernel calls. Signal-safe; what it hands on is what it was given.
    ///
    /// # Safety
    ///
    /// 1. Installed with `SA_SIGINFO`, and called by the kernel, or by a handler with what that was
    ///    given.
    pub(crate) unsafe fn on_fault => handle
}

/// # Safety
///
/// 1. `info`, `context` and `frame` are what [`on_fault`] was called with.
unsafe extern "C-unwind" fn handle(
    number: c_int,
    info: *mut c_void,
    context: *mut c_void,
    frame: usize,
) -> Departure {
    // SAFETY: (`from_handler`) 1. by 1.
    let signal = unsafe { Signal::from_handler(number, info) };
    // SAFETY: (`from_handler`) 1. by 1.; 2. gone before it is handed on.
    let interrupted = unsafe { Interrupted::from_handler(context) };
    match take(signal, &interrupted) {
        Some(recovery) => interrupted.recover(recovery),
        // SAFETY: (`pass_on`) 1. by 1.
        None => return unsafe { chain::pass_on(number, Delivery { info, context, frame }) },
    }
    Departure::NONE
}

/// Notes the fault, if it is a guest's trap, and gives where its thread is to go on.
#[inline]
fn take(signal: Signal, interrupted: &Interrupted<'_>) -> Option<Recovery> {
    let kind = signal.fault(|number| interrupted.may_have_raised(number))?;
    let mut registers = interrupted.registers();
    if kind == Kind::Breakpoint {
        registers.pc = breakpoint_address(registers.pc);
    }
    // No guest runs in a handler.
    if interrupted.alternate_stack().is_some_and(|stack| stack.contains(&registers.sp)) {
        return None;
    }
    let code = process_code_map().enter();
    let Some(hit) = code.lookup(registers.pc) else {
        return refuse_host_function(signal, registers, &code);
    };
    if signal.is_untold()
        && interrupted.cannot_have_raised(signal.number, instruction(hit, registers.pc))
    {
        return None;
    }
    let known = known_trap(kind, hit);
    if known.is_none() && kind != Kind::Access {
        return None;
    }
    // It may be ours: now the thread.
    let threads = threads();
    let thread = threads.own()?;
    // SAFETY: null, or a call that has not returned: it lies in the stack of this thread, which is
    // interrupted within it.
    let call = unsafe { thread.innermost().as_ref() }?;
    let recovery = call.recovery();
    let beyond = signal
        .address()
        .filter(|&at| signal.finds_no_memory() && overflows(at, registers, recovery.sp, hit));
    let cause = known.or(beyond.map(|_| Cause::StackOverflow))?;
    // SAFETY: (`take_down`) 1. a guest was interrupted: its code is, and a call of one is running.
    let fault = unsafe { thread.take_down() };
    fault.cause = cause;
    fault.signal = signal.number;
    fault.address = signal.address();
    fault.pc = registers.pc;
    fault.offset = hit.offset();
    let stack = thread.guest_stack(registers.sp, beyond, recovery.sp);
    let outer = thread.suspended();
    // SAFETY: (`walk`) 1. stack of this thread, between where the guest was called and where it is; 2. its
    // thread's.
    (fault.frames, fault.complete) =
        unsafe { walk(&code, registers, stack, outer, &mut fault.pcs) };
    Some(recovery)
}

/// Notes an overflow of the guest that has called a host function, if it was interrupted in a
/// [`stack_probe`](crate::stack_probe): at the first instructions of that, before anything else is on the stack.
#[cold]
fn refuse_host_function(
    signal: Signal,
    registers: Registers,
    code: &Reader<'_, ResidentCode>,
) -> Option<Recovery> {
    let address = signal.address()?;
    let below = registers.sp.wrapping_sub(address);
    // Where there is no instruction, none can be looked at.
    let is_access = signal.finds_no_memory() && address != registers.pc;
    if !is_access || !machine::is_stack_probe(registers.pc, below) {
        return None;
    }
    let threads = threads();
    let thread = threads.own()?;
    // SAFETY: null, or a call that has not returned, in the stack of this thread.
    let recovery = unsafe { thread.innermost().as_ref() }?.recovery();
    // SAFETY: (`caller`) 1. at the first instructions of a function, which the guest has called.
    let caller = unsafe { machine::caller(registers) };
    let called = code.lookup(caller.pc.wrapping_sub(1))?;
    // SAFETY: (`take_down`) 1. a guest was interrupted, in a call of nothing that it has called yet.
    let fault = unsafe { thread.take_down() };
    (fault.cause, fault.signal, fault.address) = (Cause::StackOverflow, 0, None);
    (fault.pc, fault.offset) = (caller.pc, called.offset());
    let stack = thread.guest_stack(caller.sp, Some(address), recovery.sp);
    let outer = thread.suspended();
    // SAFETY: (`walk`) 1. stack of this thread, between where the guest was called and where it is; 2. its
    // thread's.
    (fault.frames, fault.complete) = unsafe { walk(code, caller, stack, outer, &mut fault.pcs) };
    Some(recovery)
}

/// Which trap the code's tables know at the program counter. A breakpoint can be set at an instruction
/// that may trap for reasons of its own.
#[inline]
fn known_trap(kind: Kind, hit: Hit<'_, ResidentCode>) -> Option<Cause> {
    let code = hit.value();
    if kind == Kind::Breakpoint && code.is_breakpoint_site(hit.offset()) {
        return Some(Cause::Breakpoint);
    }
    code.trap_at(hit.offset()).map(Cause::Code)
}

/// Whether an access to where no memory is, or none that may be accessed, was one beyond the end of the stack:
/// the guest came there by way of the stack pointer. That is somewhat below it at most (calls, pushes, a
/// red zone), or above it, in a frame that reaches beyond; or far below, if the instruction says that it
/// starts from there, as those that touch each page of a long frame may. `entered` is where the guest was
/// called: what lies above is not its.
///
/// Where the stack ends is nowhere noted: a limit can be changed, something can be mapped in the way, and
/// others have guard pages of their own.
#[inline]
fn overflows(
    address: usize,
    registers: Registers,
    entered: usize,
    hit: Hit<'_, ResidentCode>,
) -> bool {
    const BELOW: usize = 4096;
    let is_near = || address >= registers.sp.saturating_sub(BELOW);
    address < entered
        && (is_near() || machine::accesses_by_stack_pointer(instruction(hit, registers.pc)))
}
