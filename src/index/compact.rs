//! Compaction: removed ranges leave the tree.
//!
//! A removed range stays in its leaf until the leaf is rewritten. When more than a quarter of all ranges
//! (and a few more) are removed ones, each registration also rewrites one leaf that has some: that takes out more than
//! the registration brought. A leaf without removed ranges is never touched.

use super::Index;
use super::edit::{Change, WRITE};
use super::slot::Slot;
use super::tree::Tree;
use crate::sync::edge;

impl<T> Index<T> {
    /// Whether more than a quarter of so many ranges, which the newest version shows, are removed, and a few
    /// more.
    pub(super) fn has_many_tombstones(&self, shown: usize, more: u64) -> bool {
        self.tombstones().saturating_sub(more).saturating_mul(4) > shown as u64
    }

    /// Leaves out the removed ranges of one leaf; says whether it did. One attempt: if another thread
    /// publishes meanwhile, or there is no memory, nothing has changed.
    pub(crate) fn compact(&self) -> bool {
        let reading = self.enter();
        let tree = reading.tree();
        let from = self.compacted.load(edge::statistic()) as usize;
        let Some(place) = first_removed(&tree, from) else {
            // (Those that are counted may be in a leaf that was rewritten just now.)
            return false;
        };
        self.compacted.store(place.start() as u64, edge::statistic());
        let mut edit = self.edit(&reading, WRITE | reading.sequence());
        let place = [Slot::of_place(place.start())];
        let is_done = edit.apply(Change { add: &[], visit: &place }).is_ok()
            && self.publish(&reading, &mut edit).is_ok_and(|published| published);
        if is_done {
            self.retire_displaced(reading, edit);
        }
        is_done
    }
}

/// The first removed range at `from` or behind, and from the start again.
fn first_removed<T>(tree: &Tree<T>, from: usize) -> Option<Slot<T>> {
    let removed = |from, to| {
        let mut found = tree.iter_between(from, to);
        found.find(|found| found.entry.is_removed())
    };
    let found = removed(from, usize::MAX).or_else(|| removed(0, from))?;
    Some(Slot::of_place(found.range.start()))
}
