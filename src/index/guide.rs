//! Finding a slot in a node of sorted slots: a bucket table, then a few steps.
//!
//! The span of a node's starts is cut into buckets of equal size (a power of two of bytes), and a
//! table of one byte per bucket gives the last slot that starts at or before the bucket does. What
//! is left is a binary search among the slots that start inside one bucket: none or one on even
//! layouts, and never more than the node holds. The number of steps is fixed per node, so that the
//! search has no branch that depends on the address.
//!
//! Nodes are cut at gaps of the address space (`edit`), which keeps far-apart clusters of code out
//! of one node where that is possible: equal buckets need an even span. The technique is that of
//! interpolation by table lookup (a "bucket directory"); what it costs on which layout is in
//! `docs/BENCHMARKS.md`.

use super::node::Slot;
use core::hint::select_unpredictable;

/// How to search one node: kept where the node is pointed at, so that the search touches nothing of
/// the node but one byte of its table and the slots it compares.
///
/// Bits, from the lowest: 6 of shift (bytes per bucket), 4 of steps, 4 of the table's size, 10 of
/// the number of slots.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guide(usize);

/// Up to so many slots are searched without a table.
const WITHOUT_TABLE: usize = 4;
/// Up to so many have four buckets each or more, others two: the next power of two is taken.
const FEW: usize = 32;
/// The largest table, as a power of two.
const LARGEST_TABLE: u32 = 9;
/// The table's entries are bytes.
pub(crate) const LARGEST_NODE: usize = 256;

/// How a node differs from another one: by one slot, at `at`.
pub(crate) struct Splice<'s, T> {
    pub(crate) at: usize,
    pub(crate) old: Option<&'s Slot<T>>,
    pub(crate) new: Option<&'s Slot<T>>,
}

impl Guide {
    /// As much of a guide as follows from the number of slots: it has the size of the table.
    pub(crate) fn for_len(len: usize) -> Self {
        debug_assert!(len != 0 && len <= LARGEST_NODE);
        let buckets = if len <= FEW { len * 4 } else { len * 2 };
        let table = match buckets.next_power_of_two().ilog2() {
            _ if len <= WITHOUT_TABLE => 0,
            table => table.min(LARGEST_TABLE),
        };
        // Without a table: as many steps as the slots take. With one: `fill` will tell.
        let steps = usize::BITS - (len - 1).leading_zeros();
        Self::pack(0, steps, table, len)
    }

    /// The guide of a node with these slots, sorted by start; its table is still to be filled.
    pub(crate) fn of<T>(slots: &[Slot<T>]) -> Self {
        let span = match slots {
            [first, .., last] => last.start() - first.start(),
            _ => 0,
        };
        let significant = usize::BITS - span.leading_zeros();
        let guide = Self::for_len(slots.len());
        let shift = significant.saturating_sub(guide.buckets().checked_ilog2().unwrap_or(0));
        Self(guide.0 | shift.min(usize::BITS - 1) as usize)
    }

    const fn pack(shift: u32, steps: u32, table: u32, len: usize) -> Self {
        Self(shift as usize | (steps as usize) << 6 | (table as usize) << 10 | len << 14)
    }

    pub(crate) const fn from_bits(bits: usize) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> usize {
        self.0
    }

    /// How many slots the node has.
    #[inline(always)]
    pub(crate) const fn len(self) -> usize {
        self.0 >> 14
    }

    /// How many bytes its table has.
    #[inline(always)]
    pub(crate) const fn buckets(self) -> usize {
        // A table of 2^0 would be no table at all.
        (1 << ((self.0 >> 10) & 15)) & !1
    }

    /// How many comparisons a search makes behind the table.
    #[inline(always)]
    pub(crate) const fn steps(self) -> usize {
        (self.0 >> 6) & 15
    }

    #[inline(always)]
    const fn shift(self) -> usize {
        self.0 & 63
    }

