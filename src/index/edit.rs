#![expect(unsafe_code, reason = "unlinks nodes and counts entries for the chain")]
//! From one version's tree to the next: a write copies the nodes on its way, and no others.
//!
//! A batch goes down the tree as one sorted list, split at the starts of the nodes, so it is one
//! pass however many ranges it has. What becomes too large is cut, if possible at a gap of the
//! address space, so that a node's span is as even as its ranges let it be; what becomes too small
//! is joined with a neighbour.
//!
//! Nothing is changed by building: what is made is freed again if the version is not linked, and
//! what is replaced is only listed, for the version that displaces it.

use super::Refusal;
use super::cut::{best_cut, is_torn};
use super::entry::{Entry, Item};
use super::leftovers::Leftovers;
use super::node::{Node, fewest_slots, most_slots};
use super::overlap::{check_apart, refuse_overlap};
use super::shared::{Block, Shared};
use super::slot::{Slot, Slots};
use super::spares::Spares;
use super::tree::Tree;
use crate::sync::{NODE_SLOTS, SmallVec};

/// What a write does. Both lists are sorted by start and hold no empty range.
pub(crate) struct Change<'c, T> {
    pub(crate) add: &'c [Item<T>],
    pub(crate) remove: &'c [Item<T>],
    /// Whether buried entries are looked for and left out, wherever they are.
    pub(crate) tidy: bool,
}

/// A write under way.
pub(crate) struct Edit<'t, T> {
    old: &'t Tree<T>,
    spares: &'t Spares,
    tidy: bool,
    /// The new tree, when it is made; its size in bytes all the while.
    pub(crate) tree: Tree<T>,
    /// What the old tree has that the new one lacks.
    pub(crate) leftovers: Box<Leftovers<T>>,
    pub(crate) made: Made<T>,
}

/// What was made for a version; freed again, unless it is kept.
pub(crate) struct Made<T> {
    /// Room for a write that touches one node of each height.
    nodes: SmallVec<[*mut Node<T>; 4]>,
    /// Entries that were counted for the chain.
    entries: SmallVec<[*mut Block<Entry<T>>; 1]>,
}

/// The slots of one node to be, before it is known whether they fit one. Room for a full node, and
/// some: a larger list is a batch's.
type List<T> = SmallVec<[Slot<T>; NODE_SLOTS + 8]>;

/// A part of a change: what falls to one node.
struct Part<'c, T> {
    add: &'c [Item<T>],
    remove: &'c [Item<T>],
}

impl<T> Clone for Part<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Part<'_, T> {}

impl<'c, T> Part<'c, T> {
    const NONE: Self = Self { add: &[], remove: &[] };

    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Takes off what starts before `bound` (all of it, if there is none).
    fn take_below(&mut self, bound: Option<Slot<T>>) -> Self {
        let Some(bound) = bound else { return core::mem::replace(self, Self::NONE) };
        let below = |items: &[Item<T>]| items.partition_point(|i| i.range.start() < bound.start());
        let (add, remove);
        (add, self.add) = self.add.split_at(below(self.add));
        (remove, self.remove) = self.remove.split_at(below(self.remove));
        Self { add, remove }
    }
}

impl<T> Made<T> {
    /// The version is linked: what was made belongs to the chain.
    pub(crate) fn keep(&mut self) {
        self.nodes.clear();
        self.entries.clear();
    }
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        for node in self.nodes.drain(..) {
            // SAFETY: (`Node::discard`) 1. made here, and never linked.
            unsafe { Node::discard(node, None) };
        }
        for entry in self.entries.drain(..) {
            // SAFETY: (`Shared::from_raw`) 1. counted in `Edit::make_tree`, and not handed over.
            drop(unsafe { Shared::from_raw(entry) });
        }
    }
}

fn slot_of<T>(item: &Item<T>) -> Slot<T> {
    Slot::of_entry(item.range.start(), item.range.end(), item.entry.as_raw())
}

fn push<T>(list: &mut List<T>, slot: Slot<T>) -> Result<(), Refusal> {
    list.try_reserve(1).map_err(|_| Refusal::OutOfMemory)?;
    list.push(slot);
    Ok(())
}

fn append<T>(list: &mut List<T>, slots: Slots<'_, T>) -> Result<(), Refusal> {
    list.try_reserve(slots.len()).map_err(|_| Refusal::OutOfMemory)?;
    list.extend(slots.iter());
    Ok(())
}

