#![expect(unsafe_code, reason = "asks for a thread's number and clock")]
//! A thread of the storm, as others see it: what it has done, how often it was interrupted.

use crate::interruptions;
use crate::thread_timer::ThreadTimer;
use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What is known of a thread from outside.
#[derive(Debug)]
pub(crate) struct Worker {
    name: String,
    /// Its place among those that count signals.
    pub(crate) index: usize,
    /// What it has completed.
    pub(crate) done: AtomicU64,
    pub(crate) has_ended: AtomicBool,
    thread: OnceLock<Thread>,
    timer: OnceLock<ThreadTimer>,
    /// Between two signals, in nanoseconds.
    period: AtomicU64,
    /// Of its processor time, in nanoseconds, when it was last asked.
    ran: AtomicU64,
}

#[derive(Debug)]
struct Thread {
    number: libc::pid_t,
    clock: libc::clockid_t,
}

impl Worker {
    pub(crate) fn new(name: String, index: usize) -> Self {
        Self {
            name,
            index,
            done: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            thread: OnceLock::new(),
            timer: OnceLock::new(),
            period: AtomicU64::new(0),
            ran: AtomicU64::new(0),
        }
    }

    /// The calling thread is this worker.
    pub(crate) fn begin(&self) {
        let mut clock = 0;
        // SAFETY: asks about the calling thread.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: there is room for the answer.
        assert_eq!(unsafe { libc::pthread_getcpuclockid(this, &mut clock) }, 0);
        // SAFETY: asks for a number.
        let number = unsafe { libc::gettid() };
        self.thread.set(Thread { number, clock }).expect("one thread");
        interruptions::count_for(self.index);
    }

    /// The calling thread, which is this worker, is interrupted from now on.
    pub(crate) fn interrupt(&self, period: Duration) {
        self.period.store(period.as_nanos() as u64, Relaxed);
        let timer = ThreadTimer::start(period).expect("a timer");
        self.timer.set(timer).expect("one timer");
    }

    /// Changes how often.
    pub(crate) fn set_period(&self, period: Duration) {
        self.period.store(period.as_nanos() as u64, Relaxed);
        let timer = self.timer.get().expect("interrupted");
        timer.set_period(period).expect("a timer");
    }

    /// How often; `None` if it is not interrupted.
    pub(crate) fn period(&self) -> Option<Duration> {
        self.timer.get().map(|_| Duration::from_nanos(self.period.load(Relaxed)))
    }

    /// How much processor time it has had; what was known last if it has ended.
    pub(crate) fn ran(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: there is room for the answer.
        let mut tell = |clock| unsafe { libc::clock_gettime(clock, &mut time) } == 0;
        if self.thread.get().is_some_and(|thread| tell(thread.clock)) {
            let now = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
            self.ran.fetch_max(now.as_nanos() as u64, Relaxed);
        }
        Duration::from_nanos(self.ran.load(Relaxed))
    }

    /// How often it was interrupted.
    pub(crate) fn samples(&self) -> u64 {
        interruptions::SAMPLES[self.index].load(Relaxed)
    }

    /// What the system says about it: a letter that stands for its state.
    fn state(&self) -> Option<char> {
        let thread = self.thread.get()?;
        let told = fs::read_to_string(format!("/proc/self/task/{}/stat", thread.number)).ok()?;
        told.rsplit_once(") ")?.1.chars().next()
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (samples, ran) = (self.samples(), self.ran());
        let rate = samples as f64 / ran.as_secs_f64().max(1e-9);
        write!(f, "{}: {} done in {ran:?} of processor time", self.name, self.done.load(Relaxed))?;
        write!(f, ", {samples} signals: {rate:.0} a second")?;
        if let Some(period) = self.period() {
            write!(f, ", the last after {period:?}")?;
        }
        match self.state() {
            Some(state) => write!(f, ", in state {state}"),
            None => write!(f, ", ended"),
        }
    }
}
