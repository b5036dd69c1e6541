//! crossbeam's skip list, from end addresses.

use crate::contender::{Lookup, Write, answer};
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use std::hint::black_box;
use std::ops::{Bound, Range};

/// By end address: start and value. An answer borrows the entry, which the list counts.
#[derive(Debug)]
pub(crate) struct CrossbeamSkiplist {
    ranges: SkipMap<usize, (usize, u64)>,
}

impl CrossbeamSkiplist {
    #[inline]
    fn get(&self, pc: usize) -> Option<Entry<'_, usize, (usize, u64)>> {
        let entry = self.ranges.lower_bound(Bound::Excluded(&pc))?;
        (entry.value().0 <= pc).then_some(entry)
    }
}

impl Lookup for CrossbeamSkiplist {
    const NAME: &'static str = "crossbeam_skiplist";

    fn holding(ranges: &[Range<usize>]) -> Self {
        let values = ranges.iter().zip(0..);
        Self { ranges: values.map(|(range, i)| (range.end, (range.start, i))).collect() }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let entry = self.get(pc)?;
        let (start, value) = entry.value();
        Some(answer(*value, pc - start))
    }
}

impl Write for CrossbeamSkiplist {
    type Held<'i> = Range<usize>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        let entry = self.get(pc)?;
        let (start, value) = *entry.value();
        Some((value, pc - start))
    }

    fn register(&self, range: Range<usize>, value: u64) -> Range<usize> {
        self.ranges.insert(range.end, (range.start, value));
        range
    }

    fn unregister(&self, held: Range<usize>) {
        black_box(self.ranges.remove(&held.end));
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        for (range, value) in ranges.iter().zip(0..) {
            self.ranges.insert(range.end, (range.start, value));
        }
        let result = meanwhile();
        for range in ranges {
            black_box(self.ranges.remove(&range.end));
        }
        result
    }
}
