//! Durations, counted by a signal handler: a fixed array of atomic counters.
//!
//! Buckets are logarithmic by octave and linear within: [`PER_OCTAVE`] buckets each, so a
//! percentile is right to about three parts in a hundred at any size.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const OCTAVE_BITS: u32 = 5;
const PER_OCTAVE: usize = 1 << OCTAVE_BITS;
/// Values of 2^40 ticks and more (minutes) share the last bucket.
const OCTAVES: usize = 36;
const BUCKETS: usize = OCTAVES * PER_OCTAVE;

/// Counts of durations in clock ticks.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    pub(crate) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }

    /// Signal-safe.
    pub(crate) fn record(&self, ticks: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ticks)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// The duration that `percent` of everything recorded in `histograms` does not exceed.
    pub(crate) fn percentile(histograms: &[&Self], percent: u64) -> u64 {
        let count = |bucket: usize| -> u64 {
            histograms.iter().map(|histogram| histogram.buckets[bucket].load(Relaxed)).sum()
        };
        let total: u64 = (0..BUCKETS).map(count).sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        (0..BUCKETS)
            .find(|&bucket| {
                seen += count(bucket);
                seen >= rank
            })
            .map_or(0, middle_of)
    }
}

fn bucket_of(ticks: u64) -> usize {
    if ticks < PER_OCTAVE as u64 {
        return ticks as usize;
    }
    let octave = ticks.ilog2().wrapping_sub(OCTAVE_BITS);
    let within = (ticks >> octave) as usize & (PER_OCTAVE - 1);
    let bucket = (octave as usize).wrapping_add(1).wrapping_mul(PER_OCTAVE) | within;
    bucket.min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    let (row, within) = (bucket / PER_OCTAVE, (bucket % PER_OCTAVE) as u64);
    match row.checked_sub(1) {
        None => within,
        Some(octave) => {
            let width = 1 << octave;
            ((PER_OCTAVE as u64 + within) << octave) + width / 2
        }
    }
}
