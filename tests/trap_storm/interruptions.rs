#![expect(unsafe_code, reason = "a signal handler")]
//! The signals: their handler, how many there can be, and how many a thread is given.
//!
//! A timer of a nanosecond has the kernel deliver one signal behind the other: the next is there
//! before the handler has returned, and the thread does not get to execute a single instruction. That
//! is the highest rate there is, and nothing happens at it. So each thread gets the shortest period at
//! which it still gets something done: a governor, which is not interrupted, lengthens the period of a
//! thread that has spent a while on signals only, and else keeps shortening it.

use crate::worker::Worker;
use pcmap::trap::sample_guest;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use std::{hint, mem, ptr, thread};

/// Most threads that count for themselves.
const COUNTERS: usize = 8;

/// Signals that each thread has handled; the last counter is that of all others.
pub(crate) static SAMPLES: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];
/// Signals that interrupted a guest.
pub(crate) static IN_GUESTS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Neither initialised nor destroyed, and in a program, not a library that was loaded: a handler
    /// may read it.
    static COUNTER: Cell<usize> = const { Cell::new(COUNTERS - 1) };
}

/// The calling thread counts in `SAMPLES[index]`.
pub(crate) fn count_for(index: usize) {
    COUNTER.set(index);
}

extern "C" fn on_sample(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let mut frames = [0; 16];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else's.
    let count = unsafe { sample_guest(context, &mut frames) };
    SAMPLES[COUNTER.get()].fetch_add(1, Relaxed);
    IN_GUESTS.fetch_add(u64::from(count > 0), Relaxed);
}

/// Installs the handler.
pub(crate) fn install() {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_sample as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: a handler that does only what handlers may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) }, 0);
}

/// Signals a second of processor time, of a thread that gets as many as the kernel can deliver.
pub(crate) fn ceiling() -> f64 {
    let (worker, stop) = (Worker::new("ceiling".into(), COUNTERS - 2), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            worker.begin();
            worker.interrupt(Duration::from_millis(10));
            while !stop.load(Relaxed) {
                hint::spin_loop();
            }
        });
        while worker.period().is_none() {
            thread::yield_now();
        }
        let (samples, ran) = (worker.samples(), worker.ran());
        worker.set_period(Duration::from_nanos(1));
        while worker.ran() < ran + Duration::from_millis(50) {
            thread::sleep(Duration::from_millis(5));
        }
        let (samples, ran) = (worker.samples() - samples, worker.ran() - ran);
        stop.store(true, Relaxed);
        worker.set_period(Duration::from_millis(10));
        samples as f64 / ran.as_secs_f64()
    })
}

/// What a thread begins with.
pub(crate) const FIRST_PERIOD: Duration = Duration::from_micros(100);
/// Far beyond what any processor can do.
const SHORTEST: Duration = Duration::from_nanos(500);
const LONGEST: Duration = Duration::from_millis(10);
/// So long a thread may get nothing done, of its processor time: some ten times what a load takes
/// without signals, and more of a round of traps.
const PATIENCE: Duration = Duration::from_millis(5);

/// Decides how often one thread is interrupted.
#[derive(Debug, Default)]
pub(crate) struct Governor {
    done: u64,
    ran: Duration,
}

impl Governor {
    /// To be called every few milliseconds.
    pub(crate) fn govern(&mut self, worker: &Worker) {
        let Some(period) = worker.period() else { return };
        let (done, ran) = (worker.done.load(Relaxed), worker.ran());
        let period = if done > self.done {
            period - period / 8
        } else if ran > self.ran + PATIENCE {
            period + period / 2
        } else {
            return;
        };
        (self.done, self.ran) = (done, ran);
        worker.set_period(period.clamp(SHORTEST, LONGEST));
    }
}
