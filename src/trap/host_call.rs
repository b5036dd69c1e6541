#![expect(unsafe_code, reason = "gives up the frames of guests")]
//! What guests call: host functions, whose panics are carried over the guest's frames.

use super::activation::CallFrame;
use super::fault::Cause;
use super::guest_thread::GuestThread;
use super::host_trap::end_guest;
use super::thread_record::ThreadRecord;
use crate::sys::signals::catching::catch_panic;
use core::ops::Range;
use core::ptr;
use std::panic::resume_unwind;

/// Runs the body of a function that a guest calls.
///
/// If it panics, the guest that called it ends: its frames are given up, and the panic goes on from
/// the [`Activation::call`](super::Activation::call) that it was called through. Meanwhile no guest is
/// running, as far as handlers are concerned: a fault in guest code that `host` calls without an
/// activation of its own is no trap.
///
/// A host function that is to end the guest itself has the closure return, and calls
/// [`host_trap`](super::host_trap()). Or it throws an error of its own, without the message of a panic:
/// [`std::panic::resume_unwind`], and [`std::panic::catch_unwind`] around `catch_traps`.
///
/// If too little of the stack is left for the host function, it does not begin, and the guest ends by a stack
/// overflow: see [`StackLimits`](super::StackLimits), and [`stack_probe`](crate::stack_probe) for what comes before
/// this call. A thread that ends in `host` (`pthread_exit`) does so as
/// without this function: what it unwinds before it meets the guest's frames is unwound.
///
/// ```
/// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions, host_call};
/// # let handler = TrapHandler::install(TrapOptions::new())?;
/// // What the guest is given to call:
/// unsafe extern "C" fn fetch(index: u64) -> u64 {
///     // SAFETY: there is nothing here beside the body.
///     unsafe { host_call(|| [3, 4, 5][index as usize]) }
/// }
/// let thread = GuestThread::prepare(&handler)?;
/// let run = |index: u64| {
///     // SAFETY: any number will do; nothing is left behind.
///     thread.catch_traps(|activation| unsafe {
///         activation.call(fetch as unsafe extern "C" fn(u64) -> u64, (index,))
///     })
/// };
/// assert_eq!(run(1).unwrap(), 4);
/// # std::panic::set_hook(Box::new(|_| {}));
/// let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(3)));
/// assert!(panic.is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Backtraces of traps in guests that `host` calls end here: see [`host_call_from`].
///
/// **Cost**: two reads of a thread-local, and a system call for each page of the stack that no host function
/// has reached before. **Panics**: as `host`, if no guest of an activation called
/// it. **Signal-safe**: no.
///
/// # Safety
///
/// 1. It is called by a function that a guest has called, on the thread that runs the guest, or not
///    by way of a guest at all.
/// 2. From that function down to this call nothing on the stack has to be dropped: `host` is the whole
///    of it.
pub unsafe fn host_call<R>(host: impl FnOnce() -> R) -> R {
    // SAFETY: (`run`) 1. and 2. by 1. and 2.
    unsafe { run(None, host) }
}

/// Where a guest has called a host function.
///
/// Both are what the convention for calls has at the host function's first instruction: on x86-64 the
/// word at the stack pointer, and `rbp`; on AArch64 `x30`, and `x29`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestExit {
    /// The absolute address that the host function returns to.
    pub return_address: usize,
    /// The frame pointer of the guest's function that has called.
    pub frame_pointer: usize,
}