impl<'t, T> Edit<'t, T> {
    /// A write to the map that shows `old`.
    #[inline(always)] // made where it is to stay
    pub(crate) fn new(old: &'t Tree<T>, spares: &'t Spares, leftovers: Box<Leftovers<T>>) -> Self {
        let tree = Tree { bytes: old.bytes, ..Tree::empty() };
        let made = Made { nodes: SmallVec::new(), entries: SmallVec::new() };
        Self { old, spares, tidy: false, tree, leftovers, made }
    }

    /// Makes `tree`, the one after `change`; what it replaces is listed in `leftovers`, and what was
    /// made for it in `made`. Once only.
    ///
    /// O(k log n + slots of the nodes on the way) for k ranges.
    pub(crate) fn make_tree(&mut self, change: &Change<'_, T>) -> Result<(), Refusal> {
        let Change { add, remove, tidy } = *change;
        for pair in add.windows(2) {
            if let [one, other] = pair {
                refuse_overlap(other.range, one.range)?;
            }
        }
        self.tidy = tidy;
        let (root, height) = match self.splice(Part { add, remove })? {
            Some(root) => (root, self.old.height),
            None => self.apply(Part { add, remove })?,
        };
        self.made.entries.try_reserve_exact(add.len()).map_err(|_| Refusal::OutOfMemory)?;
        for item in add {
            self.made.entries.push(item.entry.clone().into_raw());
        }
        let entries = self.old.entries + add.len() - self.leftovers.entries().len();
        debug_assert!(usize::from(height) < Tree::<T>::most_levels(entries));
        (self.tree.root, self.tree.height, self.tree.entries) = (root, height, entries);
        if tidy { check_apart(&self.tree, add) } else { Ok(()) }
    }

    /// The change of one range where no node is to be cut or joined: each node on the way is copied
    /// once, with one slot more, less or other. The new root; `None`: there is more to do, and nothing
    /// was done.
    fn splice(&mut self, part: Part<'_, T>) -> Result<Option<Slot<T>>, Refusal> {
        let item = match (part.add, part.remove) {
            ([item], []) | ([], [item]) if !self.tidy => item,
            _ => return Ok(None),
        };
        let start = item.range.start();
        // The way down to the leaf.
        let mut way: SmallVec<[(Slot<T>, usize); 4]> = SmallVec::new();
        let mut slot = self.old.root;
        for _ in 0..self.old.height {
            let at = self.old.last_at_or_before(&slot, start);
            let Some(below) = self.old.below(&slot).get(at) else { return Ok(None) };
            way.try_reserve(1).map_err(|_| Refusal::OutOfMemory)?;
            way.push((slot, at));
            slot = below;
        }
        let slots = self.old.below(&slot);
        if slots.is_empty() {
            return Ok(None);
        }
        let at = self.old.last_at_or_before(&slot, start);
        let (at, gone, new) = if part.add.is_empty() {
            match slots.get(at) {
                Some(gone) if gone.entry() == item.entry.as_raw() => (at, Some(gone), None),
                _ => return Ok(None),
            }
        } else {
            let at = if start < slot.start() { 0 } else { at + 1 };
            let before = at.checked_sub(1).and_then(|before| slots.get(before));
            if let Some(before) =
                before.map(|before| before.range()).or_else(|| self.old.last_before(start))
            {
                refuse_overlap(item.range, before)?;
            }
            let behind = slots.get(at).map(|behind| behind.range());
            if let Some(behind) = behind.or_else(|| self.old.first_from(start)) {
                refuse_overlap(item.range, behind)?;
            }
            (at, None, Some(slot_of(item)))
        };
        let len = slots.len() + usize::from(new.is_some()) - usize::from(gone.is_some());
        let fewest = if way.is_empty() { 1 } else { fewest_slots(0) };
        if !(fewest..=most_slots(0)).contains(&len) {
            return Ok(None);
        }
        for (above, _) in &way {
            self.replace(above)?;
        }
        self.replace(&slot)?;
        if let Some(gone) = gone {
            self.leftovers.add_entry(gone.entry()).ok_or(Refusal::OutOfMemory)?;
        }
        // And up again.
        self.made.nodes.try_reserve(1 + way.len()).map_err(|_| Refusal::OutOfMemory)?;
        let old = usize::from(gone.is_some());
        // SAFETY: (`Node::spliced`) 1. a leaf of the old tree, which is alive.
        let made = unsafe { Node::spliced(&slot, at, old, new, 0, self.spares) };
        let mut node = self.made(made)?;
        for ((above, at), height) in way.iter().rev().zip(1..) {
            // SAFETY: (`Node::spliced`) 1. a node of the old tree, which is alive, at that height.
            let made = unsafe { Node::spliced(above, *at, 1, Some(node), height, self.spares) };
            node = self.made(made)?;
        }
        Ok(Some(node))
    }

