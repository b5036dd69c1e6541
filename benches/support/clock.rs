#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor's counter"))]
//! A clock for single lookups: the processor's counter, fenced on both sides, where there is one
//! that can be read at once.

use std::time::Instant;

/// Reads the counter neither before what precedes it nor behind what follows.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { _mm_lfence() };
    // SAFETY: as above; the systems we know leave it to user code.
    let ticks = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// Nanoseconds, from the library's clock.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn ticks() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Turns ticks into nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    nanos_per_tick: f64,
    /// What two readings with nothing in between differ by.
    reading: u64,
}

impl Clock {
    /// Compares the counter with the library's clock for a moment.
    pub(crate) fn calibrate() -> Self {
        const LONG_ENOUGH_NANOS: u128 = 20_000_000;
        let (began, first) = (Instant::now(), ticks());
        while began.elapsed().as_nanos() < LONG_ENOUGH_NANOS {}
        let passed = ticks() - first;
        let nanos_per_tick = began.elapsed().as_nanos() as f64 / passed as f64;
        let mut readings: Vec<u64> = (0..1001)
            .map(|_| {
                let before = ticks();
                ticks() - before
            })
            .collect();
        readings.sort_unstable();
        Self { nanos_per_tick, reading: readings[readings.len() / 2] }
    }

    /// What a reading takes, in nanoseconds.
    pub(crate) fn reading_nanos(self) -> f64 {
        self.reading as f64 * self.nanos_per_tick
    }

    /// The time between two readings, without what the reading itself takes.
    pub(crate) fn nanos(self, ticks: u64) -> f64 {
        // Never nothing: times are divided by each other.
        ticks.saturating_sub(self.reading).max(1) as f64 * self.nanos_per_tick
    }
}
