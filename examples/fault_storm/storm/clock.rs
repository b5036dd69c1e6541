//! The clock of the sampler's handler: the processor's counter, read without a system call, and what
//! one tick of it lasts.

use super::machine::ticks;
use std::time::{Duration, Instant};

/// A moment on both clocks, to compare the counter with.
#[derive(Debug)]
pub(crate) struct Calibration {
    ticks: u64,
    instant: Instant,
}

/// How long a tick lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickLength {
    nanos: f64,
}

impl Calibration {
    pub(crate) fn start() -> Self {
        Self { ticks: ticks(), instant: Instant::now() }
    }

    /// Compared over the time since the start: the longer, the better.
    pub(crate) fn finish(&self) -> (Duration, TickLength) {
        let ticks = ticks().wrapping_sub(self.ticks);
        let elapsed = self.instant.elapsed();
        (elapsed, TickLength { nanos: elapsed.as_nanos() as f64 / ticks.max(1) as f64 })
    }
}

impl TickLength {
    pub(crate) fn nanos(self, ticks: u64) -> u64 {
        (ticks as f64 * self.nanos).round() as u64
    }
}

/// What two readings with nothing between them differ by: the measurement's own share in each
/// figure. The median of many.
pub(crate) fn reading_cost() -> u64 {
    let mut costs = [0; 1001];
    for cost in &mut costs {
        let began = ticks();
        *cost = ticks().wrapping_sub(began);
    }
    costs.sort_unstable();
    costs[costs.len() / 2]
}
