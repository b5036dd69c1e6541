//! scc's concurrent B+ tree for reading, from end addresses.

use crate::contender::{Lookup, Write, answer};
use scc::{Guard, TreeIndex};
use std::hint::black_box;
use std::ops::Range;

/// By end address: start and value. An answer borrows from the tree for as long as the guard lives.
#[derive(Debug)]
pub(crate) struct SccTreeIndex {
    ranges: TreeIndex<usize, (usize, u64)>,
}

impl SccTreeIndex {
    #[inline]
    fn get<'g>(&'g self, pc: usize, guard: &'g Guard) -> Option<&'g (usize, u64)> {
        let (_, place) = self.ranges.range(pc + 1.., guard).next()?;
        (place.0 <= pc).then_some(place)
    }

    fn insert(&self, range: &Range<usize>, value: u64) {
        self.ranges.insert_sync(range.end, (range.start, value)).expect("free");
    }
}

impl Lookup for SccTreeIndex {
    const NAME: &'static str = "scc_tree_index";

    fn holding(ranges: &[Range<usize>]) -> Self {
        let index = Self { ranges: TreeIndex::new() };
        // An empty range below all others. The tree finds where to begin from a key that is not
        // larger; where there is none it looks through all of its leaves, for seconds if they are
        // many.
        index.insert(&(0..0), 0);
        for (range, value) in ranges.iter().zip(0..) {
            index.insert(range, value);
        }
        index
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let guard = Guard::new();
        let (start, value) = self.get(pc, &guard)?;
        Some(answer(*value, pc - start))
    }
}

impl Write for SccTreeIndex {
    type Held<'i> = Range<usize>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        let guard = Guard::new();
        let (start, value) = self.get(pc, &guard)?;
        Some((*value, pc - start))
    }

    fn register(&self, range: Range<usize>, value: u64) -> Range<usize> {
        self.insert(&range, value);
        range
    }

    fn unregister(&self, held: Range<usize>) {
        black_box(self.ranges.remove_sync(&held.end));
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        for (range, value) in ranges.iter().zip(0..) {
            self.insert(range, value);
        }
        let result = meanwhile();
        for range in ranges {
            black_box(self.ranges.remove_sync(&range.end));
        }
        result
    }
}