    /// Makes the change, whatever it takes; the new root, and its height.
    fn apply(&mut self, part: Part<'_, T>) -> Result<(Slot<T>, u8), Refusal> {
        let mut height = self.old.height;
        let mut list = List::new();
        self.rewrite(&self.old.root, height, part, &mut list)?;
        loop {
            if height > 0 && list.len() == 1 {
                // The root has one node below: that is the root.
                let root = list[0];
                list.clear();
                height -= 1;
                append(&mut list, self.old.below(&root))?;
                if height == 0 || list.len() > 1 {
                    return Ok((root, height));
                }
                self.replace_or_unmake(&root)?;
                continue;
            }
            if list.is_empty() {
                return Ok((Slot::nothing(), 0));
            }
            if list.len() <= most_slots(height) {
                return Ok((self.make(&list, height)?, height));
            }
            let mut above = List::new();
            self.cut(&list, height, &mut above)?;
            list = above;
            height += 1;
        }
    }

    /// What the node at `slot` is to hold after `part`, appended to `out`; the node is replaced.
    fn rewrite(
        &mut self,
        slot: &Slot<T>,
        height: u8,
        part: Part<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let slots = self.old.below(slot);
        if !slot.is_nothing() {
            self.replace(slot)?;
        }
        if height == 0 {
            self.merge(slots, part, out)
        } else {
            self.descend(slots, height, part, out)
        }
    }

    /// Merges a leaf's slots with what is added, without what is removed.
    fn merge(
        &mut self,
        slots: Slots<'_, T>,
        part: Part<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let first = out.len();
        out.try_reserve(slots.len() + part.add.len()).map_err(|_| Refusal::OutOfMemory)?;
        let Part { mut add, mut remove } = part;
        let mut rest = slots;
        loop {
            let start = |items: &[Item<T>]| items.first().map(|item| item.range.start());
            let (adds, removes) = (start(add), start(remove));
            let at = [adds, removes].into_iter().flatten().min();
            let (before, behind) = rest.split_at(match at {
                Some(at) => rest.rank(at, false),
                None => rest.len(),
            });
            self.retain(before, first, out)?;
            rest = behind;
            match (add, remove) {
                (_, [item, others @ ..]) if removes == at => {
                    remove = others;
                    if let Some((slot, behind)) = rest.split_first()
                        && slot.entry() == item.entry.as_raw()
                    {
                        self.leftovers.add_entry(slot.entry()).ok_or(Refusal::OutOfMemory)?;
                        rest = behind;
                    }
                }
                ([item, others @ ..], _) => {
                    add = others;
                    if let Some(last) = out[first..].last() {
                        refuse_overlap(item.range, last.range())?;
                    }
                    out.push(slot_of(item));
                }
                _ => break,
            }
        }
        // The ranges of other leaves stand beside the first and the last of this one. (Where some are
        // left out on the way, what stands there is known in the end only.)
        if let (Some(least), Some(most), false) = (part.add.first(), part.add.last(), self.tidy) {
            let is_first = out.get(first).is_some_and(|slot| slot.start() == least.range.start());
            if let (true, Some(before)) = (is_first, self.old.last_before(least.range.start())) {
                refuse_overlap(least.range, before)?;
            }
            let is_last = out.last().is_some_and(|slot| slot.start() == most.range.start());
            if let (true, Some(behind)) = (is_last, self.old.first_from(most.range.start())) {
                refuse_overlap(most.range, behind)?;
            }
        }
        Ok(())
    }

    /// Appends a run of a leaf's slots to what `out` holds from `first` on, but for buried ones.
    fn retain(
        &mut self,
        run: Slots<'_, T>,
        first: usize,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let from = out.len();
        if self.tidy {
            for slot in run.iter() {
                if self.old.found(&slot).is_some_and(|found| found.entry.is_buried()) {
                    self.leftovers.add_entry(slot.entry()).ok_or(Refusal::OutOfMemory)?;
                } else {
                    push(out, slot)?;
                }
            }
        } else {
            append(out, run)?;
        }
        if let [.., last, kept] = out.get(first..=from).unwrap_or(&[]) {
            refuse_overlap(last.range(), kept.range())?;
        }
        Ok(())
    }

