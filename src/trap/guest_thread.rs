#![expect(unsafe_code, reason = "handles of a thread's own state")]
//! A thread that is prepared to run guests: known to handlers, with a stack for them.

use super::error::PrepareError;
use super::handler::TrapHandler;
use super::stack_limits::StackRoom;
use super::thread_record::{self, ThreadRecord, threads};
use crate::Registration;
use crate::memory::{OutOfMemory, try_box};
use crate::sys::signals::alternate_stack::{self, AlternateStack};
use crate::sys::signals::fault_mask::Unblocked;
use crate::sys::signals::own_thread;
use crate::sys::signals::thread_stack::ThreadStack;
use core::cell::Cell;
use core::fmt;
use core::ptr::{self, NonNull};

/// What a prepared thread keeps.
pub(crate) struct Prepared {
    handles: Cell<usize>,
    /// Dropped first: handlers find the thread no more.
    record: Registration<'static, ThreadRecord>,
    room: StackRoom,
    /// None if it had a sufficient one.
    stack: Option<AlternateStack>,
    unblocked: Unblocked,
    _handler: TrapHandler,
}

/// Shows that the calling thread is prepared to run guests.
///
/// A handle: preparing again on the same thread gives another one, at the cost of a count. With the
/// last one the thread gets back what it had before. It stays on its thread:
///
/// ```compile_fail,E0277
/// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
/// # let handler = TrapHandler::install(TrapOptions::new()).unwrap();
/// let thread = GuestThread::prepare(&handler).unwrap();
/// std::thread::scope(|scope| { scope.spawn(|| thread.catch_traps(|_| Ok(()))); });
/// ```
///
/// ```
/// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
/// # let handler = TrapHandler::install(TrapOptions::new()).unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let thread = GuestThread::prepare(&handler).unwrap();
///         thread.catch_traps(|_| Ok(()))
///     });
/// });
/// ```
pub struct GuestThread {
    /// Of this thread; there as long as a handle is.
    prepared: NonNull<Prepared>,
}

impl GuestThread {
    /// Prepares the calling thread, unless it is already.
    ///
    /// If its alternate signal stack is missing or short (64 KiB and four frames of the kernel's are
    /// asked for), it gets one, with a guard page. Others may put their own in force; without any, a
    /// stack overflow ends the process. If it has blocked signals that the handler was installed for, they
    /// are blocked no more, which has to stay so: the system ends a process for a fault whose signal is
    /// blocked. Signals that the handler is installed for later are seen to when the thread is prepared again,
    /// or calls a guest.
    ///
    /// It needs 40 KiB of the thread's own stack, without optimisation 64 KiB, and finds out whether so much is
    /// left.
    ///
    /// **Cost**: some twenty system calls and a registration in a code map; a thread-local read, if it is
    /// prepared already. **Progress**: lock-free but for the system's calls. **Panics**: none.
    /// **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`PrepareError`]; nothing has changed.
    pub fn prepare(handler: &TrapHandler) -> Result<Self, PrepareError> {
        if let Some(thread) = Self::current() {
            thread.renew_mask();
            return Ok(thread);
        }
        let room = StackRoom::to_prepare()?;
        take_down_predecessor();
        let sufficient =
            alternate_stack::current().filter(|stack| stack.len() >= alternate_stack::sufficient());
        let stack = match sufficient {
            Some(_) => None,
            None => Some(AlternateStack::install().map_err(PrepareError::System)?),
        };
        let record = thread_record::register(ThreadRecord::new(ThreadStack::own()))?;
        let no_memory = |_| PrepareError::Refused(OutOfMemory::of::<Prepared>(1).into());
        let unblocked = Unblocked::faults();
        let prepared = Prepared {
            handles: Cell::new(1),
            record,
            room,
            stack,
            unblocked,
            _handler: handler.clone(),
        };
        let prepared = try_box(prepared).map_err(drop).map_err(no_memory)?;
        let prepared = NonNull::from(Box::leak(prepared));
        own_thread::set::<Prepared>(prepared.as_ptr());
        // SAFETY: just leaked, and freed by the last handle.
        unsafe { prepared.as_ref() }.record.value().set_prepared(prepared.as_ptr());
        Ok(Self { prepared })
    }

    /// Another handle, if the calling thread is prepared: for a host function that a guest has
    /// called. Constant time: a thread-local read; no errors, no panics; not signal-safe.
    ///
    /// ```
    /// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
    /// assert!(GuestThread::current().is_none());
    /// let thread = GuestThread::prepare(&TrapHandler::install(TrapOptions::new())?)?;
    /// assert!(GuestThread::current().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn current() -> Option<Self> {
        let prepared = NonNull::new(own_thread::get::<Prepared>().cast_mut())?;
        let thread = Self { prepared };
        let handles = &thread.prepared().handles;
        handles.set(handles.get() + 1);
        Some(thread)
    }

    fn prepared(&self) -> &Prepared {
        // SAFETY: `prepare` leaked it, and the last handle frees it.
        unsafe { self.prepared.as_ref() }
    }

    /// Unblocks signals that were taken over since. Two loads, if there are none.
    #[inline]
    pub(crate) fn renew_mask(&self) {
        self.prepared().unblocked.renew();
    }

    pub(crate) fn room(&self) -> &StackRoom {
        &self.prepared().room
    }

    pub(crate) fn record(&self) -> &ThreadRecord {
        self.prepared().record.value()
    }
}

/// If a thread ended and its handles were leaked, or if it is not in this process, which was forked from
/// its, a new thread may get its descriptor, and be taken for it: takes down what it kept.
#[cold]
fn take_down_predecessor() {
    let prepared = threads().at_own_place().map_or(ptr::null_mut(), ThreadRecord::prepared);
    if !prepared.is_null() {
        // SAFETY: `prepare` leaked it on a thread that had this thread's descriptor and is no more, and
        // its handles with it, which do not leave their thread.
        let Prepared { unblocked, stack, .. } = *unsafe { Box::from_raw(prepared) };
        // It is about the mask of the other thread.
        core::mem::forget(unblocked);
        if let Some(stack) = stack {
            stack.unmap_left();
        }
    }
}

impl Drop for GuestThread {
    fn drop(&mut self) {
        let handles = &self.prepared().handles;
        handles.set(handles.get() - 1);
        if handles.get() == 0 {
            own_thread::set::<Prepared>(ptr::null());
            // SAFETY: `prepare` leaked it, and this was the last handle.
            drop(unsafe { Box::from_raw(self.prepared.as_ptr()) });
        }
    }
}

impl fmt::Debug for GuestThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stack = &self.prepared().stack;
        f.debug_struct("GuestThread").field("stack_for_handlers", stack).finish_non_exhaustive()
    }
}
