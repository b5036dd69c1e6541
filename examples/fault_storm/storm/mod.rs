//! The storm as a whole: what is set up, which threads run, and what they add up to.
//!
//! - What runs: [`library`] compiles guests, [`expectation`] knows what each must do,
//!   [`relocation`] joins them, [`guest_memory`] is what they read.
//! - Where it lies: [`module`] in [`counted_pages`]; [`residents`] pins, [`loader`] loads and unloads.
//! - How it is run: [`guest_thread`] catches traps, and keeps an [`activation`] for the sampler.
//! - Around it: [`sampler`] for interruptions, which reads what was [`interrupted`] and knows
//!   [`host_text`]; [`machine`], [`clock`] and [`histogram`] for times, [`report`] for people.
//!
//! What happens meanwhile, and for how long, the program says that has the storm.

mod activation;
mod clock;
mod counted_pages;
mod expectation;
mod guest_memory;
mod guest_thread;
mod histogram;
mod host_text;
mod interrupted;
mod library;
mod loader;
mod machine;
mod module;
pub(crate) mod random;
mod relocation;
mod report;
mod residents;
mod sampler;
#[path = "../../timers/thread_timer.rs"]
mod thread_timer;

use activation::Activation;
use clock::{Calibration, TickLength};
use guest_memory::GuestMemory;
use guest_thread::{GuestThread, Verdicts};
use histogram::Histogram;
use library::Library;
use loader::{Loader, LoaderTally};
use pcmap::registry::process_code_map;
use pcmap::trap::{GuestThread as PreparedThread, TrapHandler, TrapOptions};
use random::Random;
pub(crate) use report::Report;
use residents::Residents;
use sampler::SAMPLES;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use thread_timer::ThreadTimer;

/// Modules that can be run at any time.
const RESIDENTS: usize = 128;

/// What the threads of a run share.
#[derive(Debug)]
pub(crate) struct Storm {
    library: Library,
    memory: GuestMemory,
    residents: Residents,
    /// One for each guest thread.
    activations: Vec<&'static Activation>,
    verdicts: Verdicts,
    tally: LoaderTally,
    /// Between two interruptions of a thread.
    period: Duration,
    stop: AtomicBool,
}

/// Sets up, storms until `meanwhile` returns, and takes everything down again. Of the threads that
/// are interrupted, `guests` run guests, one loads them, and `others` are those of `meanwhile`.
///
/// # Errors
///
/// A message, if it could not be set up or the loader was refused something; or that of `meanwhile`.
pub(crate) fn run(
    guests: usize,
    others: usize,
    meanwhile: impl FnOnce(&Storm, &TrapHandler) -> Result<(), Box<dyn Error>>,
) -> Result<Report, Box<dyn Error>> {
    let storm = Storm {
        library: Library::compile()?,
        memory: GuestMemory::map()?,
        residents: Residents::new(RESIDENTS),
        activations: (0..guests).map(|_| Activation::leak()).collect(),
        verdicts: Verdicts::default(),
        tally: LoaderTally::default(),
        period: sampler::period(guests + 1 + others),
        stop: AtomicBool::new(false),
    };
    host_text::note()?;
    let handler = TrapHandler::install(TrapOptions::new())?;
    sampler::install()?;
    let engine = module::engine()?;
    let mut loader = Loader::new(engine, &storm.library, &storm.residents, &storm.tally);
    let clock = Calibration::start();
    storm.rage(&handler, &mut loader, meanwhile)?;
    let (elapsed, tick) = clock.finish();
    sampler::retire()?;
    loader.finish()?;
    handler.uninstall().map_err(|error| error.to_string())?;
    Ok(storm.report(elapsed, tick))
}

impl Storm {
    /// Runs all threads until `meanwhile` returns.
    fn rage(
        &self,
        handler: &TrapHandler,
        loader: &mut Loader<'_>,
        meanwhile: impl FnOnce(&Self, &TrapHandler) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        thread::scope(|scope| {
            // However this ends, the threads end too.
            let _stop = StopWhenDropped(&self.stop);
            let mut threads = Vec::new();
            threads.push(named("loader").spawn_scoped(scope, || {
                self.interrupted(handler, |_| loader.run(&self.stop).map_err(|e| e.to_string()))
            })?);
            for (&activation, number) in self.activations.iter().zip(1..) {
                let Self { library, memory, residents, verdicts, .. } = self;
                let guest = GuestThread { library, memory, residents, verdicts, activation };
                threads.push(named("guest").spawn_scoped(scope, move || {
                    self.interrupted(handler, |thread| {
                        guest.run(thread, Random::stream(number), &self.stop);
                        Ok(())
                    })
                })?);
            }
            meanwhile(self, handler)?;
            self.stop.store(true, Relaxed);
            for thread in threads {
                thread.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }

    /// Runs a thread's work, prepared for guests and with a timer that interrupts it. When it is over,
    /// for whatever reason, everything stops.
    pub(crate) fn interrupted(
        &self,
        handler: &TrapHandler,
        work: impl FnOnce(&PreparedThread) -> Result<(), String>,
    ) -> Result<(), String> {
        let _stop = StopWhenDropped(&self.stop);
        let thread = PreparedThread::prepare(handler).map_err(|error| error.to_string())?;
        let _timer = ThreadTimer::start(self.period).map_err(|error| error.to_string())?;
        work(&thread)
    }

    /// Whether a thread has ended before it was told to.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Faults and registrations so far.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let faults = self.activations.iter().flat_map(|activation| activation.faults()).sum();
        (faults, self.tally.registrations.load(Relaxed))
    }

    /// Adds everything up, when all threads have ended.
    fn report(self, elapsed: Duration, tick: TickLength) -> Report {
        let Self { library, activations, verdicts, tally, .. } = self;
        let lookups: Vec<_> = activations.iter().map(|thread| &thread.lookups).collect();
        let percentile = |percent| tick.nanos(Histogram::percentile(&lookups, percent));
        let faults = activations.iter().map(|thread| thread.faults());
        let stats = process_code_map().stats();
        let (modules_mapped, modules_unmapped) = counted_pages::mapped_and_unmapped();
        Report {
            elapsed,
            threads: activations.len(),
            functions: library.functions().count(),
            traps: library.functions().map(|function| function.traps.len()).sum(),
            faults: faults.fold([0; _], |sums, more| std::array::from_fn(|i| sums[i] + more[i])),
            calls_misattributed: verdicts.misattributed.into_inner(),
            first_misattributed: verdicts.first.into_inner(),
            samples_in_guest: SAMPLES.in_guest.load(Relaxed),
            samples_in_handler: SAMPLES.in_handler.load(Relaxed),
            samples_elsewhere: SAMPLES.elsewhere.load(Relaxed),
            samples_missed: SAMPLES.missed.load(Relaxed),
            samples_astray: SAMPLES.astray.load(Relaxed),
            registrations: tally.registrations.into_inner(),
            publications: stats.publications,
            lookup_p50_ns: percentile(50),
            lookup_p99_ns: percentile(99),
            clock_ns: tick.nanos(clock::reading_cost()),
            retired: stats.retired + stats.destroyed,
            destroyed: stats.destroyed,
            modules_mapped,
            modules_unmapped,
        }
    }
}

fn named(role: &str) -> thread::Builder {
    thread::Builder::new().name(role.to_owned())
}

/// Tells every thread to stop.
pub(crate) struct StopWhenDropped<'s>(pub(crate) &'s AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
