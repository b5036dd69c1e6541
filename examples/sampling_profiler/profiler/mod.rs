//! The profiler: guests run under it, and a profile comes of it.

mod buffer;
mod guests;
mod profile;
#[path = "../../timers/thread_timer.rs"]
mod thread_timer;
mod timer;

use buffer::SAMPLES;
use guests::Guests;
pub(crate) use guests::SHARES;
use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
pub(crate) use profile::Profile;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};
use thread_timer::ThreadTimer;

const THREADS: usize = 2;

/// Runs the guests on some threads under the profiler, for so long and until there are so many samples.
/// Once in a process: there is one buffer.
///
/// # Errors
///
/// What could not be set up.
pub(crate) fn run(length: Duration, samples: usize) -> Result<Profile, Box<dyn Error>> {
    let guests = Guests::load()?;
    let handler = TrapHandler::install(TrapOptions::new())?;
    timer::install()?;
    thread::scope(|scope| {
        let run = || -> Result<(), String> {
            let told = |error: &dyn Error| error.to_string();
            let thread = GuestThread::prepare(&handler).map_err(|error| told(&error))?;
            let _timer = ThreadTimer::start(timer::PERIOD).map_err(|error| told(&error))?;
            let began = Instant::now();
            while began.elapsed() < length || SAMPLES.count() < samples {
                guests.work(&thread).map_err(|trap| told(&trap))?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().try_for_each(|it| it.join().map_err(|_| "a thread panicked")?)
    })?;
    timer::retire()?;
    Ok(Profile::of(&SAMPLES, guests.registry()))
}
