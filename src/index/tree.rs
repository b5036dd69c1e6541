#![expect(unsafe_code, reason = "follows the pointers of nodes that its version keeps alive")]
//! The immutable index of one version: sorted leaves of sorted ranges, and sorted nodes above them.
//!
//! Invariant: all ranges are sorted by start, none is empty, and none starts inside a live one. So live
//! ranges do not overlap, an address lies in at most one, and the last range that starts at or before an
//! address is the only one that can be live and contain it. (Removed ranges stay until their leaf is
//! rewritten; a live one may overlap the end of a removed one.) All leaves are at the same depth, and a
//! node's start is that of its first range.
//!
//! # What a lookup costs
//!
//! With 32 to 128 ranges to a leaf and 64 to 256 nodes to a node (the root may have less), an index
//! of n ranges has one level for n < 64, at most two for n < 4,096, three for n < 262,144, four for
//! n < 16,777,216: *levels(n)* = 1 + max(0, ⌊log₆₄ n⌋). Each level costs one byte of a table and
//! rounds of comparisons whose number is fixed for the node: none or one where ranges are even, one
//! round of seven where they are not, and never more than five halvings before that. The tests hold it
//! to that (`most_levels`, `most_probes`).

use super::entry::Entry;
use super::node::fewest_slots;
#[cfg(test)]
use super::node::most_slots;
#[cfg(test)]
use super::search_plan::SearchPlan;
use super::slot::{Slot, Slots};
use crate::address_range::{CodeRange, Pc};

/// Sorted ranges with their entries. It owns nothing: see `node`.
#[repr(C)] // what a lookup reads comes first
pub(crate) struct Tree<T> {
    /// Points at the root node, or at nothing.
    pub(super) root: Slot<T>,
    /// Nodes above the leaves, from any leaf to the root.
    pub(crate) height: u8,
    /// How many ranges there are, removed ones included.
    pub(crate) entries: usize,
    /// What its nodes take, in bytes.
    pub(crate) bytes: usize,
}

/// One range of a tree.
pub(crate) struct Found<'a, T> {
    pub(crate) range: CodeRange,
    pub(crate) entry: &'a Entry<T>,
    pub(crate) slot: Slot<T>,
}

impl<T> Clone for Tree<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Tree<T> {}

impl<T> Tree<T> {
    pub(crate) const fn empty() -> Self {
        Self { root: Slot::nothing(), height: 0, entries: 0, bytes: 0 }
    }

