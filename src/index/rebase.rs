//! What a large batch does when another write came first: it makes that write's change to its own tree,
//! instead of its own change to the other one's tree.
//!
//! The other changes are small, and are found without a look at what both trees share ([`difference`]). So
//! a batch does not start from nothing, however often it loses, and comes through beside small writers.
//!
//! [`difference`]: super::difference

use super::Refusal;
use super::difference::between;
use super::edit::{Change, Edit, push};
use super::slot::Slot;
use super::tree::Tree;
use crate::memory::OutOfMemory;
use crate::sync::SmallVec;

impl<T> Edit<'_, T> {
    /// Goes from the version with the tree `from`, with which the edit began, to a later one: both are kept
    /// alive by the caller.
    pub(crate) fn rebase(&mut self, from: &Tree<T>, to: &Tree<T>) -> Result<(), Refusal> {
        let (gone, new) = between(from, to)?;
        // What is gone was displaced by others. What of it this write has not replaced, its tree shows still:
        // it goes here too, of nodes by making anew all that is on the way to their first range.
        self.replaced.sort()?;
        self.omitted.sort()?;
        self.made.sort()?;
        let mut visit = Vec::new();
        reserve(&mut visit, gone.nodes.len() + gone.ranges.len())?;
        let nodes = gone.nodes.iter().filter(|node| !self.replaced.take_out(node.node()));
        visit.extend(nodes.map(|node| Slot::of_place(node.start())));
        visit.extend(gone.ranges.iter().filter(|slot| !self.omitted.take_out(slot.entry())));
        visit.sort_unstable_by_key(Slot::start);
        for node in &new.nodes {
            self.replaced.push(node.node())?;
        }
        let mut add = Vec::new();
        reserve(&mut add, new.ranges.len())?;
        for slot in &new.ranges {
            // What is removed already is left out, as in any leaf that is rewritten.
            match to.is_removed(slot) {
                true => self.omitted.push(slot.entry())?,
                false => add.push(*slot),
            }
        }
        self.apply(Change { add: &add, visit: &visit }).map_err(|refusal| match refusal {
            // To them it was the batch that is in the way; but they came first.
            Refusal::Overlap { added, existing } => {
                Refusal::Overlap { added: existing, existing: added }
            }
            refusal => refusal,
        })?;
        for node in &gone.nodes {
            self.replaced.take_out(node.node());
        }
        self.discard_unmade();
        Ok(())
    }
}

/// Pointers that can be taken out again: of many, each in O(log n) once they are sorted.
pub(super) struct Listed<P> {
    /// Room for a write that touches one node of each height.
    new: SmallVec<[P; 4]>,
    /// With whether it is still there.
    sorted: Vec<(P, bool)>,
}

impl<P: Copy + Ord> Listed<P> {
    /// So many are searched as they are.
    const FEW: usize = 256;

    pub(super) fn new() -> Self {
        Self { new: SmallVec::new(), sorted: Vec::new() }
    }

    pub(super) fn push(&mut self, pointer: P) -> Result<(), OutOfMemory> {
        push(&mut self.new, pointer)
    }

    fn sort(&mut self) -> Result<(), OutOfMemory> {
        if self.new.len() > Self::FEW {
            self.sorted.retain(|(_, is_there)| *is_there);
            reserve(&mut self.sorted, self.new.len())?;
            self.sorted.extend(self.new.drain(..).map(|pointer| (pointer, true)));
            self.sorted.sort_unstable();
        }
        Ok(())
    }

    /// Takes a pointer out; says whether it was there.
    pub(super) fn take_out(&mut self, pointer: P) -> bool {
        if let Some(at) = self.new.iter().position(|new| *new == pointer) {
            self.new.swap_remove(at);
            return true;
        }
        match self.sorted.binary_search_by_key(&pointer, |(pointer, _)| *pointer) {
            Ok(at) => core::mem::replace(&mut self.sorted[at].1, false),
            Err(_) => false,
        }
    }

    pub(super) fn clear(&mut self) {
        self.new.clear();
        self.sorted.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = P> {
        let sorted = self.sorted.iter().filter(|(_, is_there)| *is_there);
        self.new.iter().copied().chain(sorted.map(|(pointer, _)| *pointer))
    }
}

fn reserve<V>(list: &mut Vec<V>, more: usize) -> Result<(), OutOfMemory> {
    list.try_reserve(more).map_err(|_| OutOfMemory::of::<V>(list.len() + more))
}
