#![expect(unsafe_code, reason = "gives up the frames of guests")]
//! Traps that no instruction of a guest made: a host function ends the guest that has called it.

use super::backtrace::walk_suspended;
use super::fault::Cause;
use super::guest_thread::GuestThread;
use super::host_call::{GuestExit, Suspension};
use crate::registry::{TrapCode, process_code_map};

/// Ends the guest that has called the host function, with a trap of the host's own:
/// [`Cause::Host`].
///
/// It is called behind [`host_call`](super::host_call()), whose closure tells how it went. Nothing unwinds, so it
/// works with `panic = "abort"`, too.
///
/// ```
/// # use pcmap::registry::TrapCode;
/// # use pcmap::trap::{Cause, GuestThread, TrapHandler, TrapOptions, host_call, host_trap};
/// # let handler = TrapHandler::install(TrapOptions::new())?;
/// const NO_SUCH_INDEX: TrapCode = TrapCode::new(40);
/// // What the guest is given to call:
/// unsafe extern "C" fn fetch(index: u64) -> u64 {
///     // SAFETY: there is nothing here that has to be dropped.
///     let found = unsafe { host_call(|| [3, 4, 5].get(index as usize).copied()) };
///     // SAFETY: as above.
///     found.unwrap_or_else(|| unsafe { host_trap(NO_SUCH_INDEX) })
/// }
/// let thread = GuestThread::prepare(&handler)?;
/// // SAFETY: any number will do; nothing is left behind.
/// let result = thread.catch_traps(|activation| unsafe {
///     activation.call(fetch as unsafe extern "C" fn(u64) -> u64, (3,))
/// });
/// assert_eq!(result.unwrap_err().cause(), Cause::Host(NO_SUCH_INDEX));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The trap has no signal. It has frames, and a place where it happened, only if [`host_trap_from`] was called.
///
/// **Cost**: a jump, and what a [`Trap`](super::Trap) costs. **Panics**: if no guest of an activation has called,
/// or inside of the closure of `host_call`. **Signal-safe**: no.
///
/// # Safety
///
/// 1. It is called by a function that a guest has called, on the thread that runs the guest.
/// 2. From that function down to this call nothing on the stack has to be dropped.
pub unsafe fn host_trap(code: TrapCode) -> ! {
    // SAFETY: (`end`) 1. and 2. by 1. and 2.
    unsafe { end(None, code) }
}

/// As [`host_trap`]; and the trap has the frames of the guest.
///
/// ```no_run
/// # use pcmap::registry::TrapCode;
/// # use pcmap::trap::{GuestExit, host_trap_from};
/// /// What a naked function has added two arguments for: see `host_call_from`.
/// unsafe extern "C" fn exit(code: u8, return_address: usize, frame_pointer: usize) -> ! {
///     let exit = GuestExit { return_address, frame_pointer };
///     // SAFETY: there is nothing here that has to be dropped.
///     unsafe { host_trap_from(exit, TrapCode::new(code)) }
/// }
/// ```
///
/// **Cost, panics, signal-safe**: as [`host_trap`], and a lookup for each frame.
///
/// # Safety
///
/// 1. and 2. As [`host_trap`].
pub unsafe fn host_trap_from(exit: GuestExit, code: TrapCode) -> ! {
    // SAFETY: (`end`) 1. and 2. by 1. and 2.
    unsafe { end(Some(exit), code) }
}

/// # Safety
///
/// 1. and 2. As [`host_trap`].
unsafe fn end(exit: Option<GuestExit>, code: TrapCode) -> ! {
    let thread = GuestThread::current().filter(|it| !it.record().innermost().is_null());
    let Some(thread) = thread else {
        panic!("a host function traps that no guest has called");
    };
    let suspension = Suspension::of(thread.record(), exit);
    // SAFETY: (`end_guest`) 1. by 1.; 2. by 2., and what is here is dropped.
    unsafe { end_guest(thread, &suspension, Cause::Host(code)) }
}

/// Ends the guest that waits for a host function.
///
/// # Safety
///
/// 1. The suspension is that of the guest that has called the host function, on this thread; it is called
///    through an activation, and nothing younger runs.
/// 2. From the host function down to this call nothing on the stack has to be dropped.
#[cold]
pub(crate) unsafe fn end_guest(thread: GuestThread, suspension: &Suspension, cause: Cause) -> ! {
    let record = thread.record();
    // SAFETY: (`take_down`) 1. by 1., on the thread itself: no guest runs, so no handler has it.
    let fault = unsafe { record.take_down() };
    let code = process_code_map().enter();
    // SAFETY: (`walk_suspended`) 1. by 1.
    let (frames, complete) = unsafe { walk_suspended(&code, suspension, &mut fault.pcs) };
    (fault.frames, fault.complete) = (frames, complete);
    (fault.cause, fault.signal, fault.address) = (cause, 0, None);
    fault.pc = fault.pcs.first().copied().filter(|_| frames > 0).unwrap_or(0);
    let called = code.lookup(fault.pc.wrapping_sub(1));
    fault.offset = called.map_or(usize::MAX, |hit| hit.offset());
    drop(code);
    let call = suspension.caller();
    drop(thread);
    // SAFETY: by 1. not null, and a call that has not returned.
    let call = unsafe { &*call };
    // SAFETY: (`leave`) 1. by 1.; 2. frames of the guest, which the call answers for; of the function that it
    // called, by 2.; and this one, which holds nothing any more.
    unsafe { call.leave() }
}
