//! The threads of a storm, from their beginning to their end.

use crate::interruptions::{FIRST_PERIOD, Governor};
use crate::trap_guests::{Guests, prepared};
use crate::watchdog::watch;
use crate::work;
use crate::worker::Worker;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Threads that trap, beside the one that loads.
const TRAPPING: usize = 3;
pub(crate) const SLOTS: usize = 8;
/// What each round of a trapping thread is.
pub(crate) const TRAPS_A_ROUND: u64 = 5;

/// Whether the threads are interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signals {
    None,
    AsManyAsProgressAllows,
}

/// What the threads of a run share.
pub(crate) struct Storm {
    pub(crate) slots: [Mutex<Arc<Guests>>; SLOTS],
    pub(crate) stop: AtomicBool,
    /// The one that loads is the first.
    pub(crate) workers: Vec<Worker>,
    /// How long a thread may get nothing done.
    pub(crate) patience: Duration,
    /// Whether the loader stops for ever, with a lock, to see the watchdog bark.
    pub(crate) stalls: bool,
}

impl Storm {
    pub(crate) fn new(patience: Duration) -> Self {
        let name = |index| match index {
            0 => "loader".to_owned(),
            trapping => format!("guests {}", trapping - 1),
        };
        Self {
            slots: std::array::from_fn(|_| Mutex::new(Arc::new(Guests::load()))),
            stop: AtomicBool::new(false),
            workers: (0..=TRAPPING).map(|index| Worker::new(name(index), index)).collect(),
            patience,
            stalls: false,
        }
    }

    pub(crate) fn loads(&self) -> u64 {
        self.workers[0].done.load(Relaxed)
    }

    pub(crate) fn traps(&self) -> u64 {
        let rounds = self.workers[1..].iter().map(|worker| worker.done.load(Relaxed));
        rounds.sum::<u64>() * TRAPS_A_ROUND
    }

    pub(crate) fn samples(&self) -> u64 {
        self.workers.iter().map(Worker::samples).sum()
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.workers.iter().all(|worker| worker.has_ended.load(Relaxed))
    }

    /// Runs all threads until `enough`, which is asked now and then. They are interrupted until they
    /// have ended.
    pub(crate) fn run(&self, signals: Signals, mut enough: impl FnMut(&Self) -> bool) {
        thread::scope(|scope| {
            scope.spawn(|| watch(self));
            for worker in &self.workers {
                scope.spawn(move || {
                    let _end = End { storm: self, worker };
                    worker.begin();
                    let thread = prepared();
                    if signals == Signals::AsManyAsProgressAllows {
                        worker.interrupt(FIRST_PERIOD);
                    }
                    match worker.index {
                        0 => work::load(self, worker),
                        first => work::trap(self, worker, &thread, first),
                    }
                });
            }
            let mut governors: Vec<_> = self.workers.iter().map(|_| Governor::default()).collect();
            while self.is_running() {
                thread::sleep(Duration::from_millis(5));
                for (governor, worker) in governors.iter_mut().zip(&self.workers) {
                    governor.govern(worker);
                }
                if enough(self) {
                    self.stop.store(true, Relaxed);
                }
            }
        });
    }
}

/// Tells the others when a thread ends, and makes them end if it panics.
struct End<'s> {
    storm: &'s Storm,
    worker: &'s Worker,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.worker.ran();
        self.worker.has_ended.store(true, Relaxed);
        if thread::panicking() {
            self.storm.stop.store(true, Relaxed);
        }
    }
}
