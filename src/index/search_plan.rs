//! Finding a slot in a node of sorted slots: a bucket table, then a few steps.
//!
//! The span of a node's starts is cut into buckets of equal size (a power of two of bytes), and a
//! table of one byte per bucket gives the last slot that starts at or before the bucket does. What
//! is left is a search among the slots that start inside one bucket: none or one on even layouts,
//! and never more than the node holds. Up to seven are compared at once, none waiting for another;
//! what is more is halved first. How often is fixed per node, so that no branch depends on the
//! address (but a rare one: past the last slot there is nothing to compare).
//!
//! Nodes are cut at gaps of the address space (`edit`), which keeps far-apart clusters of code out
//! of one node where that is possible: equal buckets need an even span. Where starts are uneven all
//! the same, the table is made finer. The technique is that of interpolation by table lookup (a
//! "bucket directory"); what it costs on which layout is in `docs/BENCHMARKS.md`.

use core::hint::select_unpredictable;
use core::mem::MaybeUninit;
use core::ops::RangeInclusive;

/// How to search one node: kept where the node is pointed at, so that the search touches nothing of
/// the node but one byte of its table and the slots it compares.
///
/// Bits, from the lowest: 6 of shift (bytes per bucket), 4 of steps, 4 of the table's size as a power
/// of two, 10 of the number of slots, 1 that tells whether the slots are packed; from bit 32 on the
/// table's size again, in bytes: a search waits for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SearchPlan(u64);

/// Up to so many slots are compared at once, without a table.
const WITHOUT_TABLE: usize = FEW;
/// Up to so many are given four buckets each or more, others two: the next power of two is taken.
const SMALL: usize = 32;
/// So many halvings are replaced by one round of comparisons.
const AT_ONCE: usize = 3;
const FEW: usize = (1 << AT_ONCE) - 1;
/// The largest table, as a power of two.
const LARGEST_TABLE: u32 = 11;
/// The same in bytes.
pub(crate) const MOST_BUCKETS: usize = 1 << LARGEST_TABLE;
/// The table's entries are bytes.
pub(crate) const LARGEST_NODE: usize = 256;

/// Where starts are uneven, tables are finer.
#[derive(Clone, Copy, Debug)]
struct Fineness {
    /// A table that leaves more steps is made finer, if that helps,
    steps: usize,
    /// up to so many bytes a slot.
    bytes: usize,
}

impl Fineness {
    /// Leaves are almost all of the index, and their tables most of what a lookup has to fetch; there
    /// are few nodes above, and every lookup passes through one or more.
    const fn at(height: u8) -> Self {
        if height == 0 { Self { steps: AT_ONCE, bytes: 12 } } else { Self { steps: 1, bytes: 32 } }
    }
}

/// How a node differs from another one: by one slot, at `at`. Distances are in bytes from the node's
/// start.
pub(crate) struct Splice {
    pub(crate) at: usize,
    pub(crate) old: Option<usize>,
    pub(crate) new: Option<usize>,
}

/// How many steps it takes to go `most` slots further.
const fn steps_for(most: usize) -> usize {
    (usize::BITS - most.leading_zeros()) as usize
}

impl SearchPlan {
    /// The plan of a node of `len` slots, which start at these distances from the first one's start:
    /// ascending.
    pub(crate) fn of(
        len: usize,
        height: u8,
        is_packed: bool,
        distance: impl Fn(usize) -> usize,
    ) -> Self {
        debug_assert!(len != 0 && len <= LARGEST_NODE);
        let span = distance(len - 1);
        let buckets = if len <= SMALL { len * 4 } else { len * 2 };
        let mut size = buckets.next_power_of_two().ilog2().min(LARGEST_TABLE);
        if len <= WITHOUT_TABLE {
            // Whatever the distance, it is in the first bucket.
            let plan = Self::pack(0, len, is_packed).over(usize::MAX);
            return plan.with_steps(steps_for(len - 1));
        }
        let mut best = Self::pack(size, len, is_packed).over(span).with_fitting_steps(&distance);
        let fineness = Fineness::at(height);
        while best.steps() > fineness.steps
            && size < LARGEST_TABLE
            && 2 << size <= len * fineness.bytes
        {
            size += 1;
            let finer = Self::pack(size, len, is_packed).over(span).with_fitting_steps(&distance);
            if finer.steps() < best.steps() {
                best = finer;
            }
        }
        best
    }