    /// The leaf's slot for the range that contains `pc`.
    ///
    /// Wait-free: one step per level, each of a fixed number of rounds of comparisons.
    ///
    /// Signal-safe: reads immutable nodes only; no panic, no call.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn find_slot(&self, pc: Pc, probe: impl Fn(*const u8)) -> Option<Slot<T>> {
        if self.root.is_nothing() {
            return None;
        }
        let mut slot = &self.root;
        let mut above = self.height;
        let slot = loop {
            if above == 0 && slot.plan().is_packed() {
                // SAFETY: (`Slot::find_packed`) 1. as below; it says that it is packed.
                break unsafe { slot.find_packed(pc.address(), &probe) }?;
            }
            // SAFETY: (`Slot::find`) 1. the root, or (by height) a slot above the leaves; the nodes of
            // a tree live as long as its version, which `self` is part of. Only leaves are packed.
            slot = unsafe { slot.find(pc.address(), &probe) }?;
            if above == 0 {
                break *slot;
            }
            above = above.wrapping_sub(1);
        };
        (slot.start() <= pc.address() && pc.address() < slot.end()).then_some(slot)
    }

    /// The range that contains `pc`, and its entry.
    ///
    /// Wait-free and signal-safe: see `find_slot`.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn find(&self, pc: Pc) -> Option<Found<'_, T>> {
        self.find_slot(pc, |_| ()).and_then(|slot| self.found(&slot))
    }

    /// As [`Tree::find`]; tells `probe` every address of the index that is read on the way.
    #[cfg(test)]
    pub(crate) fn find_probed(&self, pc: Pc, probe: impl Fn(*const u8)) -> bool {
        self.find_slot(pc, probe).is_some()
    }

    /// What a slot of one of this tree's leaves says.
    #[inline(always)]
    pub(super) fn found<'a>(&'a self, slot: &Slot<T>) -> Option<Found<'a, T>> {
        // SAFETY: a leaf's slot; an entry's block lives as long as what shows it.
        let entry = unsafe { slot.entry().as_ref() }?;
        Some(Found { range: slot.range(), entry, slot: *slot })
    }

    /// The slots of the node that `slot` points at.
    pub(super) fn below(&self, slot: &Slot<T>) -> Slots<'_, T> {
        if slot.is_nothing() {
            return Slots::NONE;
        }
        // SAFETY: (`Slot::slots`) 1. private callers pass slots of this tree, the root or one above
        // the leaves.
        unsafe { slot.slots() }
    }

    /// Which slot of the node at `slot` (which is something) is the last that starts at or before
    /// `address`; the first one, if none does.
    pub(super) fn last_at_or_before(&self, slot: &Slot<T>, address: usize) -> usize {
        let address = address.max(slot.start());
        // SAFETY: (`Slot::rank`) 1. as in `below`.
        unsafe { slot.rank(address) }
    }

    /// The part of a leaf whose ranges start at or behind `address`: the first such leaf.
    ///
    /// O(log n).
    pub(crate) fn leaf_from(&self, address: usize) -> Slots<'_, T> {
        let mut slot = self.root;
        let mut behind = None;
        for _ in 0..self.height {
            let slots = self.below(&slot);
            let at = slots.rank(address, true).max(1);
            behind = slots.get(at).or(behind);
            slot = match slots.get(at - 1) {
                Some(slot) => slot,
                None => return Slots::NONE,
            };
        }
        let leaf = self.below(&slot);
        let part = leaf.split_at(leaf.rank(address, false)).1;
        match behind {
            // All of that leaf starts before: the next one does not.
            Some(behind) if part.is_empty() => self.leaf_from(behind.start()),
            _ => part,
        }
    }

    /// The part of a leaf whose ranges start before `address`: the last such leaf.
    ///
    /// O(log n).
    pub(crate) fn leaf_before(&self, address: usize) -> Slots<'_, T> {
        let mut slot = self.root;
        for _ in 0..self.height {
            let slots = self.below(&slot);
            // A node's start is that of its first range, so this one has a range before `address`.
            let at = slots.rank(address, false);
            slot = match at.checked_sub(1).and_then(|at| slots.get(at)) {
                Some(slot) => slot,
                None => return Slots::NONE,
            };
        }
        let leaf = self.below(&slot);
        leaf.split_at(leaf.rank(address, false)).0
    }

    /// The last range that starts before `address`.
    pub(super) fn last_before(&self, address: usize) -> Option<Slot<T>> {
        self.leaf_before(address).last()
    }

    /// The first range that starts at `address` or behind.
    pub(super) fn first_from(&self, address: usize) -> Option<Slot<T>> {
        self.leaf_from(address).first()
    }

    /// Whether the entry of a leaf's slot is removed.
    pub(super) fn is_removed(&self, slot: &Slot<T>) -> bool {
        self.found(slot).is_some_and(|found| found.entry.is_removed())
    }

    /// All ranges that start at `from` or behind, in address order.
    pub(crate) fn iter_from(&self, from: usize) -> Iter<'_, T> {
        Iter { tree: self, from, leaf: Slots::NONE }
    }

    /// All ranges, in address order.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        self.iter_from(0)
    }

    /// How many levels an index of `n` ranges has at most.
    ///
    /// Nodes hold a quarter of what fits at least, the root two: 64 ranges may have two levels, and
    /// every 64 times as many one more.
    pub(crate) const fn most_levels(n: usize) -> usize {
        let mut levels = 1;
        let mut reach = 2 * fewest_slots(0);
        while n >= reach {
            levels += 1;
            reach = reach.saturating_mul(fewest_slots(1));
        }
        levels
    }

    /// The most reads of nodes that a lookup in an index of `n` ranges makes: in each level a byte of
    /// the table, what it takes to search the whole node, and the slot that it ends at.
    #[cfg(test)]
    pub(crate) const fn most_probes(n: usize) -> usize {
        let (leaf, above) =
            (SearchPlan::most_probes(most_slots(0)), SearchPlan::most_probes(most_slots(1)));
        leaf + (Self::most_levels(n) - 1) * above
    }
}

/// The ranges of a tree from an address on, in address order.
///
/// Constant time a step, amortised: O(log n) once per leaf.
pub(crate) struct Iter<'a, T> {
    tree: &'a Tree<T>,
    /// What is left starts here or behind.
    from: usize,
    /// What is known of it: the rest of a leaf.
    leaf: Slots<'a, T>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = Found<'a, T>;

    fn next(&mut self) -> Option<Found<'a, T>> {
        if self.leaf.is_empty() {
            self.leaf = self.tree.leaf_from(self.from);
        }
        let (slot, rest) = self.leaf.split_first()?;
        (self.leaf, self.from) = (rest, slot.start().saturating_add(1));
        self.tree.found(&slot)
    }
}
