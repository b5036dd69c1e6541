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

    /// Leaves out the removed ranges of one leaf, among so many ranges; says whether it did. One attempt: if another thread
    /// publishes meanwhile, or there is no memory, nothing has changed.
    pub(crate) fn compact(&self, most: usize) -> bool {
        let reading = self.enter();
        let tree = reading.tree();
        let from = self.compacted.load(edge::statistic()) as usize;
        let (place, next) = first_removed(&tree, from, most);
        self.compacted.store(next as u64, edge::statistic());
        // (Those that are counted may be in a leaf that was rewritten just now.)
        let Some(place) = place else { return false };
        let mut edit = self.edit(&reading, WRITE | reading.sequence());
        let place = [Slot::of_place(place.start())];
        let is_done = edit.apply(Change { add: &[], visit: &place }).is_ok()
            && self.publish(&reading, &mut edit);
        if is_done {
            self.retire_displaced(reading, &edit);
        }
        is_done
    }
}

/// The first removed range at `from` or behind, and from the start again, among so many; and where to go on.
fn first_removed<T>(tree: &Tree<T>, from: usize, most: usize) -> (Option<Slot<T>>, usize) {
    let ranges = tree.iter_from(from).chain(tree.iter());
    let mut next = 0;
    for found in ranges.take(most) {
        next = found.range.start();
        if found.entry.is_removed() {
            return (Some(Slot::of_place(next)), next);
        }
    }
    (None, next)
}
