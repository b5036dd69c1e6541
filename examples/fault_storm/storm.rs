#![expect(unsafe_code, reason = "lets threads run guests")]
//! The storm as a whole: what is set up, which threads run, and what they add up to.
//!
//! - What runs: [`library`] compiles guests, [`expectation`] knows what each must do,
//!   [`relocation`] joins them, [`guest_memory`] is what they read.
//! - Where it lies: [`module`] in [`pages`] with its [`tables`]; [`residents`] pins, [`loader`]
//!   loads and unloads.
//! - How it is entered and left: [`guest_thread`] through an [`activation`], the [`machine`]'s way
//!   in, and out by [`faults`], which reads what was [`interrupted`].
//! - Around it: [`chain`] for faults that are not ours, [`sampler`] for interruptions,
//!   [`handler_stack`] below both; [`clock`] and [`histogram`] for times, [`progress`] and
//!   [`report`] for people.

mod activation;
mod chain;
mod clock;
mod expectation;
mod faults;
mod guest_memory;
mod guest_thread;
mod handler_stack;
mod histogram;
mod interrupted;
mod library;
mod loader;
mod machine;
mod module;
mod pages;
mod progress;
mod random;
mod relocation;
mod report;
mod residents;
mod sampler;
mod tables;

use super::arguments::Settings;
use activation::Activation;
use clock::{Calibration, TickLength};
use guest_memory::GuestMemory;
use guest_thread::{GuestThread, Verdicts};
use handler_stack::HandlerStack;
use histogram::Histogram;
use library::Library;
use loader::{Loader, LoaderTally};
use module::CODE;
use random::Random;
use report::Report;
use residents::Residents;
use sampler::{SAMPLES, ThreadTimer};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

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
    faults::install()?;
    sampler::install()?;
    let mut loader = Loader::new(&storm.library, &storm.residents, &storm.tally);
    let clock = Calibration::start();
    // SAFETY: the fault handlers were installed above.
    unsafe { storm.rage(settings.duration, &mut loader) }?;
    let (elapsed, tick) = clock.finish();
    sampler::retire()?;
    loader.finish();
    CODE.synchronize();
    Ok(storm.report(elapsed, tick))
}

impl Storm {
    /// Runs all threads until the time is over.
    ///
    /// # Safety
    ///
    /// The fault handlers are installed.
    unsafe fn rage(
        &self,
        duration: Duration,
        loader: &mut Loader<'_>,
    ) -> Result<(), Box<dyn Error>> {
        let period = sampler::period(self.activations.len() + 1);
        thread::scope(|scope| {
            // However this ends, the threads end too.
            let _stop = StopWhenDropped(&self.stop);
            let mut threads = Vec::new();
            threads.push(named("loader").spawn_scoped(scope, || {
                self.interrupted(period, || loader.run(&self.stop).map_err(|e| e.to_string()))
            })?);
            for (&activation, number) in self.activations.iter().zip(1..) {
                let Self { library, memory, residents, verdicts, .. } = self;
                let guest = GuestThread { library, memory, residents, verdicts, activation };
                threads.push(named("guest").spawn_scoped(scope, move || {
                    self.interrupted(period, || {
                        // SAFETY: the handlers are the caller's.
                        unsafe { guest.run(Random::stream(number), &self.stop) };
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

    /// Runs a thread's work with a stack for its handlers and a timer that interrupts it. When it
    /// is over, for whatever reason, everything stops.
    fn interrupted(
        &self,
        period: Duration,
        work: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let _stop = StopWhenDropped(&self.stop);
        let _stack = HandlerStack::install().map_err(|error| error.to_string())?;
        let _timer = ThreadTimer::start(period).map_err(|error| error.to_string())?;
        work()
    }

    /// Adds everything up, when all threads have ended.
    fn report(self, elapsed: Duration, tick: TickLength) -> Report {
        let Self { library, activations, verdicts, tally, .. } = self;
        let lookups: Vec<_> = activations.iter().map(|thread| &thread.lookups).collect();
        let percentile = |percent| tick.nanos(Histogram::percentile(&lookups, percent));
        let faults = activations.iter().map(|thread| thread.faults());
        let stats = CODE.stats();
        let (modules_mapped, modules_unmapped) = module::mapped_and_unmapped();
        Report {
            elapsed,
            threads: activations.len(),
            functions: library.functions().count(),
            traps: library.functions().map(|function| function.traps.len()).sum(),
            faults: faults.fold([0; _], |sums, more| std::array::from_fn(|i| sums[i] + more[i])),
            calls_misattributed: verdicts.misattributed.into_inner(),
            first_misattributed: verdicts.first.into_inner(),
            faults_missed: activations.iter().map(|thread| thread.missed()).sum(),
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
