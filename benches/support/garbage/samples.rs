//! A map watched while others write: garbage and memory over time.

use super::report::Report;
use super::resident::{format_mib, resident_bytes};
use pcmap::CodeMap;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the garbage.
const PAUSE: Duration = Duration::from_millis(1);

/// How many looks make a sample.
const LOOKS: usize = 10;

/// A series has no more lines than this.
const LINES: usize = 100;

/// Whoever takes more than this has lost, and others need the machine.
const MOST_RESIDENT: u64 = 3 << 30;

/// The figure that says whether a series ended because of that.
pub(crate) const ENDED_EARLY: &str = "ended_early";

/// The most that was seen in some ten milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Duration,
    garbage_bytes: u64,
    versions: u64,
    resident_bytes: Option<u64>,
}

impl Sample {
    fn most(self, other: Self) -> Self {
        Self {
            at: self.at.max(other.at),
            garbage_bytes: self.garbage_bytes.max(other.garbage_bytes),
            versions: self.versions.max(other.versions),
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
        }
    }
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Samples {
    samples: Vec<Sample>,
    /// There was too much to go on.
    ended_early: bool,
}

impl Samples {
    /// Watches the map for some time, or until it is done, or until it takes too much memory.
    pub(crate) fn watch(map: &CodeMap<u64>, time: Duration, is_done: impl Fn() -> bool) -> Self {
        let began = Instant::now();
        let mut watched = Self { samples: Vec::new(), ended_early: false };
        while began.elapsed() < time && !is_done() && !watched.ended_early {
            let mut sample = Sample::default();
            for _ in 0..LOOKS {
                let stats = map.stats();
                sample.garbage_bytes = sample.garbage_bytes.max(stats.retired_bytes);
                sample.versions = sample.versions.max(stats.retired);
                thread::sleep(PAUSE);
            }
            sample.at = began.elapsed();
            sample.resident_bytes = resident_bytes();
            watched.ended_early = sample.resident_bytes > Some(MOST_RESIDENT);
            watched.samples.push(sample);
        }
        watched
    }

    /// The series, thinned such that no peak is lost, and the worst of it.
    pub(crate) fn tell(&self, report: &mut Report, circumstances: &str) {
        for few in self.samples.chunks(self.samples.len().div_ceil(LINES).max(1)) {
            let most = few.iter().copied().fold(Sample::default(), Sample::most);
            report.note(&format!(
                "sample bench={}{circumstances} s={:.3} garbage_bytes={} resident_mib={}",
                env!("CARGO_CRATE_NAME"),
                most.at.as_secs_f64(),
                most.garbage_bytes,
                format_mib(most.resident_bytes)
            ));
        }
        let worst = self.samples.iter().copied().fold(Sample::default(), Sample::most);
        report.figure("worst_garbage_bytes", circumstances, worst.garbage_bytes);
        report.figure("worst_garbage_versions", circumstances, worst.versions);
        report.figure("worst_resident_mib", circumstances, format_mib(worst.resident_bytes));
        report.figure(ENDED_EARLY, circumstances, self.ended_early);
    }
}
