#![expect(unsafe_code, reason = "enters guests; handlers find the thread's record by a pointer")]
//! A guest thread's record: where it would resume, what it is running, and the handler's answer.
//!
//! A handler finds the record of the thread it interrupted through a thread-local. That is sound
//! here, and would not be in general: the cell is initialised at compile time, has no destructor,
//! and lies in an executable's own thread-local block, which exists from the thread's first
//! instruction on; reading it is one load. Everything in a record is atomic because handlers write
//! it between any two instructions of the thread; no other thread does, but for reading counters.

use super::histogram::Histogram;
use super::machine::{self, Exit};
use super::module::{Attribution, Module};
use std::cell::Cell;
use std::num::NonZeroU8;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

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
    /// The stack pointer to resume with: not zero while a guest runs.
    resume_sp: AtomicUsize,
    /// The serial number of the module that was called last.
    module: AtomicU64,
    answer: Answer,
    /// Faults by signal, in the order of [`FAULTS`].
    faults: [AtomicU64; FAULTS.len()],
    /// Faults in a guest whose program counter the map did not find.
    missed: AtomicU64,
    /// What the handler's lookups took.
    pub(crate) lookups: Histogram,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Returned(u64),
    /// With the handler's answer; without one if the map did not find the program counter.
    Faulted(Option<Attribution>),
}

/// An [`Attribution`] in cells.
#[derive(Debug)]
struct Answer {
    found: AtomicBool,
    module: AtomicU64,
    placed: AtomicBool,
    function: AtomicU64,
    offset: AtomicU64,
    trap: AtomicU8,
}

impl Activation {
    /// A record that is never freed: handlers may look at it whenever they run.
    pub(crate) fn leak() -> &'static Self {
        Box::leak(Box::new(Self {
            resume_sp: AtomicUsize::new(0),
            module: AtomicU64::new(0),
            answer: Answer::new(),
            faults: [const { AtomicU64::new(0) }; FAULTS.len()],
            missed: AtomicU64::new(0),
            lookups: Histogram::new(),
        }))
    }

    /// Makes it the record of this thread.
    pub(crate) fn adopt(&'static self) {
        RECORD.set(self);
    }

    /// The record of this thread, if a guest is running on it. Signal-safe.
    pub(crate) fn running() -> Option<&'static Self> {
        // SAFETY: null, or what `adopt` was given: a reference that is good for ever.
        let record = unsafe { RECORD.get().as_ref() };
        record.filter(|record| record.resume_sp.load(Relaxed) != 0)
    }

    /// Calls the function at a position in `module` on this thread.
    ///
    /// # Safety
    ///
    /// 1. This is the thread's record, and the fault handlers are installed.
    /// 2. The module is registered until the call is over.
    pub(crate) unsafe fn call(
        &self,
        module: &Module,
        position: usize,
        memory: usize,
        (a, b): (u64, u64),
    ) -> Ending {
        self.module.store(module.serial(), Relaxed);
        self.answer.found.store(false, Relaxed);
        let code = module.address_of(position);
        // SAFETY: `enter` asks for 1. code that stays mapped: a function's start, in a module that
        // condition 2 keeps; 2. handlers, by condition 1: `on_fault` resumes with `resume_sp` of
        // the thread's record, which this is.
        let exit = unsafe { machine::enter(&self.resume_sp, code, memory, a, b) };
        match exit {
            Exit { value, faulted: 0 } => Ending::Returned(value),
            Exit { .. } => Ending::Faulted(self.answer.get()),
        }
    }

    /// Notes a fault of the guest that is running: its signal, and what the map said. Signal-safe.
    pub(crate) fn note_fault(&self, signal: libc::c_int, attribution: Option<Attribution>) {
        for ((known, _), count) in FAULTS.iter().zip(&self.faults) {
            if *known == signal {
                count.fetch_add(1, Relaxed);
            }
        }
        match attribution {
            Some(attribution) => self.answer.set(attribution),
            None => {
                self.missed.fetch_add(1, Relaxed);
            }
        }
    }

    /// The stack pointer to resume with. Signal-safe.
    pub(crate) fn resume_sp(&self) -> usize {
        self.resume_sp.load(Relaxed)
    }

    /// The module that is running. Signal-safe.
    pub(crate) fn module(&self) -> u64 {
        self.module.load(Relaxed)
    }

    /// Faults so far, by signal.
    pub(crate) fn faults(&self) -> [u64; FAULTS.len()] {
        self.faults.each_ref().map(|count| count.load(Relaxed))
    }

    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

impl Answer {
    fn new() -> Self {
        Self {
            found: AtomicBool::new(false),
            module: AtomicU64::new(0),
            placed: AtomicBool::new(false),
            function: AtomicU64::new(0),
            offset: AtomicU64::new(0),
            trap: AtomicU8::new(0),
        }
    }

    fn set(&self, attribution: Attribution) {
        let (function, offset) = attribution.place.unwrap_or_default();
        self.module.store(attribution.module, Relaxed);
        self.placed.store(attribution.place.is_some(), Relaxed);
        self.function.store(function.into(), Relaxed);
        self.offset.store(offset.into(), Relaxed);
        self.trap.store(attribution.trap.map_or(0, NonZeroU8::get), Relaxed);
        self.found.store(true, Relaxed);
    }

    fn get(&self) -> Option<Attribution> {
        let place = || (self.function.load(Relaxed) as u32, self.offset.load(Relaxed) as u32);
        self.found.load(Relaxed).then(|| Attribution {
            module: self.module.load(Relaxed),
            place: self.placed.load(Relaxed).then(place),
            trap: NonZeroU8::new(self.trap.load(Relaxed)),
        })
    }
}
