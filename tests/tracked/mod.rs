//! Values that notice when they are dropped twice, read after their death, or never dropped.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Scrambles the identity, so that zeroed or reused memory does not look like a value.
const ALIVE: usize = 0x5bd1_e995_a5a5_c3c3;
const DEAD: usize = 0xdead_dead_dead_dead;

/// How many values were made and dropped.
#[derive(Debug)]
pub(crate) struct Tally {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self { made: AtomicUsize::new(0), dropped: AtomicUsize::new(0) }
    }

    /// A new value, counted here.
    pub(crate) fn track(&self, id: usize) -> Tracked<'_> {
        self.made.fetch_add(1, SeqCst);
        Tracked { tally: self, canary: AtomicUsize::new(id ^ ALIVE) }
    }

    pub(crate) fn dropped(&self) -> usize {
        self.dropped.load(SeqCst)
    }

    pub(crate) fn alive(&self) -> usize {
        self.made.load(SeqCst) - self.dropped()
    }
}

/// A value of a [`Tally`].
#[derive(Debug)]
pub(crate) struct Tracked<'t> {
    tally: &'t Tally,
    canary: AtomicUsize,
}

impl Tracked<'_> {
    /// The identity it was made with; something else entirely once it is dropped.
    pub(crate) fn id(&self) -> usize {
        self.canary.load(SeqCst) ^ ALIVE
    }
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        if self.canary.swap(DEAD, SeqCst) == DEAD {
            eprintln!("a value was dropped twice");
            std::process::abort();
        }
        self.tally.dropped.fetch_add(1, SeqCst);
    }
}
