#![expect(unsafe_code, reason = "a block with a header and as many slots as it needs")]
//! A node of the index: sorted slots in one block of memory, immutable once it is linked.
//!
//! ```text
//! leaf (height 0)      header | table | (offset, length, entry) …    offsets and lengths of 32 bits
//!   that spans more    header | table | (start, entry, end) …
//! above                header | table | (start, node, guide of that node) …
//! ```
//!
//! # Who owns a node
//!
//! History is linear, so the chain of versions needs no counts to share nodes: each node (and each
//! entry) carries *one* count of the chain's, from the version that brought it until the version
//! that lacks it has displaced all that show it. Writers copy slots without touching what they
//! point at.
//!
//! Owned snapshots are what breaks the line: one holds its version for as long as it likes. When the
//! chain lets go of a version or a node that something else still counts, it first makes it an
//! *owner*: everything it points at gets a count, given back when it is freed. So a snapshot is
//! taken in constant time, keeps what it shows and nothing else, and costs a count per slot of the
//! nodes that were replaced while it was held, never more.

use super::guide::{Guide, MOST_BUCKETS, Splice};
use super::shared::Shared;
use super::slot::{Packed, Slot, Slots};
use super::spares::{self, Spares, rounded};
use crate::sync::{
    AtomicBool, AtomicUsize, LEAF_SLOTS, Liveness, NODE_SLOTS, SmallVec, dispose_memory, edge,
};
use core::mem::MaybeUninit;
use core::ptr;
use core::slice;
use std::alloc::Layout;

/// The most slots of a leaf, and of a node above.
///
/// A write copies one node of each height: larger nodes make flatter trees (fewer cache lines per
/// lookup) and dearer writes.
pub(crate) const fn most_slots(height: u8) -> usize {
    if height == 0 { LEAF_SLOTS } else { NODE_SLOTS }
}

/// A node with fewer slots is joined with a neighbour.
pub(crate) const fn fewest_slots(height: u8) -> usize {
    most_slots(height) / 4
}

/// What the slots of a node take, in bytes.
#[inline(always)]
const fn slots_bytes<T>(guide: Guide) -> usize {
    let size = if guide.is_packed() { size_of::<Packed<T>>() } else { size_of::<Slot<T>>() };
    guide.len().wrapping_mul(size)
}

/// The header of a node; table and slots follow it in the same block.
#[repr(C)]
pub(crate) struct Node<T> {
    /// One for the chain, and one for every owner that points at it.
    count: AtomicUsize,
    /// Whether what the slots point at is counted for this node.
    owns: AtomicBool,
    height: u8,
    pub(super) life: Liveness,
    /// As [`Guide::short`] has it.
    guide: u32,
    slots: [Slot<T>; 0],
}

impl<T> Node<T> {
    /// A node with these slots (sorted by start, not empty, at most [`most_slots`]), and the slot
    /// that points at it. `None`: there is no memory.
    ///
    /// Its one count is the chain's, and to be given back with [`Node::release`] or [`Node::discard`].
    pub(crate) fn make(slots: &[Slot<T>], height: u8, spares: &Spares) -> Option<Slot<T>> {
        let [first, ..] = slots else { return None };
        let base = first.start();
        let distance = |index: usize| slots.get(index).map_or(0, |slot| slot.start() - base);
        // (Not the last one only: where a write that tidies joined leaves, what was added may reach into
        // the next one, which is found out and refused in the end.)
        let is_packed = height == 0 && slots.iter().all(|slot| Packed::<T>::fits(base, slot.end()));
        let guide = Guide::of(slots.len(), height, is_packed, distance);
        let fill = |table: &mut [_]| guide.fill(distance, table);
        if is_packed {
            let packed: SmallVec<[Packed<T>; LEAF_SLOTS]> =
                slots.iter().map(|slot| Packed::new(slot, base)).collect();
            // SAFETY: (`Node::build`) 1. packed, and as many as the guide says; 2. `Guide::fill` does.
            unsafe { Self::build(base, guide, height, spares, [&packed, &[], &[]], fill) }
        } else {
            // SAFETY: (`Node::build`) 1. not packed, and as many as the guide says; 2. `Guide::fill` does.
            unsafe { Self::build(base, guide, height, spares, [slots, &[], &[]], fill) }
        }
    }

