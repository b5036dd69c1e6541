#![expect(unsafe_code, reason = "hands over the counts that its pointers carry")]
//! A lock-free stack of versions that were taken out of the chain (Treiber's).
//!
//! It is only ever taken whole, so a version's address cannot come back while somebody compares it.

use super::shared::{Block, Shared};
use super::version::{Raw, Version};
use crate::sync::{AtomicPtr, edge};
use core::ptr;

/// Versions that were taken out of the chain, each with its count, linked one below the other.
pub(crate) struct Stack<T> {
    top: AtomicPtr<Block<Version<T>>>,
}

impl<T> Stack<T> {
    pub(crate) fn new() -> Self {
        Self { top: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The top version, or null.
    pub(crate) fn top(&self) -> Raw<T> {
        // Ordering [take]: Acquire; as in `take_all`.
        self.top.load(edge::take())
    }

    /// Puts a version on the stack, with the count that `raw` carries. Lock-free.
    ///
    /// # Safety
    ///
    /// 1. `raw` is a version's address and carries a count of it, which goes to the stack.
    pub(crate) unsafe fn push(&self, raw: Raw<T>) {
        // SAFETY: (`Shared::peek`) 1. and 2. by 1.: the count keeps it alive until it is taken.
        let Some(version) = (unsafe { Shared::peek(raw) }) else { return };
        let mut top = self.top.load(edge::lost());
        loop {
            version.below.store(top, edge::below());
            // Ordering [put]: Release; pairs with Acquire in `take_all`.
            //   seen:   the link to the rest of the stack is seen, and the version is whole;
            //   failed: the top is another one, which is only compared and linked to.
            match self.top.compare_exchange(top, raw, edge::put(), edge::lost()) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    /// Takes all versions; [`Stack::unlink`] gets them one by one. Wait-free.
    pub(crate) fn take_all(&self) -> Raw<T> {
        // Ordering [take]: Acquire; pairs with Release in `push`.
        //   seen: every version and every link on the stack, for pushes continue each other's
        //         release sequences.
        self.top.swap(ptr::null_mut(), edge::take())
    }

    /// The first of the versions that `take_all` gave, with its count, and the rest.
    ///
    /// # Safety
    ///
    /// 1. `raw` comes from `take_all` or from this, and was not used before.
    pub(crate) unsafe fn unlink(raw: Raw<T>) -> Option<(Shared<Version<T>>, Raw<T>)> {
        if raw.is_null() {
            return None;
        }
        // SAFETY: (`Shared::from_raw`) 1. the count that `push` was given, by 1. taken once.
        let version = unsafe { Shared::from_raw(raw) };
        let rest = version.below.load(edge::below());
        Some((version, rest))
    }
}
