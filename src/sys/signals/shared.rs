//! Words that a thread shares with the handlers that interrupt it, and a count of handles.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// A pointer that a thread changes and its handlers read.
///
/// No other thread does either, so nothing has to be ordered but the thread's own instructions; the
/// orderings keep the compiler from moving what the pointer leads to across it.
#[derive(Debug)]
pub(crate) struct InterruptPtr<T>(AtomicPtr<T>);

impl<T> InterruptPtr<T> {
    pub(crate) const fn null() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Signal-safe: one load.
    #[inline]
    pub(crate) fn get(&self) -> *mut T {
        // Acquire: what it points at was written before; pairs with Release in `set`.
        self.0.load(Ordering::Acquire)
    }

    /// Signal-safe: one store.
    #[inline]
    pub(crate) fn set(&self, to: *mut T) {
        // Release: a handler that sees the pointer sees what it points at.
        self.0.store(to, Ordering::Release);
    }
}

/// A count of handles of one thing that there is at most once: absent, held so many times, or on its
/// way out, when nobody can join.
#[derive(Debug)]
pub(crate) struct Handles(AtomicUsize);

/// The value while the thing is being taken down.
const CLOSING: usize = usize::MAX;

impl Handles {
    pub(crate) const fn none() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// One handle more, unless the thing is being taken down.
    pub(crate) fn join(&self) -> bool {
        // Acquire on success: pairs with Release in `opened` and `leave`.
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |handles| {
                (handles != CLOSING).then(|| handles.wrapping_add(1))
            })
            .is_ok()
    }

    /// One handle less.
    pub(crate) fn leave(&self) {
        // Release: what was done by the handle happens before whatever the last one does.
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Begins taking down, if the caller's handle is the only one.
    pub(crate) fn close(&self) -> bool {
        // Acquire: what others did by their handles happened before.
        self.0.compare_exchange(1, CLOSING, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Ends taking down, with so many handles left.
    pub(crate) fn closed(&self, left: usize) {
        self.0.store(left, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::Handles;

    #[test]
    fn only_the_last_handle_closes() {
        let handles = Handles::none();
        assert!(handles.join() && handles.join());
        assert!(!handles.close());
        handles.leave();
        assert!(handles.close() && !handles.join() && !handles.close());
        handles.closed(0);
        assert!(handles.join() && handles.close());
    }
}
