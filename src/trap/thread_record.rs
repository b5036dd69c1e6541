#![expect(unsafe_code, reason = "what a handler leaves for the thread that it interrupted")]
//! What a handler knows of a thread that runs guests, and how it finds that.
//!
//! The handler finds the thread by its thread pointer, a register that tells threads apart, in a map of the
//! same kind as the one that it found the code in. So there is no thread-local on its path, and no
//! question of what the C library does when a handler touches one that was not touched before; and a
//! thread that never prepared for guests is known by not being there.

use super::activation::CallFrame;
use super::error::PrepareError;
use super::fault::Fault;
use super::guest_thread::Prepared;
use super::host_call::Suspension;
use crate::sys::signals::lineage::{self, Stamp};
use crate::sys::signals::machine;
use crate::sys::signals::shared::InterruptPtr;
use crate::sys::signals::thread_stack::ThreadStack;
use crate::{CodeMap, Reader, Registration};
use core::cell::UnsafeCell;
use core::ops::Range;

/// The threads that are prepared for guests.
static THREADS: CodeMap<ThreadRecord> = CodeMap::new();

/// Makes the calling thread known to its handlers.
pub(crate) fn register(
    record: ThreadRecord,
) -> Result<Registration<'static, ThreadRecord>, PrepareError> {
    lineage::at_fork(in_child).map_err(PrepareError::System)?;
    let at = machine::thread_pointer();
    Ok(THREADS.register(at..at.saturating_add(1), record).map_err(|error| error.reason)?)
}

/// A child of `fork` has one of the threads. A new one may get the descriptor of another, which may have
/// been in a guest, and is not to be taken for it.
extern "C" fn in_child() {
    let threads = threads();
    let own = threads.own();
    lineage::begin();
    if let Some(own) = own {
        own.process.renew();
    }
}

/// What is known of the threads. Signal-safe.
#[inline]
pub(crate) fn threads() -> Threads {
    Threads(THREADS.enter())
}

/// Shows what is known of threads.
pub(crate) struct Threads(Reader<'static, ThreadRecord>);

impl Threads {
    /// What is known of the calling thread, if it is prepared. Signal-safe.
    #[inline]
    pub(crate) fn own(&self) -> Option<&ThreadRecord> {
        self.at_own_place().filter(|record| record.process.is_current())
    }

    /// The same; or what is known of a thread that is no more, and had this one's descriptor.
    #[inline]
    pub(crate) fn at_own_place(&self) -> Option<&ThreadRecord> {
        Some(self.0.lookup(machine::thread_pointer())?.value())
    }
}

/// What a handler knows of a thread.
pub(crate) struct ThreadRecord {
    /// The innermost call of a guest; null while none is running, or a host function that a guest
    /// has called. Lies in the thread's stack.
    innermost: InterruptPtr<CallFrame>,
    /// The innermost guest that waits for a host function; or null. Lies there, too.
    suspended: InterruptPtr<Suspension>,
    stack: ThreadStack,
    /// The process that the thread is in.
    process: Stamp,
    /// What the thread keeps: for a later thread with the same descriptor, if this one leaks it.
    prepared: InterruptPtr<Prepared>,
    /// What the last fault of a guest on this thread was.
    fault: UnsafeCell<Fault>,
}

// SAFETY: the pointers are atomic words, and what they lead to is looked at by its thread and that
// thread's handlers only, as is `fault` (`take_down` and `fault` ask for it), or by a later thread in its
// place: other threads find the record, and free it when it is registered no more.
unsafe impl Sync for ThreadRecord {}
// SAFETY: as above; nothing in it is of the thread that made it.
unsafe impl Send for ThreadRecord {}

impl ThreadRecord {
    pub(crate) fn new(stack: ThreadStack) -> Self {
        let fault = UnsafeCell::new(Fault::none());
        Self {
            innermost: InterruptPtr::null(),
            suspended: InterruptPtr::null(),
            stack,
            process: Stamp::new(),
            prepared: InterruptPtr::null(),
            fault,
        }
    }

    /// What the thread keeps.
    pub(crate) fn prepared(&self) -> *mut Prepared {
        self.prepared.get()
    }

    /// Tells what the thread keeps, now that it does.
    pub(crate) fn set_prepared(&self, prepared: *mut Prepared) {
        self.prepared.set(prepared);
    }

    /// The innermost call of a guest, if one is running.
    #[inline]
    pub(crate) fn innermost(&self) -> *mut CallFrame {
        self.innermost.get()
    }

    /// Makes another call the innermost.
    #[inline]
    pub(crate) fn set_innermost(&self, frame: *mut CallFrame) {
        self.innermost.set(frame);
    }

    /// The innermost guest that waits for a host function, if one does.
    #[inline]
    pub(crate) fn suspended(&self) -> *mut Suspension {
        self.suspended.get()
    }

    /// Makes another suspension the innermost.
    #[inline]
    pub(crate) fn set_suspended(&self, suspension: *mut Suspension) {
        self.suspended.set(suspension);
    }

    /// The part of the stack that guests of a call may have used, which may be read: from the
    /// interrupted stack pointer up to where the call was made. `beyond` is an address beyond the stack's
    /// end, if the guest has overflowed it: its pointer may be there, too.
    #[inline]
    pub(crate) fn guest_stack(
        &self,
        sp: usize,
        beyond: Option<usize>,
        entered: usize,
    ) -> Range<usize> {
        let ThreadStack { lowest, page } = self.stack;
        let mapped = beyond.map_or(0, |at| (at & page.wrapping_neg()).saturating_add(page));
        sp.max(lowest).max(mapped)..entered
    }

    /// Notes a fault, for the thread to find when it goes on.
    ///
    /// # Safety
    ///
    /// 1. In a handler that has interrupted this thread, in a guest; or on this thread, when no guest runs and
    ///    nobody has the last fault.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "asked for by 1: nobody else has it")]
    pub(crate) unsafe fn take_down(&self) -> &mut Fault {
        // SAFETY: by 1. the thread is not looking at it, nor is another handler: no guest runs in one.
        unsafe { &mut *self.fault.get() }
    }

    /// The last fault of a guest.
    ///
    /// # Safety
    ///
    /// 1. On this thread, outside of handlers, and no guest is called while the result lives.
    pub(crate) unsafe fn fault(&self) -> &Fault {
        // SAFETY: by 1. no handler writes it.
        unsafe { &*self.fault.get() }
    }
}
