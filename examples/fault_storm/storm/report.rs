//! What a run came to.

use super::activation::FAULTS;
use std::fmt;
use std::time::Duration;

/// All figures are counted or measured in the run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) elapsed: Duration,
    pub(crate) threads: usize,
    pub(crate) functions: usize,
    /// Places where the functions can trap.
    pub(crate) traps: usize,
    /// Faults by signal, in the order of [`FAULTS`].
    pub(crate) faults: [u64; FAULTS.len()],
    pub(crate) calls_misattributed: u64,
    pub(crate) first_misattributed: Option<String>,
    pub(crate) samples_in_guest: u64,
    pub(crate) samples_in_handler: u64,
    pub(crate) samples_elsewhere: u64,
    pub(crate) samples_missed: u64,
    pub(crate) samples_astray: u64,
    pub(crate) registrations: u64,
    pub(crate) publications: u64,
    pub(crate) lookup_p50_ns: u64,
    pub(crate) lookup_p99_ns: u64,
    /// What reading the clock adds to each lookup time.
    pub(crate) clock_ns: u64,
    /// Versions of the map displaced, and of those destroyed.
    pub(crate) retired: u64,
    pub(crate) destroyed: u64,
    pub(crate) modules_mapped: u64,
    pub(crate) modules_unmapped: u64,
}

impl Report {
    fn faults(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// Answers about a guest that were wrong, of faults and of samples.
    fn misattributed(&self) -> u64 {
        self.calls_misattributed + self.samples_astray
    }

    /// Guests that the map did not find. (A fault of one would have ended the process by its signal.)
    fn missed(&self) -> u64 {
        self.samples_missed
    }

    fn samples(&self) -> u64 {
        self.samples_in_guest
            + self.samples_in_handler
            + self.samples_elsewhere
            + self.samples_missed
            + self.samples_astray
    }

    fn garbage(&self) -> u64 {
        self.retired - self.destroyed
    }

    /// Whether everything went as promised.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults() > 0
            && self.misattributed() == 0
            && self.missed() == 0
            && self.garbage() == 0
            && self.modules_mapped == self.modules_unmapped
    }
}

/// Some lines to read, and the last to parse.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = |count: u64| count as f64 / seconds;
        writeln!(
            f,
            "ran      {seconds:.1} s, {} guest threads and one loader; {} functions, {} known traps",
            self.threads, self.functions, self.traps
        )?;
        writeln!(
            f,
            "modules  {} mapped ({:.0}/s), {} unmapped, in {} publications",
            self.modules_mapped,
            rate(self.modules_mapped),
            self.modules_unmapped,
            self.publications
        )?;
        write!(f, "faults  ")?;
        for ((_, name), count) in FAULTS.iter().zip(self.faults) {
            write!(f, " {name} {count}")?;
        }
        writeln!(f, " ({:.0}/s)", rate(self.faults()))?;
        writeln!(
            f,
            "samples  in a guest {}, nested in a handler {}, elsewhere {}; wrong {}, missed {}",
            self.samples_in_guest,
            self.samples_in_handler,
            self.samples_elsewhere,
            self.samples_astray,
            self.samples_missed
        )?;
        writeln!(
            f,
            "lookups  from program counter to trap code, in the sampler's handler; {} ns of each \
             figure are the clock's own",
            self.clock_ns
        )?;
        if let Some(first) = &self.first_misattributed {
            writeln!(f, "first misattributed: {first}")?;
        }
        write!(
            f,
            "faults={} misattributed={} missed={} samples={} registrations={} lookup_p50_ns={} \
             lookup_p99_ns={} retired={} destroyed={} garbage={}",
            self.faults(),
            self.misattributed(),
            self.missed(),
            self.samples(),
            self.registrations,
            self.lookup_p50_ns,
            self.lookup_p99_ns,
            self.retired,
            self.destroyed,
            self.garbage()
        )
    }
}
