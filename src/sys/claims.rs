//! How many owners a registration has: a count for which zero is final.
//!
//! The arithmetic of the counted registrations of `src/registry/residence.rs`, where the argument
//! about who sees what is written down; it stands here because orderings are named nowhere else
//! outside the index.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Owners of one registration, and the address by which any of them can take it out.
#[derive(Debug)]
pub(crate) struct Claims<P> {
    owners: AtomicUsize,
    /// Where the registration itself lies: written once, before anybody else sees it.
    place: AtomicPtr<P>,
}

impl<P> Claims<P> {
    /// One owner.
    pub(crate) const fn one() -> Self {
        Self { owners: AtomicUsize::new(1), place: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Notes the place; before the registration is published.
    pub(crate) fn set_place(&self, place: *mut P) {
        // Relaxed: publication of the registration makes it visible.
        self.place.store(place, Ordering::Relaxed);
    }

    /// The place that was noted.
    pub(crate) fn place(&self) -> *mut P {
        // Relaxed: whoever reaches `self` has seen the publication.
        self.place.load(Ordering::Relaxed)
    }

    /// One more owner, unless there is none any more.
    ///
    /// Lock-free: an exchange fails when another thread joined or left.
    pub(crate) fn join(&self) -> bool {
        // Acquire on success: pairs with Release in `leave`, so that what owners did before they
        // left happens before what this one does. Overflow cannot come about: each owner takes
        // more memory than one byte.
        self.owners
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |owners| {
                (owners != 0).then(|| owners.wrapping_add(1))
            })
            .is_ok()
    }

    /// One owner less; whether that was the last.
    pub(crate) fn leave(&self) -> bool {
        // Release: what this owner did happens before what the last one does next; Acquire: for
        // the last one.
        self.owners.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// How many owners there are at the moment.
    pub(crate) fn owners(&self) -> usize {
        self.owners.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Claims;

    #[test]
    fn zero_is_final() {
        let claims = Claims::<u8>::one();
        assert!(claims.join() && claims.owners() == 2);
        assert!(!claims.leave());
        assert!(claims.leave());
        assert!(!claims.join());
        assert_eq!(claims.owners(), 0);
    }
}
