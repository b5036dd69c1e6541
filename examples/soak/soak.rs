//! The soak as a whole: which threads run, and what they add up to.

use crate::arguments::Settings;
use crate::batches::{Counted, Map, Writer};
use crate::children;
use crate::samples::{Sample, Trend, interval};
use crate::status::{Shown, Status};
use crate::stores::Stores;
use crate::storm::{self, Report, StopWhenDropped, Storm};
use crate::tally::Tally;
use crate::trap_guests::{Guests, prepared};
use crate::views::Views;
use pcmap::CodeMap;
use pcmap::trap::TrapHandler;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Threads with timers, beside those of the storm: two that write batches, one that keeps views.
const INTERRUPTED: usize = 3;
/// Between two children, and between two views: what they cost should leave time for the rest.
const BETWEEN_CHILDREN: Duration = Duration::from_millis(20);
const BETWEEN_VIEWS: Duration = Duration::from_millis(2);
/// Garbage that is too much, whatever the cause: a thread that is not scheduled for a second, inside a
/// read section, holds back some tens of megabytes.
const MOST_GARBAGE_BYTES: u64 = 256 << 20;
/// Part of the memory by which it may seem to grow.
const MOST_GROWTH: f64 = 0.05;
/// KiB by which it may grow in a run of less than a minute: not everything has been used then before the
/// first sample that counts.
const MOST_WARMING: u64 = 4 << 10;
const SHORT: Duration = Duration::from_secs(60);

static BUSY: Map = CodeMap::new();

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    duration: Duration,
    storm: Report,
    tally: Tally,
    samples: Vec<Sample>,
    /// Versions and values that are left in the map of batches.
    left: (u64, usize),
}

/// Soaks for as long as asked.
///
/// # Errors
///
/// A message, if it could not be set up, or a thread ended.
pub(crate) fn run(settings: Settings) -> Result<Outcome, Box<dyn Error>> {
    let tally = Tally::default();
    let mut samples = Vec::new();
    let storm = storm::run(settings.guests, INTERRUPTED, |storm, handler| {
        meanwhile(settings.duration, storm, handler, &tally, &mut samples)
    })?;
    BUSY.synchronize();
    let left = (BUSY.stats().retired, Counted::alive());
    Ok(Outcome { duration: settings.duration, storm, tally, samples, left })
}

/// Everything beside the storm, until the time is over.
fn meanwhile(
    duration: Duration,
    storm: &Storm,
    handler: &TrapHandler,
    tally: &Tally,
    samples: &mut Vec<Sample>,
) -> Result<(), Box<dyn Error>> {
    let stop = &AtomicBool::new(false);
    let goes_on = move || !stop.load(Relaxed);
    thread::scope(|scope| {
        // However this ends, the threads end too.
        let _stop = StopWhenDropped(stop);
        let mut interrupted = Vec::new();
        for part in 0..2 {
            interrupted.push(scope.spawn(move || {
                storm.interrupted(handler, |_| {
                    let mut writer = Writer::new(&BUSY, tally, part);
                    while goes_on() {
                        writer.step();
                    }
                    Ok(())
                })
            }));
        }
        interrupted.push(scope.spawn(move || {
            storm.interrupted(handler, |_| {
                let mut views = Views::new(tally);
                while goes_on() {
                    views.step();
                    thread::sleep(BETWEEN_VIEWS);
                }
                Ok(())
            })
        }));
        // These run guests that the sampler does not know, or fork, which a timer would interrupt for
        // ever: they have none.
        scope.spawn(move || {
            let (thread, mut stores) = (prepared(), Stores::new(tally));
            while goes_on() {
                stores.step(&thread);
            }
        });
        scope.spawn(move || {
            let (thread, guests) = (prepared(), Guests::load());
            while goes_on() {
                children::step(tally, &thread, &guests, &BUSY);
                thread::sleep(BETWEEN_CHILDREN);
            }
        });
        watch(duration, storm, tally, samples)?;
        stop.store(true, Relaxed);
        for thread in interrupted {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// Samples and shows, until the time is over or a thread of the storm has ended.
fn watch(
    duration: Duration,
    storm: &Storm,
    tally: &Tally,
    samples: &mut Vec<Sample>,
) -> Result<(), Box<dyn Error>> {
    let (status, began, interval) = (Status::new(duration)?, Instant::now(), interval(duration));
    loop {
        let left = duration.saturating_sub(began.elapsed());
        if left.is_zero() || storm.is_over() {
            return Ok(());
        }
        thread::sleep(left.min(interval));
        let sample = Sample::take(began.elapsed(), &BUSY);
        let (faults, registrations) = storm.progress();
        let children = tally.children.load(Relaxed);
        let errors = tally.errors();
        status.show(&Shown { sample, faults, registrations, children, errors });
        samples.push(sample);
    }
}

impl Outcome {
    fn garbage_most(&self) -> u64 {
        self.samples.iter().map(|sample| sample.garbage_bytes).max().unwrap_or(0)
    }

    fn resident(&self) -> Trend {
        Trend::of(&self.samples, |sample| sample.resident_kib)
    }

    fn garbage(&self) -> Trend {
        Trend::of(&self.samples, |sample| sample.garbage_bytes)
    }

    fn is_flat(&self) -> bool {
        let Trend { first, last } = self.resident();
        let allowed = (first as f64 * MOST_GROWTH) as u64;
        let allowed = if self.duration < SHORT { allowed.max(MOST_WARMING) } else { allowed };
        first > 0 && last <= first + allowed
    }

    fn is_garbage_bounded(&self) -> bool {
        // Twice as much is chance, and so are a few versions.
        let Trend { first, last } = self.garbage();
        self.garbage_most() <= MOST_GARBAGE_BYTES && last <= 2 * first + (4 << 20)
    }

    /// Whether everything went as promised.
    pub(crate) fn is_clean(&self) -> bool {
        let Self { storm, tally, left, .. } = self;
        let worked =
            [&tally.batches, &tally.refusals, &tally.views, &tally.stores, &tally.children];
        storm.is_clean()
            && tally.errors() == 0
            && worked.iter().all(|count| count.load(Relaxed) > 0)
            && *left == (0, 0)
            && self.is_garbage_bounded()
            && self.is_flat()
    }
}

/// Some lines to read, and the last to parse.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storm, tally, samples, left, .. } = self;
        writeln!(f, "{storm}")?;
        if let Some(error) = tally.first_error() {
            writeln!(f, "first error: {error}")?;
        }
        let (resident, garbage) = (self.resident(), self.garbage());
        let of = |count: &AtomicU64| count.load(Relaxed);
        write!(
            f,
            "soak clean={} seconds={:.0} samples={} errors={} batches={} refusals={} views={} \
             stores={} store_traps={} breakpoints={} children={} garbage_first_bytes={} \
             garbage_last_bytes={} garbage_most_bytes={} garbage_left={} values_left={} resident_first_kib={} resident_last_kib={} \
             resident_growth_percent={:.1}",
            self.is_clean(),
            samples.last().map_or(0.0, |sample| sample.at.as_secs_f64()),
            samples.len(),
            tally.errors(),
            of(&tally.batches),
            of(&tally.refusals),
            of(&tally.views),
            of(&tally.stores),
            of(&tally.traps),
            of(&tally.breakpoints),
            of(&tally.children),
            garbage.first,
            garbage.last,
            self.garbage_most(),
            left.0,
            left.1,
            resident.first,
            resident.last,
            resident.percent()
        )
    }
}
