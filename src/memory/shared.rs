#![expect(unsafe_code, reason = "a counted pointer to a raw block")]
//! A counted block: what `Arc` is, but it says so when there is no memory, and its pointers may
//! be kept uncounted where something else keeps the block alive.
//!
//! `Arc::new` aborts when memory runs out; registration promises an error that hands the value
//! back. That is the whole reason for this file. There are no weak counts and no unique access:
//! the body is only ever seen through `&`, and dropped or given out once, when the count reaches
//! zero.

use super::try_box;
use crate::sync::{AtomicUsize, Liveness, dispose, edge};
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, offset_of};
use core::ops::Deref;
use core::ptr::NonNull;

/// The block behind a [`Shared`]: the count, and the body.
pub(crate) struct Block<X> {
    count: AtomicUsize,
    life: Liveness,
    body: X,
}

/// One count on a block.
pub(crate) struct Shared<X> {
    block: NonNull<Block<X>>,
    owns: PhantomData<Block<X>>,
}

// SAFETY: as for `Arc`: a `Shared` gives `&X` to any thread (`X: Sync`) and may drop the body on
// any thread (`X: Send`); the count is atomic.
unsafe impl<X: Send + Sync> Send for Shared<X> {}
// SAFETY: as above: `&Shared` can be cloned into a `Shared` on another thread, which needs both.
unsafe impl<X: Send + Sync> Sync for Shared<X> {}

impl<X> Shared<X> {
    /// A block with one count; without memory for it, the body comes back.
    pub(crate) fn try_new(body: X) -> Result<Self, X> {
        let block = Block { count: AtomicUsize::new(1), life: Liveness::new(), body };
        match try_box(block) {
            Ok(block) => Ok(Self { block: NonNull::from(Box::leak(block)), owns: PhantomData }),
            Err(block) => Err(block.body),
        }
    }

    /// How far the body is from the start of its block, in bytes.
    pub(crate) const BODY: usize = offset_of!(Block<X>, body);

    /// The block's address, for keeping it without a count or comparing identity.
    pub(crate) fn as_raw(&self) -> *mut Block<X> {
        self.block.as_ptr()
    }

    /// Gives the count away with the pointer; [`Shared::from_raw`] takes it back.
    pub(crate) fn into_raw(self) -> *mut Block<X> {
        ManuallyDrop::new(self).block.as_ptr()
    }

    /// Takes over one count.
    ///
    /// # Safety
    ///
    /// 1. `raw` is a block's address, and one count on it is the caller's to give away.
    pub(crate) unsafe fn from_raw(raw: *mut Block<X>) -> Self {
        // SAFETY: by 1. the address is that of a block, so it is not null.
        let block = unsafe { NonNull::new_unchecked(raw) };
        Self { block, owns: PhantomData }
    }

    /// The body behind an uncounted pointer, if it is one.
    ///
    /// Signal-safe: reads a pointer.
    ///
    /// # Safety
    ///
    /// 1. `raw` is null, or a block's address.
    /// 2. Throughout `'a` something holds a count on that block.
    #[inline(always)]
    pub(crate) unsafe fn peek<'a>(raw: *mut Block<X>) -> Option<&'a X> {
        // SAFETY: by 1. and 2. null or alive, for `'a`; nobody ever has a `&mut` to a block in use.
        let block = unsafe { raw.as_ref() }?;
        block.life.read();
        Some(&block.body)
    }

    /// One more count on the block behind an uncounted pointer.
    ///
    /// # Safety
    ///
    /// 1. `raw` is a block's address, and something holds a count on it during the call.
    pub(crate) unsafe fn share_raw(raw: *mut Block<X>) -> Self {
        // SAFETY: by 1., for a count that is not dropped here: it stays with its holder.
        let held = ManuallyDrop::new(unsafe { Self::from_raw(raw) });
        Self::clone(&held)
    }

    /// Gives the count up; the body, if it was the last one, and the memory is freed.
    ///
    /// Of those who let go at the same time, each with this, exactly one gets the body.
    pub(crate) fn into_body_if_last(self) -> Option<X> {
        let raw = self.into_raw();
        // SAFETY: the count that `self` held keeps the block alive until it is given up here; the
        // borrow ends with the call.
        let count = unsafe { &(*raw).count };
        // Ordering [count_down]: Release; pairs with the fence [count_last] below, as in `drop`.
        if count.fetch_sub(1, edge::count_down()) != 1 {
            return None;
        }
        edge::count_last();
        // SAFETY: the count has just reached zero, so this is the only pointer left that may be
        // used; the block was allocated with the layout that `Box` frees.
        let block = unsafe { Box::from_raw(raw) };
        block.life.end();
        Some(block.body)
    }

    fn block(&self) -> &Block<X> {
        // SAFETY: this `Shared` holds a count, so the block is alive as long as `self` is.
        unsafe { self.block.as_ref() }
    }
}

impl<X> Clone for Shared<X> {
    fn clone(&self) -> Self {
        // Ordering [count_up]: Relaxed; the caller holds a count, so the block cannot be
        // on its way out, and nothing is published by counting.
        let before = self.block().count.fetch_add(1, edge::count_up());
        // As in `Arc`: so many leaked clones could wrap the count, and it is too late for an error.
        if before > usize::MAX / 2 {
            std::process::abort();
        }
        Self { block: self.block, owns: PhantomData }
    }
}

impl<X> Deref for Shared<X> {
    type Target = X;

    fn deref(&self) -> &X {
        let block = self.block();
        block.life.read();
        &block.body
    }
}

impl<X> Drop for Shared<X> {
    fn drop(&mut self) {
        // Ordering [count_down]: Release; pairs with the fence [count_last] below.
        //   not the last: what this thread did with the body is before its destruction;
        //   the last:     the fence makes what every other holder did come before it.
        if self.block().count.fetch_sub(1, edge::count_down()) == 1 {
            edge::count_last();
            self.block().life.end();
            // SAFETY: the count has just reached zero, so this is the only pointer left that may
            // be used; the block was allocated with the layout that `Box` frees.
            let block = unsafe { Box::from_raw(self.block.as_ptr()) };
            dispose(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;
    use crate::sync::explore;
    use core::cell::Cell;
    use std::rc::Rc;

    struct CountsDrops(Rc<Cell<usize>>);

    impl Drop for CountsDrops {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn the_body_is_dropped_with_the_last_count_only() {
        explore(|| {
            let drops = Rc::new(Cell::new(0));
            let first = Shared::try_new(CountsDrops(drops.clone())).ok().expect("memory");
            let raw = first.clone().into_raw();
            drop(first);
            assert_eq!(drops.get(), 0);
            // SAFETY: (`Shared::share_raw`) 1. `raw` carries a count.
            let third = unsafe { Shared::share_raw(raw) };
            // SAFETY: (`Shared::from_raw`) 1. the count that `raw` carries is given away here.
            drop(unsafe { Shared::from_raw(raw) });
            assert_eq!(drops.get(), 0);
            drop(third);
            assert_eq!(drops.get(), 1);
        });
    }

    #[test]
    fn the_body_comes_out_of_the_last_count() {
        explore(|| {
            let drops = Rc::new(Cell::new(0));
            let first = Shared::try_new(CountsDrops(drops.clone())).ok().expect("memory");
            let second = first.clone();
            assert!(first.into_body_if_last().is_none(), "counted twice");
            let body = second.into_body_if_last().expect("the last count");
            assert_eq!(drops.get(), 0);
            drop(body);
            assert_eq!(drops.get(), 1);
        });
    }
}
