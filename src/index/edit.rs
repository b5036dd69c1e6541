#![expect(unsafe_code, reason = "makes nodes, and frees those that were never published")]
//! From one version's tree to the next: a write copies the nodes on its way, and no others.
//!
//! A batch goes down the tree as one sorted list, split at the starts of the nodes, so it is one
//! pass however many ranges it has. What becomes too large is cut, if possible at a gap of the
//! address space, so that a node's span is as even as its ranges let it be; what becomes too small
//! is joined with a neighbour. Removed ranges are left out of every leaf that is rewritten here, and a
//! leaf is rewritten if a removed range in it starts inside one that is added.
//!
//! Nothing is changed by building: what is made is freed again if the version is not published,
//! and what is replaced is only listed. `splice` has the shortest way for one range.

use super::Refusal;
use super::cut::{best_cut, is_torn};
use super::entry::Entry;
use super::node::{Maker, Node, fewest_slots, most_slots};
use super::rebase::Listed;
use super::slot::{Slot, Slots};
use super::tree::Tree;
use crate::address_range::CodeRange;
use crate::memory::OutOfMemory;
use crate::sync::{NODE_SLOTS, SmallVec};

/// By these marks a write knows the nodes that it made itself: the number of the version that it begins
/// with; of a batch, a number of its own, for it finds the nodes of later versions, too. Neither is the
/// number of an era.
pub(super) const WRITE: u64 = 1 << 63;
pub(super) const BATCH: u64 = WRITE | 1 << 62;

/// What a write does. Both lists are sorted by start and hold no empty range.
pub(crate) struct Change<'c, T> {
    pub(crate) add: &'c [Slot<T>],
    /// Places to rewrite, and entries to take out there: without an entry, see [`Slot::of_place`].
    pub(crate) visit: &'c [Slot<T>],
}

impl<T> Clone for Change<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Change<'_, T> {}

impl<'c, T> Change<'c, T> {
    const NONE: Self = Self { add: &[], visit: &[] };

    pub(super) fn is_empty(&self) -> bool {
        self.add.is_empty() && self.visit.is_empty()
    }

    /// Takes off what starts before `bound` (all of it, if there is none).
    fn take_below(&mut self, bound: Option<Slot<T>>) -> Self {
        let Some(bound) = bound else { return core::mem::replace(self, Self::NONE) };
        let below = |slots: &[Slot<T>]| slots.partition_point(|slot| slot.start() < bound.start());
        let (add, visit);
        (add, self.add) = self.add.split_at(below(self.add));
        (visit, self.visit) = self.visit.split_at(below(self.visit));
        Self { add, visit }
    }
}

/// A write under way.
pub(crate) struct Edit<'f, T> {
    /// The tree so far; at first that of the version it begins with.
    pub(crate) tree: Tree<T>,
    pub(super) maker: Maker<'f>,
    /// Nodes that were made, and those of them that were replaced again. (Room for a write that touches
    /// one node of each height.)
    pub(super) made: Listed<*mut Node<T>>,
    pub(super) unmade: SmallVec<[*mut Node<T>; 4]>,
    /// Nodes and entries that the version it begins with has, and the tree lacks.
    pub(super) replaced: Listed<*mut Node<T>>,
    pub(super) omitted: Listed<*mut Entry<T>>,
    /// What was added last.
    last_added: Option<CodeRange>,
    /// Whether one range is added to a leaf that was full.
    pub(super) was_full: bool,
}

/// The slots of one node to be, before it is known whether they fit one. Room for a full node, and
/// some: a larger list is a batch's.
type List<T> = SmallVec<[Slot<T>; NODE_SLOTS + 8]>;

pub(super) fn push<V>(list: &mut SmallVec<V>, item: V::Item) -> Result<(), OutOfMemory>
where
    V: smallvec::Array,
{
    list.try_reserve(1).map_err(|_| OutOfMemory::of::<V::Item>(list.len() + 1))?;
    list.push(item);
    Ok(())
}

fn append<T>(list: &mut List<T>, slots: Slots<'_, T>) -> Result<(), OutOfMemory> {
    let len = slots.len();
    list.try_reserve(len).map_err(|_| OutOfMemory::of::<Slot<T>>(list.len() + len))?;
    match slots {
        Slots::Whole(slots) => list.extend_from_slice(slots),
        Slots::Packed { .. } => list.extend(slots.iter()),
    }
    Ok(())
}

/// Refuses what is added if a live range overlaps it.
pub(super) fn refuse_overlap<T>(
    old: &Tree<T>,
    added: CodeRange,
    slot: &Slot<T>,
) -> Result<bool, Refusal> {
    let existing = slot.range();
    if !added.overlaps(existing) {
        return Ok(false);
    }
    match old.is_removed(slot) {
        true => Ok(true),
        false => Err(Refusal::Overlap { added, existing }),
    }
}

impl<'f, T> Edit<'f, T> {
    /// A write that begins with `tree`.
    pub(crate) fn new(tree: Tree<T>, maker: Maker<'f>) -> Self {
        Self {
            tree,
            maker,
            made: Listed::new(),
            unmade: SmallVec::new(),
            replaced: Listed::new(),
            omitted: Listed::new(),
            last_added: None,
            was_full: false,
        }
    }