    /// As [`Node::make`], of the slots of the node at `slot` with those in `at..at + old` replaced by
    /// `new`, if any; `old` is none or one.
    ///
    /// # Safety
    ///
    /// 1. `slot` points at a node of that height that is alive.
    pub(crate) unsafe fn spliced(
        slot: &Slot<T>,
        at: usize,
        old: usize,
        new: Option<Slot<T>>,
        height: u8,
        spares: &Spares,
    ) -> Option<Slot<T>> {
        // SAFETY: (`Slot::slots`) 1. by 1.
        let slots = unsafe { slot.slots() };
        // SAFETY: (`Slot::table`) 1. by 1.
        let table = unsafe { slot.table() };
        let base = slot.start();
        let len = slots.len() + usize::from(new.is_some()) - old;
        let gone = slots.get(at).filter(|_| old == 1);
        let splice = Splice {
            at,
            old: gone.map(|gone| gone.start() - base),
            new: new.map(|new| new.start().wrapping_sub(base)),
        };
        let last = if at + old < slots.len() {
            slots.last()
        } else {
            new.or(slots.get(at.wrapping_sub(1)))
        };
        let last = last?;
        let span = last.start().wrapping_sub(base);
        let keeps_form =
            height != 0 || slot.guide().is_packed() == Packed::<T>::fits(base, last.end());
        let distance = |index| slots.get(index).map_or(0, |slot| slot.start() - base);
        let guide = slot.guide().spliced(table, distance, &splice, len, height, span);
        let guide = guide.filter(|_| keeps_form);
        let Some(guide) = guide else {
            // It starts elsewhere, or is to be searched in another way: it is made anew.
            let (before, behind) = (slots.split_at(at).0, slots.split_at(at + old).1);
            let mut all: SmallVec<[Slot<T>; NODE_SLOTS]> = SmallVec::new();
            all.try_reserve(len).ok()?;
            all.extend(before.iter().chain(new).chain(behind.iter()));
            return Self::make(&all, height, spares);
        };
        let fill = |place: &mut [_]| guide.refill(table, &splice, place);
        match slots {
            Slots::Whole(slots) => {
                let parts = [slots.get(..at)?, new.as_slice(), slots.get(at + old..)?];
                // SAFETY: (`Node::build`) 1. not packed, and as many as the guide says; 2. `Guide::refill`
                // does.
                unsafe { Self::build(base, guide, height, spares, parts, fill) }
            }
            Slots::Packed { slots, .. } => {
                let new = new.map(|new| Packed::new(&new, base));
                let parts = [slots.get(..at)?, new.as_slice(), slots.get(at + old..)?];
                // SAFETY: (`Node::build`) 1. packed, and as many as the guide says; 2. `Guide::refill`
                // does.
                unsafe { Self::build(base, guide, height, spares, parts, fill) }
            }
        }
    }

    /// Makes a node that starts at `base`, of three runs of slots, and has `fill` fill its table.
    ///
    /// # Safety
    ///
    /// 1. The runs have as many slots as the guide says: [`Packed`] if it says so, otherwise
    ///    [`Slot`].
    /// 2. `fill` writes all of the table.
    unsafe fn build<S: Copy>(
        base: usize,
        guide: Guide,
        height: u8,
        spares: &Spares,
        runs: [&[S]; 3],
        fill: impl FnOnce(&mut [MaybeUninit<u8>]),
    ) -> Option<Slot<T>> {
        const {
            let largest = size_of::<Self>() + MOST_BUCKETS + NODE_SLOTS * size_of::<Slot<T>>();
            assert!(largest <= spares::LARGEST, "memory of all sizes of nodes is kept");
        }
        debug_assert_eq!(runs.iter().map(|run| run.len()).sum::<usize>(), guide.len());
        debug_assert_eq!(guide.len() * size_of::<S>(), slots_bytes::<T>(guide));
        let layout = Self::layout(guide)?;
        let node = spares.allocate(layout)?.cast::<Self>().as_ptr();
        // SAFETY: (`Node::table_at`) 1. the block has that layout.
        let table = unsafe { Self::table_at(node) }.cast_mut();
        // SAFETY: within the block, and nobody else has it; it need not be initialised.
        fill(unsafe { slice::from_raw_parts_mut(table.cast(), guide.buckets()) });
        // SAFETY: within the block: the layout has the slots behind the table. A table's size is a power
        // of two and larger than a word's, or nothing, so they are aligned.
        let mut place = unsafe { table.add(guide.buckets()) }.cast::<S>();
        for run in runs {
            // SAFETY: fresh memory, by 1. with room for all runs, which they are not in.
            unsafe { ptr::copy_nonoverlapping(run.as_ptr(), place, run.len()) };
            // SAFETY: within the block, or at the end of the slots.
            place = unsafe { place.add(run.len()) };
        }
        let header = Self {
            count: AtomicUsize::new(1),
            owns: AtomicBool::new(false),
            height,
            life: Liveness::new(),
            guide: guide.short(),
            slots: [],
        };
        // SAFETY: fresh memory, aligned by the layout, for a header.
        unsafe { node.write(header) };
        Some(Slot::of_node(base, node, guide))
    }

