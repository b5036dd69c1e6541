#![expect(unsafe_code, reason = "calls guests, and comes back without them")]
//! Calling guests: an activation, and the frame of each call.
//!
//! A call leaves a frame on the stack, linked from the thread's record, that says how to come back
//! without the guest. Between the call and its end nothing of Rust's is on the stack but one small
//! function that holds arguments and a place for the result, all `Copy`: so whatever ends the call
//! gives up frames of guests, and nothing that would have had to be dropped.

use super::guest_function::GuestFunction;
use super::guest_thread::GuestThread;
use super::stack_limits::StackLimits;
use super::thread_record::ThreadRecord;
use super::trap::Trap;
use crate::sys::signals::machine::{self, RECOVERED, Recovery};
use core::any::Any;
use core::cell::{Cell, UnsafeCell};
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// A panic on its way over the frames of guests.
pub(crate) type Payload = Box<dyn Any + Send>;

/// One call of a guest, as long as it has not returned.
pub(crate) struct CallFrame {
    recovery: UnsafeCell<Recovery>,
    panic: Cell<Option<Payload>>,
}

impl CallFrame {
    const fn new() -> Self {
        Self { recovery: UnsafeCell::new(Recovery { sp: 0, pc: 0 }), panic: Cell::new(None) }
    }

    /// How to come back to it; while a guest of it is running. Signal-safe.
    #[inline]
    pub(crate) fn recovery(&self) -> Recovery {
        // SAFETY: written before the guest began, by the thread itself, and not since.
        unsafe { *self.recovery.get() }
    }

    /// Leaves a panic with the call, and goes back to it.
    ///
    /// # Safety
    ///
    /// 1. The call has not returned, and this is its thread.
    /// 2. All younger frames may be given up.
    pub(crate) unsafe fn leave_with(&self, payload: Payload) -> ! {
        self.panic.set(Some(payload));
        // SAFETY: (`leave`) 1. and 2. by 1. and 2.
        unsafe { self.leave() }
    }

    /// Goes back to the call, which has trapped: the thread's notes tell how.
    ///
    /// # Safety
    ///
    /// 1. and 2. As [`leave_with`](Self::leave_with).
    pub(crate) unsafe fn leave(&self) -> ! {
        // SAFETY: (`leave`) 1. by 1. and 2.
        unsafe { machine::leave(self.recovery.get()) }
    }
}

/// Calls guests, on the thread that it was made on: what [`GuestThread::catch_traps`] gives to its
/// closure.
///
/// The lifetime stands for this one activation.
pub struct Activation<'a> {
    thread: &'a GuestThread,
    /// What the last call that trapped did.
    trap: Cell<Option<Trap>>,
    only: Only<'a>,
}

/// A call through this activation has trapped; the trap itself is kept by the activation, and is what
/// [`GuestThread::catch_traps`] returns if it is given this. (It keeps the last one, if several calls have
/// trapped.)
#[derive(Clone, Copy)]
#[must_use = "return it, to end the activation with the trap"]
pub struct Trapped<'a> {
    only: Only<'a>,
}

/// Makes a lifetime stand for itself alone.
type Only<'a> = PhantomData<Cell<&'a ()>>;

impl<'a> Activation<'a> {
    /// Calls a guest.
    ///
    /// A trap in it, or in what it calls, ends the call, unless it is in a guest that a host function
    /// called in its turn, whose own call it ends. A panic that [`host_call`](super::host_call()) has
    /// carried over the guest's frames goes on from here.
    ///
    /// **Cost**: some ten nanoseconds more than the bare call; no system call, no allocation. A trap
    /// costs what the system takes to deliver a signal, two lookups, a step for each frame of the
    /// guest, and an allocation. **Panics**: those that are carried. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`Trapped`]: it has trapped.
    ///
    /// # Safety
    ///
    /// 1. `function` may be called with these arguments: it is a guest's code, which stays where it
    ///    is, and registered, until the call is over.
    /// 2. Guests may end at any instruction that may trap, and at any call of a host function, their
    ///    frames given up: nothing depends on their being left in order.
    /// 3. Host functions that guests call call guests in their turn only through an activation, which
    ///    they have within [`host_call`](super::host_call()); they do not unwind into guests.
    /// 4. Guests run on this thread's own stack.
    #[inline]
    pub unsafe fn call<A: Copy, F: GuestFunction<A>>(
        &self,
        function: F,
        arguments: A,
    ) -> Result<F::Output, Trapped<'a>> {
        let mut outgoing = Outgoing { function, arguments, output: MaybeUninit::uninit() };
        let frame = CallFrame::new();
        self.thread.renew_mask();
        let record = self.thread.record();
        let within = Within::new(record, &frame);
        // SAFETY: (`enter`) 1. ours; 2. `Outgoing::call` gets what it asks for, and the function is
        // the caller's to answer for (1, 4); 3. handlers and `host_call` send the thread there while
        // the frame is the innermost of the thread, in a guest or in what one has called. Younger
        // frames are those of guests, by 2. and 3.; of `Outgoing::call`, which drops nothing; and of
        // a host function in `host_call`, which answers for itself.
        let ending = unsafe {
            machine::enter(frame.recovery.get(), Outgoing::<A, F>::call, (&raw mut outgoing).cast())
        };
        drop(within);
        if ending != RECOVERED {
            // SAFETY: the call has returned, so `Outgoing::call` has written it.
            return Ok(unsafe { outgoing.output.assume_init() });
        }
        Err(self.end(record, &frame))
    }

    /// The call did not return: a panic goes on, a trap is kept.
    #[cold]
    fn end(&self, record: &ThreadRecord, frame: &CallFrame) -> Trapped<'a> {
        if let Some(payload) = frame.panic.take() {
            std::panic::resume_unwind(payload);
        }
        // SAFETY: (`fault`) 1. this thread's record, and its guest has ended.
        self.trap.set(Some(Trap::of(unsafe { record.fault() })));
        Trapped { only: PhantomData }
    }
}

