//! The floor that users can imagine: a binary search, and nothing else.

use crate::contender::{Lookup, answer};
use std::ops::Range;

/// Sorted start addresses, without any synchronisation. It knows no ends and so no misses.
///
/// The values stand in a second vector, not in boxes: a pointer to follow is more than the least.
#[derive(Debug)]
pub(crate) struct PartitionPoint {
    starts: Vec<u64>,
    values: Vec<u64>,
}

impl Lookup for PartitionPoint {
    const NAME: &'static str = "partition_point";

    fn holding(ranges: &[Range<usize>]) -> Self {
        Self {
            starts: ranges.iter().map(|range| range.start as u64).collect(),
            values: (0..ranges.len() as u64).collect(),
        }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let pc = pc as u64;
        let at = self.starts.partition_point(|&start| start <= pc).checked_sub(1)?;
        Some(answer(self.values[at], (pc - self.starts[at]) as usize))
    }
}