    fn layout(guide: Guide) -> Option<Layout> {
        let own = size_of::<Self>() + slots_bytes::<T>(guide) + guide.buckets();
        Layout::from_size_align(own, align_of::<Self>()).ok().map(rounded)
    }

    /// What a node with this guide takes, in bytes.
    pub(crate) fn bytes(guide: Guide) -> usize {
        Self::layout(guide).map_or(0, |layout| layout.size())
    }

    /// The place of the table.
    ///
    /// # Safety
    ///
    /// 1. `node` is a block that was allocated with [`Node::layout`].
    #[inline(always)]
    pub(super) unsafe fn table_at(node: *const Self) -> *const u8 {
        // SAFETY: by 1. within the block.
        unsafe { node.add(1) }.cast()
    }

    /// Makes the node an owner, if something beside the chain counts it.
    ///
    /// # Safety
    ///
    /// 1. `node` carries the chain's count, which is the caller's to give away, and so does
    ///    everything it points at.
    pub(crate) unsafe fn own_if_shared(node: *mut Self) {
        // SAFETY: by 1. it is alive.
        let header = unsafe { &*node };
        // Ordering [count_up]: Relaxed; whoever counts is an owner that points here, made by the
        // chain before this, or nobody. A count that goes down meanwhile only makes this needless.
        if header.count.load(edge::count_up()) == 1 || header.owns.load(edge::count_up()) {
            return;
        }
        let slot = Slot::of_node(0, node, Guide::from_short(header.guide));
        // SAFETY: (`Slot::slots`) 1. alive, by 1.
        for slot in unsafe { slot.slots() }.iter() {
            // SAFETY: (`share_below`) 1. and 2. by 1.
            unsafe { Self::share_below(&slot, header.height) };
        }
        // Ordering [count_up]: Relaxed; [count_down] of the chain's own count follows it.
        header.owns.store(true, edge::count_up());
    }

    /// Counts what a slot points at.
    ///
    /// # Safety
    ///
    /// 1. `slot` is one of a node of that height.
    /// 2. What it points at is counted by something else during the call.
    unsafe fn share_below(slot: &Slot<T>, height: u8) {
        if height == 0 {
            // SAFETY: (`Shared::share_raw`) 1. by 1. and 2.
            let entry = unsafe { Shared::share_raw(slot.entry()) };
            entry.into_raw();
        } else {
            // SAFETY: (`Node::share`) 1. by 1. and 2.
            unsafe { Self::share(slot.node()) };
        }
    }

    /// Counts a node.
    ///
    /// # Safety
    ///
    /// 1. `node` is a node's address, and counted by something else during the call.
    pub(crate) unsafe fn share(node: *mut Self) {
        // SAFETY: by 1. it is alive.
        let header = unsafe { &*node };
        // Ordering [count_up]: Relaxed; as in `Shared::clone`. (At most one count for each owner,
        // and owners are objects in memory: it cannot wrap.)
        header.count.fetch_add(1, edge::count_up());
    }

