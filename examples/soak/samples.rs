//! Memory and garbage over time, and whether they grew.
//!
//! What the process takes jumps about: threads' pools grow and shrink, and a thread that is not
//! scheduled inside a read section holds back garbage until it is. So medians are compared: of the
//! first third of the samples after a quarter of the time, when everything has been used, and of the
//! last third.

use crate::batches::Map;
use pcmap::registry::process_code_map;
use std::fs;
use std::time::Duration;

/// Samples at most.
const MOST: usize = 600;
/// Between two samples, at least.
const SHORTEST: Duration = Duration::from_millis(50);

/// What was seen at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    /// Resident memory that is not of a file, in KiB.
    pub(crate) resident_kib: u64,
    /// Versions displaced and not destroyed yet, in both maps, and their bytes.
    pub(crate) garbage: u64,
    pub(crate) garbage_bytes: u64,
    /// Ranges registered in both maps.
    pub(crate) entries: usize,
}

impl Sample {
    pub(crate) fn take(at: Duration, busy: &Map) -> Self {
        let (process, busy) = (process_code_map().stats(), busy.stats());
        Self {
            at,
            resident_kib: resident_kib().unwrap_or(0),
            garbage: process.retired + busy.retired,
            garbage_bytes: process.retired_bytes + busy.retired_bytes,
            entries: process.entries + busy.entries,
        }
    }
}

/// Anonymous pages that the process has, as the system tells.
fn resident_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// How often to take one, to have enough and not too many.
pub(crate) fn interval(duration: Duration) -> Duration {
    (duration / MOST as u32).max(SHORTEST)
}

/// A figure in the beginning and in the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trend {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Trend {
    /// Of a figure of the samples, after a quarter of the time. Zero, if there are too few.
    pub(crate) fn of(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> Self {
        let warm = &samples[samples.len() / 4..];
        let third = warm.len() / 3;
        let median = |part: &[Sample]| {
            let mut figures: Vec<_> = part.iter().map(&figure).collect();
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().unwrap_or(0)
        };
        Self { first: median(&warm[..third]), last: median(&warm[warm.len() - third..]) }
    }

    /// Growth in percent; negative, if it became less.
    pub(crate) fn percent(self) -> f64 {
        (self.last as f64 - self.first as f64) * 100.0 / self.first.max(1) as f64
    }
}
