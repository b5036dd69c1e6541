#![expect(unsafe_code, reason = "gives back counts that plain pointers stand for")]
//! What a version has that its successor lacks: to be freed when the version is displaced and no
//! reader is left.

use super::entry::Entry;
use super::node::Node;
use super::shared::{Block, Shared};
use super::slot::Slot;
use crate::sync::SmallVec;

/// Nodes and entries, by plain pointers: each stands for the chain's count of what it points at.
/// Dropping the list gives back nothing.
pub(crate) struct Leftovers<T> {
    /// Each before those below it. Room for a write that touches one node of each height.
    nodes: SmallVec<[*mut Node<T>; 4]>,
    entries: SmallVec<[*mut Block<Entry<T>>; 1]>,
    node_bytes: usize,
}

impl<T> Leftovers<T> {
    pub(crate) fn none() -> Self {
        Self { nodes: SmallVec::new(), entries: SmallVec::new(), node_bytes: 0 }
    }

    /// Adds the node that `slot` points at. `None`: there is no memory.
    pub(crate) fn add_node(&mut self, slot: &Slot<T>) -> Option<()> {
        self.nodes.try_reserve(1).ok()?;
        self.nodes.push(slot.node());
        self.node_bytes += Node::<T>::bytes(slot.guide());
        Some(())
    }

    /// Adds an entry. `None`: there is no memory.
    pub(crate) fn add_entry(&mut self, entry: *mut Block<Entry<T>>) -> Option<()> {
        self.entries.try_reserve(1).ok()?;
        self.entries.push(entry);
        Some(())
    }

    pub(crate) fn nodes(&self) -> &[*mut Node<T>] {
        &self.nodes
    }

    pub(crate) fn entries(&self) -> &[*mut Block<Entry<T>>] {
        &self.entries
    }

    /// What nodes and entries take, in bytes, without what values own.
    pub(crate) fn bytes(&self) -> usize {
        self.node_bytes + self.entries.len() * Shared::<Entry<T>>::BYTES
    }

    /// Gives back the chain's counts of the entries. Values' destructors may run: if one panics,
    /// the others run all the same.
    ///
    /// # Safety
    ///
    /// 1. The counts are the caller's to give back.
    pub(crate) unsafe fn release_entries(mut self) {
        struct Rest<'l, T>(&'l mut Leftovers<T>);

        impl<T> Rest<'_, T> {
            fn release(&mut self) {
                while let Some(entry) = self.0.entries.pop() {
                    // SAFETY: (`Shared::from_raw`) 1. by 1. of `release_entries`; each is popped once.
                    drop(unsafe { Shared::from_raw(entry) });
                }
            }
        }

        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.release();
            }
        }

        Rest(&mut self).release();
    }
}