    /// The same table for one slot more or less, if it is of a fitting size and has buckets of the same
    /// size still; its steps are to be found.
    #[inline]
    fn resized(self, len: usize, height: u8, span: usize) -> Option<Self> {
        let sizes = 2 * len..=len * Fineness::at(height).bytes;
        let fits = len > WITHOUT_TABLE && sizes.contains(&self.buckets());
        let plan = Self::pack(self.size(), len, self.is_packed()).over(span);
        (fits && plan.shift() == self.shift()).then_some(plan)
    }

    const fn pack(size: u32, len: usize, is_packed: bool) -> Self {
        // A table of 2^0 would be no table at all.
        let buckets = (1 << size) & !1_u64;
        Self(buckets << 32 | (is_packed as u64) << 24 | (len as u64) << 14 | (size as u64) << 10)
    }

    /// With buckets that cover this span.
    const fn over(self, span: usize) -> Self {
        let shift = (usize::BITS - span.leading_zeros()).saturating_sub(self.size());
        let shift = if shift < usize::BITS { shift } else { usize::BITS - 1 };
        Self(self.0 & !63 | shift as u64)
    }

    const fn with_steps(self, steps: usize) -> Self {
        Self(self.0 & !(15 << 6) | (steps as u64) << 6)
    }

    /// With as many steps as the fullest bucket takes.
    fn with_fitting_steps(self, distance: impl Fn(usize) -> usize) -> Self {
        let (mut most, mut begin, mut bucket) = (0, 0, 0);
        for index in 1..self.len() {
            let own = self.bucket(distance(index));
            if own != bucket {
                (bucket, begin) = (own, index - 1);
            }
            // A slot at the very start of its bucket is found without a step.
            if self.begins(own, distance(index)) {
                begin = index;
            }
            most = most.max(index - begin);
        }
        self.with_steps(steps_for(most))
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// How many slots the node has.
    #[inline(always)]
    pub(crate) const fn len(self) -> usize {
        ((self.0 >> 14) & 1023) as usize
    }

    /// Whether they are packed.
    #[inline(always)]
    pub(crate) const fn is_packed(self) -> bool {
        self.0 >> 24 & 1 != 0
    }

    /// How many bytes its table has.
    #[inline(always)]
    pub(crate) const fn buckets(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// The same as a power of two.
    #[inline(always)]
    const fn size(self) -> u32 {
        (self.0 >> 10) as u32 & 15
    }

    /// How often a search halves what is left behind the table.
    #[inline(always)]
    pub(crate) const fn steps(self) -> usize {
        ((self.0 >> 6) & 15) as usize
    }

    #[inline(always)]
    const fn shift(self) -> u32 {
        self.0 as u32 & 63
    }

    /// The most reads that a search of a node of so many slots makes: of the table, the slots that are
    /// compared, and the one that it ends at.
    #[cfg(test)]
    pub(crate) const fn most_probes(len: usize) -> usize {
        let steps = steps_for(len - 1);
        2 + steps.saturating_sub(AT_ONCE) + FEW
    }

    /// Fills the table, all of it.
    pub(crate) fn fill(self, distance: impl Fn(usize) -> usize, table: &mut [MaybeUninit<u8>]) {
        let mut filled = 0;
        for index in 1..self.len() {
            // All buckets that start before this slot does begin at the one before, at most.
            let behind = self.first_bucket_from(distance(index)).min(table.len());
            if filled < behind {
                table[filled..behind].fill(MaybeUninit::new((index - 1) as u8));
                filled = behind;
            }
        }
        table[filled..].fill(MaybeUninit::new((self.len() - 1) as u8));
    }

    /// The plan of a node that differs from one with this plan and `table`, whose slots start at
    /// these distances, by one slot, and now has `len` that span `span`; `None` if too much differs.
    #[inline]
    pub(crate) fn spliced(
        self,
        table: &[u8],
        distance: impl Fn(usize) -> usize,
        splice: &Splice,
        len: usize,
        height: u8,
        span: usize,
    ) -> Option<Self> {
        let plan = self.resized(len, height, span)?;
        if splice.at == 0 && splice.new != Some(0) {
            return None;
        }
        let (start, is_more) = match *splice {
            Splice { old: None, new: Some(new), .. } => (new, true),
            Splice { old: Some(gone), new: None, .. } => (gone, false),
            Splice { old: Some(before), new: Some(new), .. } if before == new => {
                return Some(plan.with_steps(self.steps()));
            }
            _ => return None,
        };
        let bucket = plan.bucket(start);
        let way = self.way(table, distance, bucket);
        let steps = if plan.begins(bucket, start) {
            // The table tells of it in place of the slot before, or the other way round: the way
            // behind that is as long as it was.
            self.steps()
        } else if is_more {
            steps_for(way + 1).max(self.steps())
        } else if self.steps() > 1 && steps_for(way) == self.steps() {
            // This may have been the longest way.
            let before = bucket.checked_sub(1).map_or(0, |last| self.widest(table, 0..=last));
            let behind = self.widest(table, bucket + 1..=table.len() - 1);
            steps_for(way.saturating_sub(1).max(before).max(behind)).min(self.steps())
        } else {
            self.steps()
        };
        // Where it has become longer than it should be, a finer table may help.
        let is_too_long = steps > self.steps() && steps > Fineness::at(height).steps;
        (!is_too_long).then(|| plan.with_steps(steps))
    }

    /// Whether a slot at this distance is where its bucket begins.
    fn begins(self, bucket: usize, distance: usize) -> bool {
        distance == bucket << self.shift()
    }

    /// How far it is, in slots, from where the table of a node with this plan tells to begin in a
    /// bucket to the last slot that starts in it.
    #[inline]
    fn way(self, table: &[u8], distance: impl Fn(usize) -> usize, bucket: usize) -> usize {
        let first = table.get(bucket).map_or(0, |&first| usize::from(first));
        let last = table.get(bucket + 1).map_or(self.len() - 1, |&next| {
            let next = usize::from(next);
            if self.begins(bucket + 1, distance(next)) { next.saturating_sub(1) } else { next }
        });
        last.saturating_sub(first)
    }

    /// The longest way in some buckets of a node with this plan and table, or one slot more (for
    /// which slots begin a bucket is not looked at).
    fn widest(self, table: &[u8], buckets: RangeInclusive<usize>) -> usize {
        let (first, last) = buckets.into_inner();
        let begins = table.get(first..=last).unwrap_or(&[]);
        let ends = table.get(first + 1..).unwrap_or(&[]);
        let widest = begins.iter().zip(ends).map(|(begin, end)| end.wrapping_sub(*begin)).max();
        // Behind the last bucket there is the node's end.
        let rest = table.get(last).filter(|_| last + 1 == table.len());
        let rest = rest.map_or(0, |&begin| self.len() - 1 - usize::from(begin));
        usize::from(widest.unwrap_or(0)).max(rest)
    }

    /// Fills the table of a node with this plan, which [`SearchPlan::spliced`] gave, from that other
    /// node's: all of it, for it has the same size.
    #[inline]
    pub(crate) fn refill(self, old: &[u8], splice: &Splice, table: &mut [MaybeUninit<u8>]) {
        // From the first bucket on that starts at or behind the slot, all slots are one further on.
        let (start, further) = match *splice {
            Splice { old: None, new: Some(new), .. } => (new, 1),
            Splice { old: Some(gone), new: None, .. } => (gone, u8::MAX), // wrapping: one less
            _ => (usize::MAX, 0),
        };
        let from = self.first_bucket_from(start).min(old.len());
        let (same, other) = old.split_at(from);
        let (same_place, other_place) = table.split_at_mut(from);
        for (place, index) in same_place.iter_mut().zip(same) {
            place.write(*index);
        }
        for (place, index) in other_place.iter_mut().zip(other) {
            place.write(index.wrapping_add(further));
        }
    }

    /// The first bucket that starts at this distance or behind.
    fn first_bucket_from(self, distance: usize) -> usize {
        (distance >> self.shift()) + usize::from(distance & ((1 << self.shift()) - 1) != 0)
    }

    /// Which byte of the table tells where to begin.
    #[inline(always)]
    pub(crate) fn bucket(self, distance: usize) -> usize {
        (distance >> self.shift()).min(self.buckets().wrapping_sub(1))
    }

    /// Which slot the search would find if all were at even distances.
    #[inline(always)]
    pub(crate) fn guess(self, bucket: usize) -> usize {
        bucket.wrapping_mul(self.len()) >> self.size()
    }

    /// The last of `slots` that is not behind the address in question, where that is not before the
    /// first one (otherwise: some slot); `bucket` is the address's.
    ///
    /// Wait-free: a load from the table and at most `steps()` rounds of comparisons, whatever the
    /// address.
    ///
    /// Signal-safe: reads the two slices; `get` in place of indexing leaves no panic.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn find<S>(
        self,
        slots: &[S],
        table: &[u8],
        bucket: usize,
        is_behind: impl Fn(&S) -> bool,
    ) -> usize {
        let mut index = table.get(bucket).map_or(0, |&index| usize::from(index));
        let steps = self.steps();
        if steps == 0 {
            return index;
        }
        let halve = |index: usize, steps: usize| {
            let middle = index.wrapping_add(1 << steps);
            // (Past the last slot there is none: that is a branch, and a rare one.)
            match slots.get(middle) {
                Some(slot) => select_unpredictable(is_behind(slot), index, middle),
                None => index,
            }
        };
        if steps == 1 {
            return halve(index, 0);
        }
        for steps in (AT_ONCE..steps).rev() {
            index = halve(index, steps);
        }
        last_of_few(slots, index, is_behind)
    }
}

/// The last slot that is not behind the address in question, which is at `index` or among the next
/// seven.
///
/// Which one cannot be predicted, so all are compared, with no branch. (Signal-safe: reads a slice.)
#[inline(always)]
fn last_of_few<S>(slots: &[S], index: usize, is_behind: impl Fn(&S) -> bool) -> usize {
    // Near the end of the node some before `index` are compared too, which are not behind either.
    let first = index.wrapping_add(1).min(slots.len().wrapping_sub(FEW));
    let few = slots.get(first..).and_then(|slots| slots.first_chunk::<FEW>());
    let mut last = first.wrapping_sub(1);
    match few {
        Some(few) => {
            for slot in few {
                last = last.wrapping_add(usize::from(!is_behind(slot)));
            }
            last
        }
        // There are no more than these in all.
        None => {
            let not_behind = slots.iter().filter(|slot| !is_behind(slot)).count();
            not_behind.saturating_sub(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SearchPlan, Splice};
    use core::mem::MaybeUninit;
    use std::collections::BTreeSet;

    fn table(plan: SearchPlan, fill: impl FnOnce(&mut [MaybeUninit<u8>])) -> Vec<u8> {
        // (None of the places keeps this: a node has fewer slots.)
        let mut table = vec![MaybeUninit::new(u8::MAX); plan.buckets()];
        fill(&mut table);
        #[expect(unsafe_code, reason = "what was filled is initialised")]
        // SAFETY: made of initialised bytes above.
        table.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
    }

    /// One slot more or less, at random places: the table is what it would be if it were made anew,
    /// and the steps are as many (or one more, now and then).
    #[test]
    fn a_spliced_plan_is_as_good_as_a_new_one() {
        let mut seed = 0x5EED_0000_0000_0001_u64;
        let mut below = |bound: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % bound
        };
        let (mut steps, mut longer) = ([0; 6], 0);
        for _ in 0..2_000 {
            let len = 8 + below(40);
            let grain = [1, 16, 64][below(3)];
            // (Where a bucket begins there is a place.)
            let places = len * (2 + below(12));
            let crowd = below(8);
            let mut starts = BTreeSet::from([0]);
            while starts.len() < len {
                let beside = starts.last().map_or(0, |last| last + grain);
                starts.insert(if below(8) < crowd { beside } else { below(places) * grain });
            }
            let old: Vec<_> = starts.iter().copied().collect();
            let distance = |index: usize| old.get(index).copied().unwrap_or(0);
            let plan = SearchPlan::of(len, 0, true, distance);
            let before = table(plan, |table| plan.fill(distance, table));
            for _ in 0..16 {
                let mut new = starts.clone();
                let start = if below(2) == 0 { below(places) * grain } else { old[below(len)] };
                let at = starts.range(..start).count();
                let splice = if new.insert(start) {
                    Splice { at, old: None, new: Some(start) }
                } else {
                    new.remove(&start);
                    Splice { at, old: Some(start), new: None }
                };
                let new: Vec<_> = new.into_iter().collect();
                let span = new.last().copied().unwrap_or(0);
                let spliced = plan.spliced(&before, distance, &splice, new.len(), 0, span);
                let Some(spliced) = spliced else { continue };
                let distance = |index: usize| new.get(index).copied().unwrap_or(0);
                let fitting = spliced.with_fitting_steps(distance).steps();
                assert!(spliced.steps() >= fitting, "{start:#x}, {old:#x?}");
                let after = table(spliced, |table| spliced.refill(&before, &splice, table));
                assert_eq!(after, table(spliced, |table| spliced.fill(distance, table)));
                steps[fitting] += 1;
                longer += usize::from(spliced.steps() > fitting);
            }
        }
        println!("splices by steps: {steps:?}; one step too many: {longer}");
        assert!(longer * 20 < steps.iter().sum::<usize>());
    }
}
