#![expect(unsafe_code, reason = "says that what it was given may be freed")]
//! Garbage that one caller waits for: it stays in the caller's hands until no reader can hold it.
//!
//! So a caller that waits knows that it is gone when it is gone, whatever other threads do; and a caller that does not
//! wait gives it to the limbo lists.

use super::Index;
use super::era::Sort;
use super::eras::Tag;
use super::limbo::{Chain, Garbage};

/// Garbage of both sorts, and a tag that was read after all of it was displaced.
pub(crate) struct Retired {
    pub(super) chains: [Chain; 2],
    pub(super) tag: Option<Tag>,
    /// What it counts for in the figures of the tag's era.
    weight: (u64, u64),
}

impl Retired {
    pub(crate) const fn nothing() -> Self {
        Self { chains: [Chain::empty(), Chain::empty()], tag: None, weight: (0, 0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chains.iter().all(Chain::is_empty)
    }

    /// Adds a value that the map holds, or a view.
    ///
    /// # Safety
    ///
    /// 1. `garbage` is of an entry that was removed by an exchange just before, or of a view that was taken out
    ///    of its cell, by the caller; and that hold is the caller's to give away.
    pub(super) unsafe fn add<T>(&mut self, index: &Index<T>, garbage: *mut Garbage) {
        // SAFETY: (`Chain::push`) 1. by 1. it is alive until it is released.
        unsafe { self.chains[Sort::Values as usize].push(garbage) };
        let tag = index.eras.tag_behind_exchange();
        let (items, bytes) = index.weight(Sort::Values, garbage);
        if let Some(old) = self.tag.filter(|old| old.era() != tag.era() && self.weight.0 != 0) {
            index.eras.tagged(&old).forget(self.weight.0, self.weight.1);
            index.eras.tagged(&tag).note(self.weight.0, self.weight.1);
        }
        if items != 0 {
            index.eras.tagged(&tag).note(items, bytes);
            self.weight = (self.weight.0 + items, self.weight.1 + bytes);
        }
        self.tag = Some(tag);
    }
}

impl<T> Index<T> {
    /// Adopts all garbage that there is.
    pub(crate) fn adopt(&self) -> Retired {
        let _ = self.eras.follow_fork(false);
        let mut adopted = Retired::nothing();
        let (mut items, mut bytes) = (0, 0);
        for era in self.eras.iter() {
            for sort in Sort::ALL {
                let mut taken = era.take_all(sort);
                let mut its = (0, 0);
                while let Some(garbage) = taken.pop() {
                    let (count, size) = self.weight(sort, garbage);
                    its = (its.0 + count, its.1 + size);
                    // SAFETY: (`Chain::push`) 1. taken out of another chain.
                    unsafe { adopted.chains[sort as usize].push(garbage) };
                }
                era.forget(its.0, its.1);
                (items, bytes) = (items + its.0, bytes + its.1);
            }
        }
        let tag = self.eras.tag();
        self.eras.tagged(&tag).note(items, bytes);
        adopted.tag = Some(tag);
        adopted
    }

    /// Gives up what is not waited for any more.
    pub(crate) fn leave_to_others(&self, retired: &mut Retired) {
        let Some(tag) = retired.tag else { return };
        for sort in Sort::ALL {
            let chain = core::mem::replace(&mut retired.chains[sort as usize], Chain::empty());
            self.eras.limbo(&tag, sort).push(chain);
        }
    }

    /// Frees what no reader can hold any more; says whether that was all of it, except what only readers
    /// can hold that the process was forked with: that is left to others. Destructors may run.
    ///
    /// Lock-free. Who `insists` begins an era, so that readers which stay inside hold back nothing that is
    /// registered later.
    pub(crate) fn try_complete(&self, retired: &mut Retired, insists: bool) -> bool {
        let Some(tag) = retired.tag.filter(|_| !retired.is_empty()) else { return true };
        // Without memory for an era of its own, a child of `fork` waits as its parent would.
        let _ = self.eras.follow_fork(false);
        for _ in 0..3 {
            let current = self.eras.current();
            if current.number() != tag.era() || self.eras.has_passed(&tag) {
                break;
            }
            if !current.era.try_advance() {
                if insists {
                    self.eras.begin(&current, false);
                }
                break;
            }
        }
        self.eras.iter().for_each(|era| self.eras.drain(era));
        if !self.eras.has_passed(&tag) {
            let waits = self.eras.is_of_this_process(tag.era());
            if !waits {
                self.leave_to_others(retired);
            }
            return !waits;
        }
        let mut due = Chain::empty();
        for sort in Sort::ALL {
            let chain = core::mem::replace(&mut retired.chains[sort as usize], Chain::empty());
            let waits_for = |number| self.eras.is_of_this_process(number);
            let source = self.eras.tagged(&tag);
            let (values, kept) = self.free_due(source, sort, chain, Some(tag.era()), waits_for);
            retired.chains[sort as usize] = kept;
            due.append(values);
        }
        self.destroy(due);
        retired.is_empty()
    }
}