    /// Rewrites those nodes below that have a share in the change.
    fn descend(
        &mut self,
        slots: Slots<'_, T>,
        height: u8,
        mut part: Part<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let below = height - 1;
        let mut rest = slots;
        while let Some((slot, behind)) = rest.split_first() {
            rest = behind;
            let share = part.take_below(rest.first());
            if share.is_empty() && !self.tidy {
                push(out, slot)?;
                continue;
            }
            let mut list = List::new();
            self.rewrite(&slot, below, share, &mut list)?;
            while !list.is_empty() && list.len() < fewest_slots(below) {
                let seam;
                if let Some((next, behind)) = rest.split_first() {
                    rest = behind;
                    let share = part.take_below(rest.first());
                    seam = list.len();
                    self.rewrite(&next, below, share, &mut list)?;
                } else if let Some(previous) = out.pop() {
                    let behind = core::mem::take(&mut list);
                    append(&mut list, self.old.below(&previous))?;
                    seam = list.len();
                    append(&mut list, Slots::Whole(&behind))?;
                    self.replace_or_unmake(&previous)?;
                } else {
                    break; // the only node below; the one above will be joined
                }
                self.mend(&mut list, seam, below)?;
            }
            self.cut(&list, below, out)?;
        }
        Ok(())
    }

    /// Joins the nodes on both sides of a seam, if one of them is too small: `list` is to be the
    /// slots of a node of that height, put together from two.
    fn mend(&mut self, list: &mut List<T>, seam: usize, height: u8) -> Result<(), Refusal> {
        let Some(below) = height.checked_sub(1) else { return Ok(()) };
        let Some([left, right]) = seam.checked_sub(1).and_then(|left| list.get(left..=seam)) else {
            return Ok(());
        };
        let (left, right) = (*left, *right);
        if left.guide().len().min(right.guide().len()) >= fewest_slots(below) {
            return Ok(());
        }
        let mut joined = List::new();
        append(&mut joined, self.old.below(&left))?;
        let inner_seam = joined.len();
        append(&mut joined, self.old.below(&right))?;
        self.replace_or_unmake(&left)?;
        self.replace_or_unmake(&right)?;
        self.mend(&mut joined, inner_seam, below)?;
        let mut mended = List::new();
        append(&mut mended, Slots::Whole(&list[..seam - 1]))?;
        self.cut(&joined, below, &mut mended)?;
        append(&mut mended, Slots::Whole(&list[seam + 1..]))?;
        *list = mended;
        Ok(())
    }

    /// Makes nodes of these slots, as few as fit and the cuts allow, and appends them to `out`.
    fn cut(&mut self, slots: &[Slot<T>], height: u8, out: &mut List<T>) -> Result<(), Refusal> {
        if slots.is_empty() {
            return Ok(());
        }
        if slots.len() <= most_slots(height) {
            let node = self.make(slots, height)?;
            return push(out, node);
        }
        self.divide(slots, height, out)
    }

    /// Makes several nodes of these slots. Where there are several anyway, one more is better than
    /// one whose slots are clusters far from each other: its table would be of no use.
    fn divide(&mut self, slots: &[Slot<T>], height: u8, out: &mut List<T>) -> Result<(), Refusal> {
        let len = slots.len();
        let at = best_cut(slots);
        let both_fit = at.min(len - at) >= fewest_slots(height);
        if len > most_slots(height) || both_fit && is_torn(slots, at) {
            let (low, high) = slots.split_at(at);
            self.divide(low, height, out)?;
            return self.divide(high, height, out);
        }
        let node = self.make(slots, height)?;
        push(out, node)
    }

    fn make(&mut self, slots: &[Slot<T>], height: u8) -> Result<Slot<T>, Refusal> {
        self.made.nodes.try_reserve(1).map_err(|_| Refusal::OutOfMemory)?;
        self.made(Node::make(slots, height, self.spares))
    }

    /// Notes a node that was made, for which there is room in the list.
    fn made(&mut self, slot: Option<Slot<T>>) -> Result<Slot<T>, Refusal> {
        let slot = slot.ok_or(Refusal::OutOfMemory)?;
        self.made.nodes.push(slot.node());
        self.tree.bytes += Node::<T>::bytes(slot.guide());
        Ok(slot)
    }

    /// Lists a node of the old tree as replaced.
    fn replace(&mut self, slot: &Slot<T>) -> Result<(), Refusal> {
        self.leftovers.add_node(slot).ok_or(Refusal::OutOfMemory)?;
        self.tree.bytes -= Node::<T>::bytes(slot.guide());
        Ok(())
    }

    /// As `replace`, of a node that may have been made just now: then it is freed.
    fn replace_or_unmake(&mut self, slot: &Slot<T>) -> Result<(), Refusal> {
        let Some(made) = self.made.nodes.iter().rposition(|&made| made == slot.node()) else {
            return self.replace(slot);
        };
        self.made.nodes.swap_remove(made);
        self.tree.bytes -= Node::<T>::bytes(slot.guide());
        // SAFETY: (`Node::discard`) 1. made in this write, and no longer in any list.
        unsafe { Node::discard(slot.node(), Some(self.spares)) };
        Ok(())
    }
}
