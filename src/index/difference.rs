//! What one tree has that another one lacks, found without a look at what they share.
//!
//! Two places move through the trees in address order. What starts first is in one tree only; where both
//! point at the same node, all of it is skipped; otherwise the taller one goes down. (A node that both trees
//! have starts at its first range in both, so neither place can pass it before the other comes.)

use super::slot::{Slot, Slots};
use super::tree::Tree;
use crate::memory::OutOfMemory;
use crate::sync::SmallVec;

/// Nodes and ranges of one tree, by their slots, in address order (a node before what is below it).
pub(super) struct Side<T> {
    pub(super) nodes: Vec<Slot<T>>,
    pub(super) ranges: Vec<Slot<T>>,
}

/// A place in a tree: the slots that are left in the nodes on the way to it, each with the height of what
/// they point at (0: entries).
struct Place<'t, T> {
    tree: &'t Tree<T>,
    path: SmallVec<[(Slots<'t, T>, u8); 12]>,
    /// The root, before the place has moved.
    root: Option<Slot<T>>,
}

impl<'t, T> Place<'t, T> {
    fn before_all(tree: &'t Tree<T>) -> Self {
        let root = (!tree.root.is_nothing()).then_some(tree.root);
        Self { tree, path: SmallVec::new(), root }
    }

    /// The slot here, and the height of what it points at.
    fn here(&mut self) -> Option<(Slot<T>, u8)> {
        if let Some(root) = self.root {
            return Some((root, self.tree.height + 1));
        }
        while let Some((slots, height)) = self.path.last() {
            if let Some(slot) = slots.first() {
                return Some((slot, *height));
            }
            self.path.pop();
        }
        None
    }

    /// Moves past what is here.
    fn pass(&mut self) {
        if self.root.take().is_none()
            && let Some((slots, _)) = self.path.last_mut()
            && let Some((_, rest)) = slots.split_first()
        {
            *slots = rest;
        }
    }

    /// Moves past what is here, and notes it; into a node, not over what is below it.
    fn enter(&mut self, slot: &Slot<T>, height: u8, side: &mut Side<T>) -> Result<(), OutOfMemory> {
        self.pass();
        let list = if height == 0 { &mut side.ranges } else { &mut side.nodes };
        list.try_reserve(1).map_err(|_| OutOfMemory::of::<Slot<T>>(list.len() + 1))?;
        list.push(*slot);
        if height != 0 {
            // (There is room for the path in any tree that fits the address space.)
            self.path.push((self.tree.below(slot), height - 1));
        }
        Ok(())
    }
}

impl<T> Side<T> {
    const fn nothing() -> Self {
        Self { nodes: Vec::new(), ranges: Vec::new() }
    }
}

/// What `one` has and `other` lacks, and the other way round.
pub(super) fn between<T>(
    one: &Tree<T>,
    other: &Tree<T>,
) -> Result<(Side<T>, Side<T>), OutOfMemory> {
    let (mut gone, mut new) = (Side::nothing(), Side::nothing());
    let (mut old, mut young) = (Place::before_all(one), Place::before_all(other));
    loop {
        match (old.here(), young.here()) {
            (None, None) => return Ok((gone, new)),
            (Some((slot, height)), None) => old.enter(&slot, height, &mut gone)?,
            (None, Some((slot, height))) => young.enter(&slot, height, &mut new)?,
            (Some((a, a_height)), Some((b, b_height))) => {
                let (a_key, b_key) =
                    ((a.start(), u8::MAX - a_height), (b.start(), u8::MAX - b_height));
                if a_key == b_key && a.is_same(&b) {
                    old.pass();
                    young.pass();
                    continue;
                }
                if a_key <= b_key {
                    old.enter(&a, a_height, &mut gone)?;
                }
                if b_key <= a_key {
                    young.enter(&b, b_height, &mut new)?;
                }
            }
        }
    }
}