    /// Fills the table of the node with these slots; the guide to search it with.
    pub(crate) fn fill<T>(self, slots: &[Slot<T>], table: &mut [u8]) -> Self {
        let ([first, others @ ..], false) = (slots, table.is_empty()) else { return self };
        let base = first.start();
        let (mut filled, mut most) = (0, 0);
        for (index, slot) in others.iter().enumerate() {
            // All buckets that start before this slot does begin at the one before, at most.
            while filled < self.first_bucket_from(base, slot.start()).min(table.len()) {
                table[filled] = index as u8;
                filled += 1;
            }
            // A slot at the very start of its bucket is found without a step.
            if let Some(&begin) = table[..filled].get(self.bucket(base, slot.start())) {
                most = most.max(index + 1 - usize::from(begin));
            }
        }
        table[filled..].fill(others.len() as u8);
        self.with_steps_for(most)
    }

    /// As [`Guide::fill`], from the table of a node that differs by one slot; `None` if too much
    /// differs.
    pub(crate) fn adapt<T>(
        self,
        old: Self,
        old_table: &[u8],
        splice: &Splice<'_, T>,
        slots: &[Slot<T>],
        table: &mut [u8],
    ) -> Option<Self> {
        let first = slots.first()?;
        if splice.at == 0 && splice.old.map(Slot::start) != Some(first.start())
            || table.len() != old_table.len()
            || self.shift() != old.shift()
        {
            return None;
        }
        // From the first bucket on that starts at or behind the slot, all slots are one further on.
        let (start, further) = match (splice.old, splice.new) {
            (Some(before), Some(new)) if before.start() == new.start() => {
                table.copy_from_slice(old_table);
                return Some(self.with_steps(old.steps()));
            }
            (None, Some(new)) => (new.start(), 1),
            (Some(gone), None) => (gone.start(), u8::MAX), // wrapping: one less
            _ => return None,
        };
        let from = self.first_bucket_from(first.start(), start).min(table.len());
        table.copy_from_slice(old_table);
        for index in &mut table[from..] {
            *index = index.wrapping_add(further);
        }
        let bucket = self.bucket(first.start(), start);
        let begin = table.get(bucket).map_or(0, |&begin| usize::from(begin));
        let end = table.get(bucket + 1).map_or(slots.len() - 1, |&end| usize::from(end));
        let own = self.with_steps_for(end - begin);
        Some(if own.steps() > old.steps() { own } else { self.with_steps(old.steps()) })
    }

    /// The first bucket that starts at or behind an address.
    fn first_bucket_from(self, base: usize, address: usize) -> usize {
        let distance = address - base;
        (distance >> self.shift()) + usize::from(distance & ((1 << self.shift()) - 1) != 0)
    }

    /// With as many steps as it takes to go `most` slots further.
    fn with_steps_for(self, most: usize) -> Self {
        self.with_steps((usize::BITS - most.leading_zeros()) as usize)
    }

    const fn with_steps(self, steps: usize) -> Self {
        Self(self.0 & !(15 << 6) | steps << 6)
    }

    /// Which byte of the table tells where to begin.
    #[inline(always)]
    pub(crate) fn bucket(self, base: usize, address: usize) -> usize {
        let bucket = address.wrapping_sub(base) >> self.shift();
        bucket.min(self.buckets().wrapping_sub(1))
    }

    /// The last slot that starts at or before `address`, which is not before the first one does
    /// (otherwise: some slot).
    ///
    /// Wait-free: a load from the table and `steps()` comparisons, whatever the address; `probe` is
    /// told each slot that is read.
    ///
    /// Signal-safe: reads the two slices; `get` in place of indexing leaves no panic.
    #[inline(always)]
    pub(crate) fn find<'s, T>(
        self,
        slots: &'s [Slot<T>],
        table: &[u8],
        base: usize,
        address: usize,
        mut probe: impl FnMut(usize),
    ) -> Option<&'s Slot<T>> {
        let bucket = self.bucket(base, address);
        let mut index = table.get(bucket).map_or(0, |&index| usize::from(index));
        // The answer is among so many slots from there on; which one cannot be predicted, so the
        // comparisons are no branches, and their number depends on the node only.
        let mut size = 1_usize << self.steps();
        while size > 1 {
            let half = size / 2;
            let middle = index.wrapping_add(half);
            probe(middle);
            // (Past the last slot there is none: that is a branch, and a rare one.)
            if let Some(slot) = slots.get(middle) {
                index = select_unpredictable(slot.start() <= address, middle, index);
            }
            size = size.wrapping_sub(half);
        }
        probe(index);
        slots.get(index)
    }
}
