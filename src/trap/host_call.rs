#![expect(unsafe_code, reason = "gives up the frames of guests")]
//! What guests call: host functions, whose panics are carried over the guest's frames.

use super::activation::CallFrame;
use super::guest_thread::GuestThread;
use super::thread_record::ThreadRecord;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs the body of a function that a guest calls.
///
/// If it panics, the guest that called it ends: its frames are given up, and the panic goes on from
/// the [`Activation::call`](super::Activation::call) that it was called through. Meanwhile no guest is
/// running, as far as handlers are concerned: a fault in guest code that `host` calls without an
/// activation of its own is no trap.
///
/// A host function that is to end the guest with an error of its own throws that, without the
/// message of a panic: [`std::panic::resume_unwind`], and [`catch_unwind`] around `catch_traps`.
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
/// **Cost**: two reads of a thread-local. **Panics**: as `host`, if no guest of an activation called
/// it. **Signal-safe**: no.
///
/// # Safety
///
/// 1. It is called by a function that a guest has called, on the thread that runs the guest, or not
///    by way of a guest at all.
/// 2. From that function down to this call nothing on the stack has to be dropped: `host` is the whole
///    of it.
pub unsafe fn host_call<R>(host: impl FnOnce() -> R) -> R {
    let Some(thread) = GuestThread::current() else { return host() };
    let suspended = Suspended::new(thread.record());
    let result = catch_unwind(AssertUnwindSafe(host));
    let caller = suspended.caller;
    drop(suspended);
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

/// While it lives no guest is running on the thread.
struct Suspended<'r> {
    record: &'r ThreadRecord,
    caller: *mut CallFrame,
}

impl<'r> Suspended<'r> {
    fn new(record: &'r ThreadRecord) -> Self {
        let caller = record.innermost();
        record.set_innermost(core::ptr::null_mut());
        Self { record, caller }
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        self.record.set_innermost(self.caller);
    }
}