/// Makes a call the innermost, and the one before it again when it is over.
struct Within<'r> {
    record: &'r ThreadRecord,
    outer: *mut CallFrame,
}

impl<'r> Within<'r> {
    #[inline]
    fn new(record: &'r ThreadRecord, frame: &CallFrame) -> Self {
        let outer = record.innermost();
        record.set_innermost((&raw const *frame).cast_mut());
        Self { record, outer }
    }
}

impl Drop for Within<'_> {
    #[inline]
    fn drop(&mut self) {
        self.record.set_innermost(self.outer);
    }
}

/// What a call takes along and brings back.
struct Outgoing<A, F: GuestFunction<A>>
where
    A: Copy,
{
    function: F,
    arguments: A,
    output: MaybeUninit<F::Output>,
}

impl<A: Copy, F: GuestFunction<A>> Outgoing<A, F> {
    /// # Safety
    ///
    /// 1. `outgoing` is one of this type, for this call alone.
    /// 2. Its function may be called with its arguments.
    unsafe extern "C" fn call(outgoing: *mut c_void) {
        let outgoing: *mut Self = outgoing.cast();
        // SAFETY: by 1.
        let function = unsafe { (*outgoing).function };
        // SAFETY: by 1.
        let arguments = unsafe { (*outgoing).arguments };
        // SAFETY: (`call_with`) 1. by 2.
        let output = unsafe { function.call_with(arguments) };
        // SAFETY: by 1.
        unsafe { (*outgoing).output.write(output) };
    }
}

impl GuestThread {
    /// Runs `run`, which calls guests through the activation that it is given; a trap that it returns
    /// becomes the error.
    ///
    /// Activations nest: a host function that a guest has called catches traps of its own. What `run`
    /// does beside calling guests is ordinary code: nothing of it is skipped, for a trap comes back
    /// to it as the result of [`Activation::call`].
    ///
    /// ```
    /// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
    /// # let handler = TrapHandler::install(TrapOptions::new())?;
    /// unsafe extern "C" fn twice(number: u64) -> u64 {
    ///     number * 2
    /// }
    /// let thread = GuestThread::prepare(&handler)?;
    /// let result = thread.catch_traps(|activation| {
    ///     let guest: unsafe extern "C" fn(u64) -> u64 = twice;
    ///     // SAFETY: any number will do.
    ///     let four = unsafe { activation.call(guest, (2,)) }?;
    ///     unsafe { activation.call(guest, (four,)) }
    /// });
    /// assert_eq!(result.unwrap(), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A trap of one activation cannot end another:
    ///
    /// ```compile_fail
    /// # use pcmap::trap::{GuestThread, Trap};
    /// fn confused(thread: &GuestThread, guest: unsafe extern "C" fn()) -> Result<(), Trap> {
    ///     thread.catch_traps(|outer| {
    ///         let inner = thread.catch_traps(|inner| unsafe { outer.call(guest, ()) });
    ///         inner.map_err(|_| unreachable!())
    ///     })
    /// }
    /// ```
    ///
    /// **Cost**: none but that of `run`. **Panics**: as `run`. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// The [`Trap`] of a call, if `run` returns its [`Trapped`].
    pub fn catch_traps<R>(
        &self,
        run: impl for<'a> FnOnce(&Activation<'a>) -> Result<R, Trapped<'a>>,
    ) -> Result<R, Trap> {
        let activation = Activation { thread: self, trap: Cell::new(None), only: PhantomData };
        let result = run(&activation);
        let trap = activation.trap.take();
        result
            .map_err(|_| trap.unwrap_or_else(|| unreachable!("only a call that trapped tells so")))
    }

    /// As [`catch_traps`](Self::catch_traps), with limits of the stack for host functions that guests of this
    /// activation call, and of activations within it that have none of their own. See [`StackLimits`].
    ///
    /// **Cost, panics, signal-safe**: as `catch_traps`.
    ///
    /// # Errors
    ///
    /// As `catch_traps`.
    pub fn catch_traps_within<R>(
        &self,
        limits: StackLimits,
        run: impl for<'a> FnOnce(&Activation<'a>) -> Result<R, Trapped<'a>>,
    ) -> Result<R, Trap> {
        struct Before<'t>(&'t GuestThread, StackLimits);
        impl Drop for Before<'_> {
            fn drop(&mut self) {
                self.0.room().set_limits(self.1);
            }
        }
        let _before = Before(self, self.room().limits());
        self.room().set_limits(limits);
        self.catch_traps(run)
    }
}

impl fmt::Debug for Activation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation").finish_non_exhaustive()
    }
}

impl fmt::Debug for Trapped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trapped")
    }
}