/// As [`host_call`]; and backtraces of traps and samples in guests that `host` calls go on with the frames of
/// the guest that has called it.
///
/// How the two addresses come to the host function is between it and the guest's compiler, which can
/// have them handed over as arguments, or a few instructions can add them:
///
/// ```
/// # use pcmap::trap::{GuestExit, GuestThread, TrapHandler, TrapOptions, host_call_from};
/// # let handler = TrapHandler::install(TrapOptions::new())?;
/// // What the guest is given to call: it has one argument, and two more are added.
/// # #[cfg(target_arch = "x86_64")]
/// #[unsafe(naked)]
/// unsafe extern "C" fn fetch(index: u64) -> u64 {
///     core::arch::naked_asm!("mov rsi, [rsp]", "mov rdx, rbp", "jmp {}", sym fetch_from)
/// }
/// # #[cfg(target_arch = "aarch64")]
/// # #[unsafe(naked)]
/// # unsafe extern "C" fn fetch(index: u64) -> u64 {
/// #     core::arch::naked_asm!("mov x1, x30", "mov x2, x29", "b {}", sym fetch_from)
/// # }
/// unsafe extern "C" fn fetch_from(index: u64, return_address: usize, frame_pointer: usize) -> u64 {
///     let exit = GuestExit { return_address, frame_pointer };
///     // SAFETY: there is nothing here beside the body.
///     unsafe { host_call_from(exit, || [3, 4, 5][index as usize]) }
/// }
/// let thread = GuestThread::prepare(&handler)?;
/// // SAFETY: any of three numbers will do; nothing is left behind.
/// let result = thread.catch_traps(|activation| unsafe {
///     activation.call(fetch as unsafe extern "C" fn(u64) -> u64, (1,))
/// });
/// assert_eq!(result.unwrap(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The addresses are not believed: only what is in the guest's part of the stack is read, and what is not in
/// registered code is no frame.
///
/// **Cost, panics, signal-safe**: as [`host_call`].
///
/// # Safety
///
/// 1. and 2. As [`host_call`].
pub unsafe fn host_call_from<R>(exit: GuestExit, host: impl FnOnce() -> R) -> R {
    // SAFETY: (`run`) 1. and 2. by 1. and 2.
    unsafe { run(Some(exit), host) }
}

/// # Safety
///
/// 1. and 2. As [`host_call`].
#[inline]
unsafe fn run<R>(exit: Option<GuestExit>, host: impl FnOnce() -> R) -> R {
    let Some(thread) = GuestThread::current() else { return host() };
    let record = thread.record();
    let suspension = Suspension::of(record, exit);
    let caller = suspension.caller;
    if !caller.is_null() && !thread.room().suffices() {
        drop(host);
        // SAFETY: (`end_guest`) 1. by 1., and the call that is the innermost has not returned; 2. by 2.
        unsafe { end_guest(thread, &suspension, Cause::StackOverflow) }
    }
    let suspended = Suspended::new(record, &suspension);
    let result = catch_panic(host);
    drop(suspended);
    record.set_innermost(caller);
    drop(thread);
    match result {
        Ok(result) => result,
        // SAFETY: null, or the call through which the guest runs that called this.
        Err(payload) => match unsafe { caller.as_ref() } {
            // SAFETY: (`leave_with`) 1. as above; 2. frames of the guest, which the call answers for;
            // of the function that it called, by 2.; and this one, which holds nothing any more.
            Some(call) => unsafe { call.leave_with(payload) },
            None => resume_unwind(payload),
        },
    }
}

/// A guest that waits for a host function to return: lies in the host function's frame.
pub(crate) struct Suspension {
    /// The call through which the guest runs; null if it was no guest that called.
    caller: *mut CallFrame,
    exit: Option<GuestExit>,
    /// The one further out.
    outer: *const Self,
}

impl Suspension {
    /// The guest that is running, or was before a handler or a host function, waits.
    pub(crate) fn of(record: &ThreadRecord, exit: Option<GuestExit>) -> Self {
        Self { caller: record.innermost(), exit, outer: record.suspended().cast_const() }
    }

    /// The call through which the guest runs; null if it was no guest that called.
    pub(crate) fn caller(&self) -> *mut CallFrame {
        self.caller
    }

    /// Where the guest has called, if that is known. Signal-safe.
    #[inline]
    pub(crate) fn exit(&self) -> Option<GuestExit> {
        self.exit
    }

    /// The one further out, or null. Signal-safe.
    #[inline]
    pub(crate) fn outer(&self) -> *const Self {
        self.outer
    }

    /// The part of the stack that the guest uses: from younger frames on up to where it was called.
    /// Signal-safe.
    #[inline]
    pub(crate) fn guest_stack(&self) -> Range<usize> {
        let here = (&raw const *self).addr();
        // SAFETY: null, or a call that has not returned, for what it has called has not.
        let entered = unsafe { self.caller.as_ref() }.map_or(here, |call| call.recovery().sp);
        here..entered
    }
}

/// While it lives no guest is running on the thread; nor does one behind it, until that is said: if the thread
/// ends in the host function, the guest that has called it never goes on.
struct Suspended<'s> {
    record: &'s ThreadRecord,
    suspension: &'s Suspension,
}

impl<'s> Suspended<'s> {
    fn new(record: &'s ThreadRecord, suspension: &'s Suspension) -> Self {
        // Without a guest there is nothing to tell.
        if !suspension.caller.is_null() {
            record.set_suspended((&raw const *suspension).cast_mut());
        }
        record.set_innermost(ptr::null_mut());
        Self { record, suspension }
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        self.record.set_suspended(self.suspension.outer.cast_mut());
    }
}
