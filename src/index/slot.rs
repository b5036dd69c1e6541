//! What a node says of one entry, or of one node below: in the form that is worked with, and in the
//! one that most leaves are stored in.
//!
//! A slot has three words. Where a leaf's ranges lie within 4 GiB, as code does that one process
//! runs, two will do: offsets from the leaf's start have 32 bits. That is a third less to copy for a
//! write, and fewer cache lines for a lookup. A leaf that spans more is stored as it is.

use super::entry::{Entry, Item};
use super::node::Node;
use super::search_plan::SearchPlan;
use crate::address_range::CodeRange;
use core::marker::PhantomData;
use core::ptr;

/// One range of a leaf, or one node below.
#[repr(C)]
pub(crate) struct Slot<T> {
    start: usize,
    pointer: *mut (),
    /// In a leaf the end of the range; above, the plan to the node below.
    detail: u64,
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
    #[inline(always)]
    pub(crate) fn of_entry(start: usize, end: usize, entry: *mut Entry<T>) -> Self {
        Self { start, pointer: entry.cast(), detail: end as u64, of: PhantomData }
    }

    /// The slot of an entry that is to be added.
    pub(crate) fn of_item(item: &Item<T>) -> Self {
        Self::of_entry(item.range.start(), item.range.end(), item.as_raw())
    }

    pub(super) fn of_node(start: usize, node: *mut Node<T>, plan: SearchPlan) -> Self {
        Self { start, pointer: node.cast(), detail: plan.bits(), of: PhantomData }
    }

    /// A place in a leaf, for going to it.
    pub(crate) fn of_place(start: usize) -> Self {
        Self { start, ..Self::nothing() }
    }

    /// Stands for a tree without nodes.
    pub(crate) const fn nothing() -> Self {
        Self { start: 0, pointer: ptr::null_mut(), detail: 0, of: PhantomData }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.pointer.is_null()
    }

    /// Whether both point at the same entry, or at the same node.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.pointer == other.pointer
    }

    /// Where the range starts; of a node, where its first one does.
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Where the range ends: of a leaf's slot.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        self.detail as usize
    }

    /// The range, of a leaf's slot.
    #[inline(always)]
    pub(crate) fn range(&self) -> CodeRange {
        CodeRange::of_slot(self.start, self.end())
    }

    /// The entry, of a leaf's slot.
    #[inline(always)]
    pub(crate) fn entry(&self) -> *mut Entry<T> {
        self.pointer.cast()
    }

    /// The node below, of a slot above the leaves.
    #[inline(always)]
    pub(crate) fn node(&self) -> *mut Node<T> {
        self.pointer.cast()
    }

    /// How to search the node below.
    #[inline(always)]
    pub(crate) fn plan(&self) -> SearchPlan {
        SearchPlan::from_bits(self.detail)
    }
}

/// A leaf's slot, by its offset from the leaf's start.
#[repr(C)]
pub(crate) struct Packed<T> {
    offset: u32,
    len: u32,
    entry: *mut Entry<T>,
}

impl<T> Clone for Packed<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Packed<T> {}

impl<T> Packed<T> {
    /// Whether all of a leaf can be packed that starts at `base` and ends at `end`.
    pub(super) fn fits(base: usize, end: usize) -> bool {
        u32::try_from(end.wrapping_sub(base)).is_ok()
    }

    /// A slot of a leaf that starts at `base`, and [`fits`](Packed::fits).
    pub(super) fn new(slot: &Slot<T>, base: usize) -> Self {
        let (offset, len) = (slot.start - base, slot.end() - slot.start);
        Self { offset: offset as u32, len: len as u32, entry: slot.entry() }
    }

    #[inline(always)]
    pub(super) fn unpacked(&self, base: usize) -> Slot<T> {
        let start = base.wrapping_add(self.offset as usize);
        Slot::of_entry(start, start.wrapping_add(self.len as usize), self.entry)
    }

    /// Bytes from the leaf's start to this range's.
    #[inline(always)]
    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    #[inline(always)]
    pub(super) fn len(&self) -> u32 {
        self.len
    }
}

/// The slots of a node, in either form.
pub(crate) enum Slots<'a, T> {
    Whole(&'a [Slot<T>]),
    Packed { base: usize, slots: &'a [Packed<T>] },
}

impl<T> Clone for Slots<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slots<'_, T> {}

impl<'a, T> Slots<'a, T> {
    pub(crate) const NONE: Self = Self::Whole(&[]);

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(slots) => slots.len(),
            Self::Packed { slots, .. } => slots.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, index: usize) -> Option<Slot<T>> {
        match *self {
            Self::Whole(slots) => slots.get(index).copied(),
            Self::Packed { base, slots } => slots.get(index).map(|slot| slot.unpacked(base)),
        }
    }

    pub(crate) fn first(&self) -> Option<Slot<T>> {
        self.get(0)
    }

    pub(crate) fn last(&self) -> Option<Slot<T>> {
        self.get(self.len().wrapping_sub(1))
    }

    /// What stands before `at`, and the rest.
    ///
    /// # Panics
    ///
    /// If there are less.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Whole(slots) => {
                let (before, behind) = slots.split_at(at);
                (Self::Whole(before), Self::Whole(behind))
            }
            Self::Packed { base, slots } => {
                let (before, behind) = slots.split_at(at);
                (Self::Packed { base, slots: before }, Self::Packed { base, slots: behind })
            }
        }
    }

    pub(crate) fn split_first(self) -> Option<(Slot<T>, Self)> {
        Some((self.first()?, self.split_at(1).1))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Slot<T>> + 'a {
        (0..self.len()).filter_map(move |index| self.get(index))
    }

    /// How many slots start before `address`, or at it if `or_at`.
    pub(crate) fn rank(&self, address: usize, or_at: bool) -> usize {
        let is_before = |start| start < address || or_at && start == address;
        match *self {
            Self::Whole(slots) => slots.partition_point(|slot| is_before(slot.start)),
            Self::Packed { base, slots } => {
                slots.partition_point(|slot| is_before(slot.unpacked(base).start))
            }
        }
    }
}