    /// Gives back the chain's count of a node and of everything below it.
    ///
    /// # Safety
    ///
    /// 1. They are the caller's to give away, once.
    pub(crate) unsafe fn retire_all(node: *mut Self) {
        // SAFETY: (`Node::own_if_shared`) 1. by 1.
        unsafe { Self::own_if_shared(node) };
        // SAFETY: by 1. it is alive.
        let header = unsafe { &*node };
        let slot = Slot::of_node(0, node, Guide::from_short(header.guide));
        // SAFETY: (`Slot::slots`) 1. alive, by 1., until its count is given back below.
        for slot in unsafe { slot.slots() }.iter() {
            if header.height == 0 {
                // SAFETY: (`Shared::from_raw`) 1. the chain's count, by 1.
                drop(unsafe { Shared::from_raw(slot.entry()) });
            } else {
                // SAFETY: (`Node::retire_all`) 1. by 1.
                unsafe { Self::retire_all(slot.node()) };
            }
        }
        // SAFETY: (`Node::release`) 1. by 1.
        unsafe { Self::release(node, None) };
    }

    /// Gives back one count; the last one frees the node, with the counts that it owns. Its memory
    /// goes to `spares`, if there are any.
    ///
    /// # Safety
    ///
    /// 1. The count is the caller's to give away.
    pub(crate) unsafe fn release(node: *mut Self, spares: Option<&Spares>) {
        // SAFETY: by 1. it is alive.
        let header = unsafe { &*node };
        // Ordering [count_down]: Release; pairs with the fence [count_last], as in `Shared::drop`.
        if header.count.fetch_sub(1, edge::count_down()) != 1 {
            return;
        }
        edge::count_last();
        let slot = Slot::of_node(0, node, Guide::from_short(header.guide));
        let owned = if header.owns.load(edge::count_up()) {
            // SAFETY: (`Slot::slots`) 1. nobody else has it, and it is freed below.
            unsafe { slot.slots() }
        } else {
            Slots::NONE
        };
        // (Dropped where it is: what `drop` is given must stay valid until it returns, and the slots
        // do not.)
        let _ending = Ending { node, rest: owned, spares };
    }

    /// Frees a node that nobody else has, and nothing that it points at.
    ///
    /// # Safety
    ///
    /// 1. Nobody else has it.
    pub(crate) unsafe fn discard(node: *mut Self, spares: Option<&Spares>) {
        // SAFETY: by 1. alive.
        let header = unsafe { &*node };
        header.life.end();
        match (Self::layout(Guide::from_short(header.guide)), spares) {
            // SAFETY: (`Spares::free`) 1. by 1., allocated by `build` with that layout. A header
            // drops nothing.
            (Some(layout), Some(spares)) => unsafe { spares.free(node.cast(), layout) },
            // SAFETY: (`dispose_memory`) 1. likewise.
            (Some(layout), None) => unsafe { dispose_memory(node.cast(), layout) },
            (None, _) => {} // not reached: it was allocated
        }
    }
}

/// A node on its way out, with the counts that it owns. Values' destructors may run as these are given
/// back: if one panics, the others run all the same.
struct Ending<'a, T> {
    node: *mut Node<T>,
    rest: Slots<'a, T>,
    spares: Option<&'a Spares>,
}

impl<T> Ending<'_, T> {
    fn give_back(&mut self) {
        // SAFETY: whoever made this has the node for itself, until it is freed in `Freeing::drop`.
        let height = unsafe { &*self.node }.height;
        while let Some((slot, rest)) = self.rest.split_first() {
            self.rest = rest;
            if height == 0 {
                // SAFETY: (`Shared::from_raw`) 1. counted by `own_if_shared`.
                drop(unsafe { Shared::from_raw(slot.entry()) });
            } else {
                // SAFETY: (`Node::release`) 1. counted by `own_if_shared`.
                unsafe { Node::release(slot.node(), None) };
            }
        }
    }
}

impl<T> Drop for Ending<'_, T> {
    fn drop(&mut self) {
        /// Goes on where a panic interrupted, and frees the node in the end.
        struct Freeing<'e, 'a, T>(&'e mut Ending<'a, T>);

        impl<T> Drop for Freeing<'_, '_, T> {
            fn drop(&mut self) {
                self.0.give_back();
                // SAFETY: (`Node::discard`) 1. the last count is gone, and the last look at the slots.
                unsafe { Node::discard(self.0.node, self.0.spares) };
            }
        }

        Freeing(self).0.give_back();
    }
}