    /// Makes the change. After an error the edit is good for nothing but to be dropped.
    ///
    /// O(k log n + slots of the nodes on the way) for k ranges.
    pub(crate) fn apply(&mut self, change: Change<'_, T>) -> Result<(), Refusal> {
        let old = self.tree;
        for pair in change.add.windows(2) {
            if let [one, other] = pair
                && one.range().overlaps(other.range())
            {
                return Err(Refusal::Overlap { added: other.range(), existing: one.range() });
            }
        }
        self.last_added = None;
        let (root, height) = match self.splice(&old, change)? {
            Some(root) => (root, old.height),
            None => self.rewrite_tree(&old, change)?,
        };
        self.tree.entries += change.add.len();
        debug_assert!(usize::from(height) < Tree::<T>::most_levels(self.tree.entries));
        (self.tree.root, self.tree.height) = (root, height);
        Ok(())
    }

    /// The write is published: what was made belongs to the version, but what was replaced again.
    pub(crate) fn keep(&mut self) {
        self.discard_unmade();
        self.made.clear();
    }

    /// Frees what was made and is not in the tree any more.
    pub(super) fn discard_unmade(&mut self) {
        for node in self.unmade.drain(..) {
            self.made.take_out(node);
            // SAFETY: (`Node::discard`) 1. made here, in no tree, and in no other list any more.
            unsafe { Node::discard(node, self.maker.free_list) };
        }
    }

