#![expect(unsafe_code, reason = "a block with a header and as many slots as it needs")]
//! A node of the index: sorted slots in one block of memory, immutable once it is linked.
//!
//! ```text
//! leaf (height 0)      header | (start, entry, end) … | table
//! above                header | (start, node, guide of that node) … | table
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

use super::address_range::CodeRange;
use super::entry::Entry;
use super::guide::{Guide, Splice};
use super::shared::{Block, Shared};
use super::spares::{Spares, rounded};
use crate::sync::{
    AtomicBool, AtomicUsize, LEAF_SLOTS, Liveness, NODE_SLOTS, dispose_memory, edge,
};
use core::marker::PhantomData;
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

/// What a node says of one entry, or of one node below.
#[repr(C)]
pub(crate) struct Slot<T> {
    start: usize,
    pointer: *mut (),
    /// In a leaf the end of the range; above, the guide to the node below.
    detail: usize,
    of: PhantomData<*mut Node<T>>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

impl<T> Slot<T> {
    /// A leaf's slot.
    pub(crate) fn of_entry(start: usize, end: usize, entry: *mut Block<Entry<T>>) -> Self {
        Self { start, pointer: entry.cast(), detail: end, of: PhantomData }
    }

    fn of_node(start: usize, node: *mut Node<T>, guide: Guide) -> Self {
        Self { start, pointer: node.cast(), detail: guide.bits(), of: PhantomData }
    }

    /// Stands for a tree without nodes.
    pub(crate) const fn nothing() -> Self {
        Self { start: 0, pointer: ptr::null_mut(), detail: 0, of: PhantomData }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.pointer.is_null()
    }

    /// Where the range starts; of a node, where its first one does.
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Where the range ends: of a leaf's slot.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.detail
    }

    /// The range, of a leaf's slot.
    #[inline(always)]
    pub(crate) fn range(&self) -> CodeRange {
        CodeRange::of_slot(self.start, self.detail)
    }

    /// The entry, of a leaf's slot.
    #[inline(always)]
    pub(crate) fn entry(&self) -> *mut Block<Entry<T>> {
        self.pointer.cast()
    }

    /// The node below, of a slot above the leaves.
    pub(crate) fn node(&self) -> *mut Node<T> {
        self.pointer.cast()
    }

    /// How to search the node below.
    #[inline(always)]
    pub(crate) fn guide(&self) -> Guide {
        Guide::from_bits(self.detail)
    }

    /// The slots of the node that this slot points at.
    ///
    /// # Safety
    ///
    /// 1. This is a slot of a node, not of an entry, and that node is alive throughout `'a`.
    #[inline(always)]
    pub(crate) unsafe fn slots<'a>(&self) -> &'a [Slot<T>] {
        // SAFETY: (`Node::slots_at`) 1. by 1.
        let slots = unsafe { Node::slots_at(self.node()) };
        // SAFETY: by 1. the node is alive and was made with as many slots as its guide says; nodes
        // do not change.
        unsafe { slice::from_raw_parts(slots, self.guide().len()) }
    }

    /// The table of the node that this slot points at.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`].
    #[inline(always)]
    unsafe fn table<'a>(&self) -> &'a [u8] {
        // SAFETY: (`Node::slots_at`) 1. by 1.
        let slots = unsafe { Node::slots_at(self.node()) };
        // SAFETY: by 1. the node was made with that many slots and the table behind them.
        let table = unsafe { slots.add(self.guide().len()) }.cast::<u8>();
        // SAFETY: as above: so many bytes, which do not change.
        unsafe { slice::from_raw_parts(table, self.guide().buckets()) }
    }

    /// The slot in the node below that `address` falls to: see [`Guide::find`].
    ///
    /// Signal-safe: as that is; follows a pointer.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`].
    #[inline(always)]
    pub(crate) unsafe fn find<'a>(
        &self,
        address: usize,
        mut probe: impl FnMut(*const u8),
    ) -> Option<&'a Slot<T>> {
        let guide = self.guide();
        // SAFETY: (`Slot::slots`) 1. by 1.
        let slots: &'a [Slot<T>] = unsafe { self.slots() };
        // SAFETY: (`Slot::table`) 1. by 1.
        let table: &'a [u8] = unsafe { self.table() };
        // SAFETY: by 1. it is alive.
        unsafe { &*self.node() }.life.read();
        probe(table.as_ptr().wrapping_add(guide.bucket(self.start, address)));
        guide.find(slots, table, self.start, address, |index| {
            probe(slots.as_ptr().wrapping_add(index).cast());
        })
    }
}

/// The header of a node; slots and table follow it in the same block.
#[repr(C)]
pub(crate) struct Node<T> {
    /// One for the chain, and one for every owner that points at it.
    count: AtomicUsize,
    /// Whether what the slots point at is counted for this node.
    owns: AtomicBool,
    height: u8,
    life: Liveness,
    guide: Guide,
    slots: [Slot<T>; 0],
}

