//! What was done beside the storm, and what was wrong.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts for others to read.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Batches registered, and batches refused as they had to be.
    pub(crate) batches: AtomicU64,
    pub(crate) refusals: AtomicU64,
    /// Views taken, kept, and found unchanged.
    pub(crate) views: AtomicU64,
    /// Stores that came and went, their traps, and breakpoints set and cleared.
    pub(crate) stores: AtomicU64,
    pub(crate) traps: AtomicU64,
    pub(crate) breakpoints: AtomicU64,
    /// Children that found everything right.
    pub(crate) children: AtomicU64,
    errors: AtomicU64,
    first_error: OnceLock<String>,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Tally {
    /// Counts an error, if it is none that something holds; keeps the first in words.
    pub(crate) fn check(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            count(&self.errors);
            self.first_error.get_or_init(what);
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    pub(crate) fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }
}
