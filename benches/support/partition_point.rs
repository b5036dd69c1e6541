//! The floor that users can imagine: a binary search, and nothing else.

use crate::contender::Lookup;
use std::ops::Range;

/// Sorted start addresses, without any synchronisation. It knows no ends and so no misses; its
/// answer is a position.
#[derive(Debug)]
pub(crate) struct PartitionPoint {
    starts: Vec<u64>,
}

impl Lookup for PartitionPoint {
    const NAME: &'static str = "partition_point";

    fn holding(ranges: &[Range<usize>]) -> Self {
        Self { starts: ranges.iter().map(|range| range.start as u64).collect() }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let pc = pc as u64;
        self.starts.partition_point(|&start| start <= pc).checked_sub(1)
    }
}