impl<T> Node<T> {
    /// A node with these slots (sorted by start, not empty, at most [`most_slots`]), and the slot
    /// that points at it. `None`: there is no memory.
    ///
    /// Its one count is the chain's, and to be given back with [`Node::release`] or [`Node::discard`].
    pub(crate) fn make(slots: &[Slot<T>], height: u8, spares: &Spares) -> Option<Slot<T>> {
        Self::build([slots, &[], &[]], height, spares, |guide, slots, table| {
            guide.fill(slots, table)
        })
    }

    /// As [`Node::make`], of the slots of the node at `slot` with those in `at..at + old` replaced by
    /// `new`, if any.
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
        let (before, behind) = (slots.get(..at)?, slots.get(at + old..)?);
        let parts = [before, new.as_slice(), behind];
        Self::build(parts, height, spares, |guide, made, place| {
            let splice = Splice { at, old: slots.get(at).filter(|_| old == 1), new: new.as_ref() };
            let adapted = guide.adapt(slot.guide(), table, &splice, made, place);
            adapted.unwrap_or_else(|| guide.fill(made, place))
        })
    }

    /// Makes a node of three runs of slots, and has `fill` fill its table.
    fn build(
        runs: [&[Slot<T>]; 3],
        height: u8,
        spares: &Spares,
        fill: impl FnOnce(Guide, &[Slot<T>], &mut [u8]) -> Guide,
    ) -> Option<Slot<T>> {
        let len = runs.iter().map(|run| run.len()).sum();
        let layout = Self::layout(Guide::for_len(len))?;
        let node = spares.allocate(layout)?.cast::<Self>().as_ptr();
        // SAFETY: (`Node::slots_at`) 1. the block has that layout.
        let slots = unsafe { Self::slots_at(node) }.cast_mut();
        let mut place = slots;
        for run in runs {
            // SAFETY: fresh memory, with room for all runs, which they are not in.
            unsafe { ptr::copy_nonoverlapping(run.as_ptr(), place, run.len()) };
            // SAFETY: within the block, or at the end of the slots.
            place = unsafe { place.add(run.len()) };
        }
        // SAFETY: as many slots as were just written.
        let slots = unsafe { slice::from_raw_parts(slots, len) };
        let guide = Guide::of(slots);
        let table = place.cast::<u8>();
        // SAFETY: the layout has the table behind the slots; zeroes are bytes.
        unsafe { ptr::write_bytes(table, 0, guide.buckets()) };
        // SAFETY: as above, initialised, and nobody else has it.
        let table = unsafe { slice::from_raw_parts_mut(table, guide.buckets()) };
        let guide = fill(guide, slots, table);
        let header = Self {
            count: AtomicUsize::new(1),
            owns: AtomicBool::new(false),
            height,
            life: Liveness::new(),
            guide,
            slots: [],
        };
        // SAFETY: fresh memory, aligned by the layout, for a header.
        unsafe { node.write(header) };
        slots.first().map(|first| Slot::of_node(first.start, node, guide))
    }

    fn layout(guide: Guide) -> Option<Layout> {
        let slots = Layout::array::<Slot<T>>(guide.len()).ok()?;
        let (layout, _) = Layout::new::<Self>().extend(slots).ok()?;
        let (layout, _) = layout.extend(Layout::array::<u8>(guide.buckets()).ok()?).ok()?;
        debug_assert_eq!(layout.align(), align_of::<usize>());
        Some(rounded(layout))
    }

    /// What a node with this guide takes, in bytes.
    pub(crate) fn bytes(guide: Guide) -> usize {
        Self::layout(guide).map_or(0, |layout| layout.size())
    }

    /// The place of the slots.
    ///
    /// # Safety
    ///
    /// 1. `node` is a block that was allocated with [`Node::layout`].
    #[inline(always)]
    unsafe fn slots_at(node: *const Self) -> *const Slot<T> {
        // SAFETY: by 1. within the block; a header's size is a multiple of a slot's alignment.
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
        let slot = Slot::of_node(0, node, header.guide);
        // SAFETY: (`Slot::slots`) 1. alive, by 1.
        for slot in unsafe { slot.slots() } {
            // SAFETY: (`share_below`) 1. and 2. by 1.
            unsafe { Self::share_below(slot, header.height) };
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
        let slot = Slot::of_node(0, node, header.guide);
        // SAFETY: (`Slot::slots`) 1. alive, by 1., until its count is given back below.
        for slot in unsafe { slot.slots() } {
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
        let slot = Slot::of_node(0, node, header.guide);
        let owned = if header.owns.load(edge::count_up()) {
            // SAFETY: (`Slot::slots`) 1. nobody else has it, and it is freed below.
            unsafe { slot.slots() }
        } else {
            &[]
        };
        drop(Ending { node, rest: owned, spares });
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
        match (Self::layout(header.guide), spares) {
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
    rest: &'a [Slot<T>],
    spares: Option<&'a Spares>,
}

impl<T> Ending<'_, T> {
    fn give_back(&mut self) {
        // SAFETY: whoever made this has the node for itself, until it is freed in `Freeing::drop`.
        let height = unsafe { &*self.node }.height;
        while let [slot, rest @ ..] = self.rest {
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
