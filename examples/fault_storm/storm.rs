//! The storm as a whole: what is set up, which threads run, and what they add up to.
//!
//! - What runs: [`library`] compiles guests, [`expectation`] knows what each must do,
//!   [`relocation`] joins them, [`guest_memory`] is what they read.
//! - Where it lies: [`module`] in [`counted_pages`]; [`residents`] pins, [`loader`] loads and unloads.
//! - How it is run: [`guest_thread`] catches traps, and keeps an [`activation`] for the sampler.
//! - Around it: [`sampler`] for interruptions, which reads what was [`interrupted`] and knows
//!   [`host_text`]; [`machine`], [`clock`] and [`histogram`] for times, [`progress`] and [`report`] for
//!   people.

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
mod progress;
mod random;
mod relocation;
mod report;
mod residents;
mod sampler;
#[path = "../timers/thread_timer.rs"]
mod thread_timer;

use super::arguments::Settings;
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
use report::Report;
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
struct Storm {
    library: Library,
    memory: GuestMemory,
    residents: Residents,
    /// One for each guest thread.
    activations: Vec<&'static Activation>,
    verdicts: Verdicts,
    tally: LoaderTally,
    stop: AtomicBool,
}

/// Sets up, storms for as long as asked, and takes everything down again.
///
/// # Errors
///
/// A message, if it could not be set up or the loader was refused something.
pub(crate) fn run(settings: Settings) -> Result<Report, Box<dyn Error>> {
    let storm = Storm {
        library: Library::compile()?,
        memory: GuestMemory::map()?,
        residents: Residents::new(RESIDENTS),
        activations: (0..settings.threads).map(|_| Activation::leak()).collect(),
        verdicts: Verdicts::default(),
        tally: LoaderTally::default(),
        stop: AtomicBool::new(false),
    };
    host_text::note()?;
    let handler = TrapHandler::install(TrapOptions::new())?;
    sampler::install()?;
    let engine = module::engine()?;
    let mut loader = Loader::new(engine, &storm.library, &storm.residents, &storm.tally);
    let clock = Calibration::start();
    storm.rage(settings.duration, &handler, &mut loader)?;
    let (elapsed, tick) = clock.finish();
    sampler::retire()?;
    loader.finish()?;
    handler.uninstall().map_err(|error| error.to_string())?;
    Ok(storm.report(elapsed, tick))
}

impl Storm {
    /// Runs all threads until the time is over.
    fn rage(
        &self,
        duration: Duration,
        handler: &TrapHandler,
        loader: &mut Loader<'_>,
    ) -> Result<(), Box<dyn Error>> {
        let period = sampler::period(self.activations.len() + 1);
        thread::scope(|scope| {
            // However this ends, the threads end too.
            let _stop = StopWhenDropped(&self.stop);
            let mut threads = Vec::new();
            threads.push(named("loader").spawn_scoped(scope, || {
                self.interrupted(handler, period, |_| {
                    loader.run(&self.stop).map_err(|e| e.to_string())
                })
            })?);
            for (&activation, number) in self.activations.iter().zip(1..) {
                let Self { library, memory, residents, verdicts, .. } = self;
                let guest = GuestThread { library, memory, residents, verdicts, activation };
                threads.push(named("guest").spawn_scoped(scope, move || {
                    self.interrupted(handler, period, |thread| {
                        guest.run(thread, Random::stream(number), &self.stop);
                        Ok(())
                    })
                })?);
            }
            progress::watch(duration, &self.activations, &self.tally, &self.stop)?;
            self.stop.store(true, Relaxed);
            for thread in threads {
                thread.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    }

    /// Runs a thread's work, prepared for guests and with a timer that interrupts it. When it is over,
    /// for whatever reason, everything stops.
    fn interrupted(
        &self,
        handler: &TrapHandler,
        period: Duration,
        work: impl FnOnce(&PreparedThread) -> Result<(), String>,
    ) -> Result<(), String> {
        let _stop = StopWhenDropped(&self.stop);
        let thread = PreparedThread::prepare(handler).map_err(|error| error.to_string())?;
        let _timer = ThreadTimer::start(period).map_err(|error| error.to_string())?;
        work(&thread)
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
struct StopWhenDropped<'s>(&'s AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
