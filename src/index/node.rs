#![expect(unsafe_code, reason = "a block with a header and as many slots as it needs")]
//! A node of the index: sorted slots in one block of memory, immutable once it is linked.
//!
//! ```text
//! leaf (height 0)      header | table | (offset, length, entry) …    offsets and lengths of 32 bits
//!   that spans more    header | table | (start, entry, end) …
//! above                header | table | (start, node, plan of that node) …
//! ```
//!
//! The header of a root has the version that it is the root of.
//!
//! A node belongs to the versions that show it, and to no snapshot: the write that displaces the last of
//! these versions retires it. So nodes are shared without counts.

use super::free_list::{self, FreeList, rounded};
use super::limbo::{Garbage, Kind};
use super::search_plan::{MOST_BUCKETS, SearchPlan, Splice};
use super::slot::{Packed, Slot, Slots};
use super::tree::Tree;
use super::version::Version;
use crate::memory::OutOfMemory;
use crate::sync::{LEAF_SLOTS, Liveness, NODE_SLOTS, SmallVec, edge};
use core::mem::{MaybeUninit, offset_of};
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
const fn slots_bytes<T>(plan: SearchPlan) -> usize {
    let size = if plan.is_packed() { size_of::<Packed<T>>() } else { size_of::<Slot<T>>() };
    plan.len().wrapping_mul(size)
}

/// The header of a node; table and slots follow it in the same block.
#[repr(C)]
pub(crate) struct Node<T> {
    pub(super) version: Version<T>,
    garbage: Garbage,
    pub(super) life: Liveness,
    slots: [Slot<T>; 0],
}

/// What nodes are made with.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'f> {
    pub(crate) free_list: &'f FreeList,
    /// The era that they are born in.
    pub(crate) born: u64,
    /// By what the write that makes them knows its own.
    pub(crate) mark: u64,
}

