#![expect(unsafe_code, reason = "follows the pointers of nodes that the old version keeps alive")]
//! The shortest way for one range: where no node is to be cut or joined, each node on the way is copied
//! once, with one slot more or another one, and its bucket table is carried over.

use super::Refusal;
use super::edit::{Change, Edit, push, refuse_overlap};
use super::node::{Node, most_slots};
use super::slot::Slot;
use super::tree::Tree;
use crate::sync::SmallVec;

impl<T> Edit<'_, T> {
    /// The new root, if that is all there is to do; `None`: there is more to do, and nothing was done.
    pub(super) fn splice(
        &mut self,
        old: &Tree<T>,
        change: Change<'_, T>,
    ) -> Result<Option<Slot<T>>, Refusal> {
        let ([new], []) = (change.add, change.visit) else { return Ok(None) };
        if old.root.is_nothing() {
            return Ok(None);
        }
        let start = new.start();
        // The way down to the leaf.
        let mut path: SmallVec<[(Slot<T>, usize); 4]> = SmallVec::new();
        let mut leaf = old.root;
        for _ in 0..old.height {
            let at = old.last_at_or_before(&leaf, start);
            let Some(below) = old.below(&leaf).get(at) else { return Ok(None) };
            push(&mut path, (leaf, at))?;
            leaf = below;
        }
        let slots = old.below(&leaf);
        // Where it goes: behind what starts before it, in the place of a removed range that does not.
        let at = match old.last_at_or_before(&leaf, start) {
            _ if start <= leaf.start() => 0,
            at if slots.get(at).is_some_and(|slot| slot.start() == start) => at,
            at => at + 1,
        };
        let before = at.checked_sub(1).and_then(|before| slots.get(before));
        if let Some(before) = before.or_else(|| old.last_before(start)) {
            refuse_overlap(old, new.range(), &before)?;
        }
        let mut in_its_place = None;
        let mut behind = at;
        loop {
            let next = slots.get(behind).or_else(|| old.first_from(start.max(leaf_end(&slots))));
            let Some(next) = next else { break };
            if !refuse_overlap(old, new.range(), &next)? {
                break;
            }
            if in_its_place.is_some() || behind >= slots.len() {
                return Ok(None); // several removed ranges go, or one of the next leaf
            }
            in_its_place = Some(next);
            behind += 1;
        }
        self.was_full = in_its_place.is_none() && slots.len() == most_slots(0);
        if self.was_full {
            return Ok(None);
        }
        for (above, _) in &path {
            self.replace(above)?;
        }
        self.replace(&leaf)?;
        if let Some(removed) = in_its_place {
            self.omitted.push(removed.entry())?;
            self.tree.entries -= 1;
        }
        // And up again.
        let replaced = usize::from(in_its_place.is_some());
        // SAFETY: (`Node::spliced`) 1. a leaf of the old tree, which is alive.
        let made = unsafe { Node::spliced(&leaf, at, replaced, Some(*new), 0, self.maker) };
        let mut node = self.note_made(made?)?;
        for ((above, at), height) in path.iter().rev().zip(1..) {
            // SAFETY: (`Node::spliced`) 1. a node of the old tree, which is alive, at that height.
            let made = unsafe { Node::spliced(above, *at, 1, Some(node), height, self.maker) };
            node = self.note_made(made?)?;
        }
        Ok(Some(node))
    }
}

/// Where the last of a leaf's slots starts, and one more.
fn leaf_end<T>(slots: &super::slot::Slots<'_, T>) -> usize {
    slots.last().map_or(0, |last| last.start().saturating_add(1))
}
