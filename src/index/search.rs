#![expect(unsafe_code, reason = "reads the nodes that slots point at")]
//! From a slot to the node below: its slots, its table, and which slot an address falls to.

use super::node::Node;
use super::slot::{Packed, Slot, Slots};
use crate::sync::prefetch;
use core::ptr;
use core::slice;

impl<T> Slot<T> {
    /// The slots of the node that this slot points at.
    ///
    /// # Safety
    ///
    /// 1. This is a slot of a node, not of an entry, and that node is alive throughout `'a`.
    #[inline(always)]
    pub(crate) unsafe fn slots<'a>(&self) -> Slots<'a, T> {
        if self.plan().is_packed() {
            // SAFETY: (`run`) 1. by 1.; 2. as the plan says.
            Slots::Packed { base: self.start(), slots: unsafe { self.run() } }
        } else {
            // SAFETY: (`run`) 1. by 1.; 2. as the plan says.
            Slots::Whole(unsafe { self.run() })
        }
    }

    /// The same, where their form is known.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`].
    /// 2. The node's slots are `S`: [`Packed`] if its plan says so, otherwise [`Slot`].
    #[inline(always)]
    unsafe fn run<'a, S>(&self) -> &'a [S] {
        // SAFETY: (`Node::table_at`) 1. by 1.
        let table = unsafe { Node::table_at(self.node()) };
        // SAFETY: by 1. the node was made with that table and the slots behind it.
        let slots = unsafe { table.add(self.plan().buckets()) };
        // SAFETY: by 1. the node is alive and was made with as many slots as its plan says, by 2. of
        // this form; nodes do not change.
        unsafe { slice::from_raw_parts(slots.cast(), self.plan().len()) }
    }

    /// The table of the node that this slot points at.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`].
    #[inline(always)]
    pub(super) unsafe fn table<'a>(&self) -> &'a [u8] {
        // SAFETY: (`Node::table_at`) 1. by 1.
        let table = unsafe { Node::table_at(self.node()) };
        // SAFETY: by 1. the node was made with so many bytes there, which do not change.
        unsafe { slice::from_raw_parts(table, self.plan().buckets()) }
    }

    /// The slots of the node below, and which of them `distance` falls to, in bytes from its start:
    /// see [`SearchPlan::find`](super::search_plan::SearchPlan::find). `is_behind` compares a slot.
    ///
    /// Signal-safe: as that is; follows a pointer.
    ///
    /// # Safety
    ///
    /// 1. and 2. as for [`Slot::run`].
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    unsafe fn search<'a, S>(
        &self,
        distance: usize,
        is_behind: impl Fn(&S) -> bool,
        probe: impl Fn(*const u8),
    ) -> (&'a [S], usize) {
        let plan = self.plan();
        // SAFETY: (`Slot::run`) 1. and 2. by 1. and 2.
        let slots: &'a [S] = unsafe { self.run() };
        // SAFETY: (`Slot::table`) 1. by 1.
        let table: &'a [u8] = unsafe { self.table() };
        // SAFETY: by 1. it is alive.
        unsafe { &*self.node() }.life.read();
        let bucket = plan.bucket(distance);
        // The slot is fetched from memory along with the table's byte that tells which it is, if it is
        // near where it would be among even ones.
        prefetch(slots.as_ptr().wrapping_add(plan.guess(bucket)));
        if !table.is_empty() {
            probe(table.as_ptr().wrapping_add(bucket));
        }
        let found = plan.find(slots, table, bucket, |slot| {
            probe(ptr::from_ref(slot).cast());
            is_behind(slot)
        });
        probe(slots.as_ptr().wrapping_add(found).cast());
        (slots, found)
    }

    /// The slot in the node below that `address` falls to: the last one that starts at or before it
    /// (some slot, if the first one starts behind it).
    ///
    /// Wait-free and signal-safe: see [`SearchPlan::find`](super::search_plan::SearchPlan::find); `probe` is told each
    /// address that is read.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`]; and the node is not packed.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) unsafe fn find<'a>(
        &self,
        address: usize,
        probe: impl Fn(*const u8),
    ) -> Option<&'a Slot<T>> {
        let distance = address.wrapping_sub(self.start());
        // SAFETY: (`Slot::search`) 1. and 2. by 1.
        let (slots, found) =
            unsafe { self.search(distance, |slot: &Slot<T>| slot.start() > address, probe) };
        slots.get(found)
    }

    /// Which slot of the node below is the last that starts at or before `address`, where that is not
    /// before the node's own start.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`].
    pub(crate) unsafe fn rank(&self, address: usize) -> usize {
        let distance = address.wrapping_sub(self.start());
        if self.plan().is_packed() {
            let offset = u32::try_from(distance).unwrap_or(u32::MAX);
            // SAFETY: (`Slot::search`) 1. by 1.; 2. as the plan says.
            unsafe { self.search(distance, |slot: &Packed<T>| slot.offset() > offset, |_| ()) }.1
        } else {
            // SAFETY: (`Slot::search`) 1. by 1.; 2. as the plan says.
            unsafe { self.search(distance, |slot: &Slot<T>| slot.start() > address, |_| ()) }.1
        }
    }

    /// As [`Slot::find`], in a packed leaf.
    ///
    /// # Safety
    ///
    /// 1. As for [`Slot::slots`]; and the node is packed.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) unsafe fn find_packed(
        &self,
        address: usize,
        probe: impl Fn(*const u8),
    ) -> Option<Slot<T>> {
        let distance = address.wrapping_sub(self.start());
        // What is out of a packed leaf's reach is behind all its slots.
        let offset = u32::try_from(distance).unwrap_or(u32::MAX);
        // SAFETY: (`Slot::search`) 1. and 2. by 1.
        let (slots, found) =
            unsafe { self.search(distance, |slot: &Packed<T>| slot.offset() > offset, probe) };
        let slot = slots.get(found)?;
        let inside = distance.wrapping_sub(slot.offset() as usize);
        (inside < slot.len() as usize).then(|| slot.unpacked(self.start()))
    }
}