impl<T> Node<T> {
    /// A node with these slots (sorted by start, not empty, at most [`most_slots`]), and the slot
    /// that points at it: to be given up with [`Node::discard`].
    pub(crate) fn make(
        slots: &[Slot<T>],
        height: u8,
        maker: Maker<'_>,
    ) -> Result<Slot<T>, OutOfMemory> {
        let [first, ..] = slots else { return Ok(Slot::nothing()) };
        let base = first.start();
        let distance = |index: usize| slots.get(index).map_or(0, |slot| slot.start() - base);
        // (Not the last one only: what is removed may reach over what was added since.)
        let is_packed = height == 0 && slots.iter().all(|slot| Packed::<T>::fits(base, slot.end()));
        let plan = SearchPlan::of(slots.len(), height, is_packed, distance);
        let fill = |table: &mut [_]| plan.fill(distance, table);
        if is_packed {
            let packed: SmallVec<[Packed<T>; LEAF_SLOTS]> =
                slots.iter().map(|slot| Packed::new(slot, base)).collect();
            // SAFETY: (`Node::build`) 1. packed, and as many as the plan says; 2. `SearchPlan::fill` does.
            unsafe { Self::build(base, plan, maker, [&packed, &[], &[]], fill) }
        } else {
            // SAFETY: (`Node::build`) 1. not packed, and as many as the plan says; 2. `SearchPlan::fill` does.
            unsafe { Self::build(base, plan, maker, [slots, &[], &[]], fill) }
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
        maker: Maker<'_>,
    ) -> Result<Slot<T>, OutOfMemory> {
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
        let span = last.map_or(0, |last| last.start().wrapping_sub(base));
        let fits = height == 0 && last.is_some_and(|last| Packed::<T>::fits(base, last.end()));
        let keeps_form = height != 0 || slot.plan().is_packed() == fits;
        let distance = |index| slots.get(index).map_or(0, |slot| slot.start() - base);
        let plan = slot.plan().spliced(table, distance, &splice, len, height, span);
        let plan = plan.filter(|_| keeps_form);
        let Some(plan) = plan else {
            // It starts elsewhere, or is to be searched in another way: it is made anew.
            let (before, behind) = (slots.split_at(at).0, slots.split_at(at + old).1);
            let mut all: SmallVec<[Slot<T>; NODE_SLOTS]> = SmallVec::new();
            all.try_reserve(len).map_err(|_| OutOfMemory::of::<Slot<T>>(len))?;
            all.extend(before.iter().chain(new).chain(behind.iter()));
            return Self::make(&all, height, maker);
        };
        let fill = |place: &mut [_]| plan.refill(table, &splice, place);
        match slots {
            Slots::Whole(slots) => {
                let parts = [&slots[..at], new.as_slice(), &slots[at + old..]];
                // SAFETY: (`Node::build`) 1. not packed, and as many as the plan says; 2. `SearchPlan::refill`
                // does.
                unsafe { Self::build(base, plan, maker, parts, fill) }
            }
            Slots::Packed { slots, .. } => {
                let new = new.map(|new| Packed::new(&new, base));
                let parts = [&slots[..at], new.as_slice(), &slots[at + old..]];
                // SAFETY: (`Node::build`) 1. packed, and as many as the plan says; 2. `SearchPlan::refill`
                // does.
                unsafe { Self::build(base, plan, maker, parts, fill) }
            }
        }
    }

    /// Makes a node that starts at `base`, of three runs of slots, and has `fill` fill its table.
    ///
    /// # Safety
    ///
    /// 1. The runs have as many slots as the plan says: [`Packed`] if it says so, otherwise
    ///    [`Slot`].
    /// 2. `fill` writes all of the table.
    unsafe fn build<S: Copy>(
        base: usize,
        plan: SearchPlan,
        maker: Maker<'_>,
        runs: [&[S]; 3],
        fill: impl FnOnce(&mut [MaybeUninit<u8>]),
    ) -> Result<Slot<T>, OutOfMemory> {
        const {
            let largest = size_of::<Self>() + MOST_BUCKETS + NODE_SLOTS * size_of::<Slot<T>>();
            assert!(largest <= free_list::LARGEST, "memory of all sizes of nodes is kept");
        }
        debug_assert_eq!(runs.iter().map(|run| run.len()).sum::<usize>(), plan.len());
        debug_assert_eq!(plan.len() * size_of::<S>(), slots_bytes::<T>(plan));
        let node = maker.free_list.allocate(Self::layout(plan))?.cast::<Self>().as_ptr();
        // SAFETY: (`Node::table_at`) 1. the block has that layout.
        let table = unsafe { Self::table_at(node) }.cast_mut();
        // SAFETY: within the block, and nobody else has it; it need not be initialised.
        fill(unsafe { slice::from_raw_parts_mut(table.cast(), plan.buckets()) });
        // SAFETY: within the block: the layout has the slots behind the table. A table's size is a power
        // of two and larger than a word's, or nothing, so they are aligned.
        let mut place = unsafe { table.add(plan.buckets()) }.cast::<S>();
        for run in runs {
            // SAFETY: fresh memory, by 1. with room for all runs, which they are not in.
            unsafe { ptr::copy_nonoverlapping(run.as_ptr(), place, run.len()) };
            // SAFETY: within the block, or at the end of the slots.
            place = unsafe { place.add(run.len()) };
        }
        let garbage = Garbage::new(Kind::Node, maker.born, maker.mark);
        let slot = Slot::of_node(base, node, plan);
        let version = Version { tree: Tree { root: slot, ..Tree::empty() }, sequence: 0 };
        // SAFETY: fresh memory, aligned by the layout, for a header.
        unsafe { node.write(Self { version, garbage, life: Liveness::new(), slots: [] }) };
        Ok(slot)
    }

    fn layout(plan: SearchPlan) -> Layout {
        let own = size_of::<Self>() + slots_bytes::<T>(plan) + plan.buckets();
        // (A few kilobytes, so there is such a layout.)
        let layout = Layout::from_size_align(own, align_of::<Self>());
        layout.map_or(Layout::new::<Self>(), rounded)
    }

    /// What a node with this plan takes, in bytes.
    pub(crate) fn bytes(plan: SearchPlan) -> usize {
        Self::layout(plan).size()
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

    /// Its header.
    pub(crate) fn garbage(node: *mut Self) -> *mut Garbage {
        node.wrapping_byte_add(offset_of!(Self, garbage)).cast()
    }

    /// The node of a header of kind [`Kind::Node`].
    pub(crate) fn of_garbage(garbage: *mut Garbage) -> *mut Self {
        garbage.wrapping_byte_sub(offset_of!(Self, garbage)).cast()
    }

    /// Makes the root of `tree` that of a version.
    ///
    /// # Safety
    ///
    /// 1. It was made by the caller's write, and is not published.
    pub(crate) unsafe fn begin_version(tree: Tree<T>, sequence: u64) {
        // SAFETY: by 1. alive, and nobody else has it.
        unsafe { (*tree.root.node()).version = Version { tree, sequence } };
    }

    /// Whether it was made by the write with this mark.
    ///
    /// # Safety
    ///
    /// 1. It is alive.
    pub(crate) unsafe fn has_mark(node: *mut Self, mark: u64) -> bool {
        // SAFETY: by 1.
        unsafe { &*node }.garbage.mark.load(edge::statistic()) == mark
    }

    /// What it takes, in bytes.
    ///
    /// # Safety
    ///
    /// 1. It is alive.
    pub(crate) unsafe fn size(node: *mut Self) -> usize {
        // SAFETY: by 1.
        Self::bytes(unsafe { &*node }.version.tree.root.plan())
    }

    /// Frees a node, and nothing that it points at; says how much that was, in bytes.
    ///
    /// # Safety
    ///
    /// 1. Nobody else has it.
    pub(crate) unsafe fn discard(node: *mut Self, free_list: &FreeList) -> usize {
        // SAFETY: by 1. alive.
        let header = unsafe { &*node };
        header.life.end();
        let layout = Self::layout(header.version.tree.root.plan());
        // SAFETY: (`FreeList::free`) 1. by 1., allocated by `build` with that layout. A header drops
        // nothing.
        unsafe { free_list.free(node.cast(), layout) };
        layout.size()
    }
}