    /// The new root and its height, whatever it takes.
    fn rewrite_tree(
        &mut self,
        old: &Tree<T>,
        change: Change<'_, T>,
    ) -> Result<(Slot<T>, u8), Refusal> {
        let mut height = old.height;
        let mut list = List::new();
        self.rewrite(old, &old.root, height, change, &mut list)?;
        loop {
            if height > 0 && list.len() == 1 {
                // The root has one node below: what is in that one is what the root has. (A root is made anew
                // by each write: it carries the version.)
                let root = list[0];
                list.clear();
                height -= 1;
                append(&mut list, old.below(&root))?;
                self.replace(&root)?;
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

    /// What the node at `slot` is to hold after `change`, appended to `out`; the node is replaced.
    fn rewrite(
        &mut self,
        old: &Tree<T>,
        slot: &Slot<T>,
        height: u8,
        change: Change<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let slots = old.below(slot);
        if !slot.is_nothing() {
            self.replace(slot)?;
        }
        if height == 0 {
            self.merge(old, slots, change, out)
        } else {
            self.descend(old, slots, height, change, out)
        }
    }

    /// Merges a leaf's live slots with what is added.
    fn merge(
        &mut self,
        old: &Tree<T>,
        slots: Slots<'_, T>,
        change: Change<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let bytes = OutOfMemory::of::<Slot<T>>(out.len() + slots.len() + change.add.len());
        out.try_reserve(slots.len() + change.add.len()).map_err(|_| bytes)?;
        let Change { mut add, mut visit } = change;
        let mut rest = slots;
        // What is added may overlap the range before it: that is the last one here, or the last of another
        // leaf. (Or what was added before it, which was looked at.)
        let mut before_first = add.first().and_then(|first| old.last_before(first.start()));
        loop {
            let start = |slots: &[Slot<T>]| slots.first().map(|slot| slot.start());
            let (adds, visits) = (start(add), start(visit));
            let at = [adds, visits].into_iter().flatten().min();
            let (before, behind) = rest.split_at(match at {
                Some(at) => rest.rank(at, false),
                None => rest.len(),
            });
            self.retain(old, before, out)?;
            rest = behind;
            match (add, visit) {
                (_, [place, others @ ..]) if visits == at => {
                    visit = others;
                    if let Some((slot, behind)) = rest.split_first()
                        && Entry::is_same(slot.entry(), place.entry())
                    {
                        self.tree.entries -= 1;
                        rest = behind;
                    }
                }
                ([slot, others @ ..], _) => {
                    add = others;
                    if let Some(before) = before.last().or(before_first.take()) {
                        refuse_overlap(old, slot.range(), &before)?;
                    }
                    self.last_added = Some(slot.range());
                    out.push(*slot);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Appends a run of a leaf's slots to `out`, except those that are removed.
    fn retain(
        &mut self,
        old: &Tree<T>,
        run: Slots<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        for slot in run.iter() {
            if old.is_removed(&slot) {
                self.omitted.push(slot.entry())?;
                self.tree.entries -= 1;
            } else {
                if let Some(added) = self.last_added {
                    refuse_overlap(old, added, &slot)?;
                }
                out.push(slot); // there is room: see `merge`
            }
        }
        Ok(())
    }

    /// Rewrites those nodes below that have a share in the change, or begin inside what was added.
    fn descend(
        &mut self,
        old: &Tree<T>,
        slots: Slots<'_, T>,
        height: u8,
        mut change: Change<'_, T>,
        out: &mut List<T>,
    ) -> Result<(), Refusal> {
        let below = height - 1;
        let mut rest = slots;
        while let Some((slot, behind)) = rest.split_first() {
            rest = behind;
            let share = change.take_below(rest.first());
            let reach = self.last_added.map_or(0, |added| added.end());
            if share.is_empty() && slot.start() >= reach {
                push(out, slot)?;
                continue;
            }
            let mut list = List::new();
            self.rewrite(old, &slot, below, share, &mut list)?;
            while !list.is_empty() && list.len() < fewest_slots(below) {
                let seam;
                if let Some((next, behind)) = rest.split_first() {
                    rest = behind;
                    let share = change.take_below(rest.first());
                    let reach = self.last_added.map_or(0, |added| added.end());
                    seam = list.len();
                    if share.is_empty() && next.start() >= reach {
                        // As it is, with its tombstones: there may be next to nothing else.
                        append(&mut list, old.below(&next))?;
                        self.replace(&next)?;
                    } else {
                        self.rewrite(old, &next, below, share, &mut list)?;
                    }
                } else if let Some(previous) = out.pop() {
                    let behind = core::mem::take(&mut list);
                    append(&mut list, old.below(&previous))?;
                    seam = list.len();
                    append(&mut list, Slots::Whole(&behind))?;
                    self.replace(&previous)?;
                } else {
                    break; // the only node below; the one above will be joined
                }
                self.mend(old, &mut list, seam, below)?;
            }
            self.cut(&list, below, out)?;
        }
        Ok(())
    }

    /// Joins the nodes on both sides of a seam, if one of them is too small: `list` is to be the
    /// slots of a node of that height, put together from two.
    fn mend(
        &mut self,
        old: &Tree<T>,
        list: &mut List<T>,
        seam: usize,
        height: u8,
    ) -> Result<(), Refusal> {
        let Some(below) = height.checked_sub(1) else { return Ok(()) };
        let Some([left, right]) = seam.checked_sub(1).and_then(|left| list.get(left..=seam)) else {
            return Ok(());
        };
        let (left, right) = (*left, *right);
        if left.plan().len().min(right.plan().len()) >= fewest_slots(below) {
            return Ok(());
        }
        let mut joined = List::new();
        append(&mut joined, old.below(&left))?;
        let deeper_seam = joined.len();
        append(&mut joined, old.below(&right))?;
        self.replace(&left)?;
        self.replace(&right)?;
        self.mend(old, &mut joined, deeper_seam, below)?;
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
        // A leaf that was full gets room, or the next few ranges would each rewrite it.
        let most = most_slots(height);
        let most = if height == 0 && self.was_full { most - most / 4 } else { most };
        if slots.len() <= most {
            let node = self.make(slots, height)?;
            return Ok(push(out, node)?);
        }
        self.divide(slots, height, out)
    }

    /// Makes several nodes of these slots. Where there are several anyway, one more is better than
    /// one whose slots are clusters far from each other: its table would be of no use.
    fn divide(&mut self, slots: &[Slot<T>], height: u8, out: &mut List<T>) -> Result<(), Refusal> {
        let len = slots.len();
        let at = best_cut(slots);
        let both_fit = at.min(len - at) >= fewest_slots(height);
        let is_divided = self.was_full && height == 0 && len > most_slots(0) - most_slots(0) / 4;
        if len > most_slots(height) || both_fit && (is_divided || is_torn(slots, at)) {
            let (low, high) = slots.split_at(at);
            self.divide(low, height, out)?;
            return self.divide(high, height, out);
        }
        let node = self.make(slots, height)?;
        Ok(push(out, node)?)
    }

    fn make(&mut self, slots: &[Slot<T>], height: u8) -> Result<Slot<T>, Refusal> {
        self.note_made(Node::make(slots, height, self.maker)?)
    }

    /// Notes a node that was made.
    pub(super) fn note_made(&mut self, slot: Slot<T>) -> Result<Slot<T>, Refusal> {
        if let Err(error) = self.made.push(slot.node()) {
            // SAFETY: (`Node::discard`) 1. made just now.
            unsafe { Node::discard(slot.node(), self.maker.free_list) };
            return Err(error.into());
        }
        self.tree.bytes += Node::<T>::bytes(slot.plan());
        Ok(slot)
    }

    /// Notes that a node is not in the tree any more.
    pub(super) fn replace(&mut self, slot: &Slot<T>) -> Result<(), Refusal> {
        self.tree.bytes -= Node::<T>::bytes(slot.plan());
        // SAFETY: (`Node::has_mark`) 1. of the tree, or made here.
        match unsafe { Node::has_mark(slot.node(), self.maker.mark) } {
            true => Ok(push(&mut self.unmade, slot.node())?),
            false => Ok(self.replaced.push(slot.node())?),
        }
    }
}

impl<T> Drop for Edit<'_, T> {
    fn drop(&mut self) {
        for node in self.made.iter() {
            // SAFETY: (`Node::discard`) 1. made here, and never published.
            unsafe { Node::discard(node, self.maker.free_list) };
        }
    }
}
