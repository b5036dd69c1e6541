//! A guest thread's record: what it is running, and what its calls came to.
//!
//! The sampler's handler finds the record of the thread it interrupted through a thread-local. That is
//! sound here, and would not be in general: the cell is initialised at compile time, has no destructor,
//! and lies in an executable's own thread-local block, which exists from the thread's first instruction
//! on; reading it is one load. (The trap handler's own way, which is good anywhere, is the library's.)

use super::histogram::Histogram;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The signals that faults arrive as.
pub(crate) const FAULTS: [(libc::c_int, &str); 4] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
];

thread_local! {
    static RECORD: Cell<*const Activation> = const { Cell::new(ptr::null()) };
}

/// One guest thread's record.
#[derive(Debug)]
pub(crate) struct Activation {
    /// The serial number of the module that is running; zero while none is.
    module: AtomicU64,
    /// Faults by signal, in the order of [`FAULTS`].
    faults: [AtomicU64; FAULTS.len()],
    /// What the sampler's lookups took on this thread.
    pub(crate) lookups: Histogram,
}

impl Activation {
    /// A record that is never freed: handlers may look at it whenever they run.
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::new(Self {
            module: AtomicU64::new(0),
            faults: [const { AtomicU64::new(0) }; FAULTS.len()],
            lookups: Histogram::new(),
        }))
    }

    /// Makes it the record of this thread.
    pub(crate) fn adopt(&'static self) {
        RECORD.set(self);
    }

    /// The record of this thread, if it has one. Signal-safe.
    #[expect(unsafe_code, reason = "a pointer in a thread-local")]
    pub(crate) fn of_thread() -> Option<&'static Self> {
        // SAFETY: null, or what `adopt` was given: a reference that is good for ever.
        unsafe { RECORD.get().as_ref() }
    }

    /// Notes that a module runs from here on, or none (zero).
    pub(crate) fn set_running(&self, module: u64) {
        self.module.store(module, Relaxed);
    }

    /// The module that is running, if one is. Signal-safe.
    pub(crate) fn running(&self) -> Option<u64> {
        Some(self.module.load(Relaxed)).filter(|&module| module != 0)
    }

    /// Counts a fault by its signal.
    pub(crate) fn note_fault(&self, signal: libc::c_int) {
        for ((known, _), count) in FAULTS.iter().zip(&self.faults) {
            if *known == signal {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// Faults so far, by signal.
    pub(crate) fn faults(&self) -> [u64; FAULTS.len()] {
        self.faults.each_ref().map(|count| count.load(Relaxed))
    }
}
