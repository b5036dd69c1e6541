//! Running a model, and the value whose life the models watch.

use crate::address_range::CodeRange;
use crate::index::Index;
use crate::index::entry::Item;
use crate::sync::{start_run, weaken};
use loom::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names the edge that is weakened in a process that `weakened.rs` starts.
pub(crate) const WEAKENED: &str = "PCMAP_WEAKENED_EDGE";

/// Explores `run` with at most `preemptions` switches away from a thread that could go on (`None`:
/// every interleaving), and prints how many schedules that were.
pub(crate) fn check(
    name: &str,
    preemptions: Option<usize>,
    run: impl Fn() + Send + Sync + 'static,
) {
    weaken(std::env::var(WEAKENED).ok().map(|edge| &*edge.leak()));
    let schedules = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    builder.check({
        let schedules = schedules.clone();
        move || {
            start_run();
            schedules.fetch_add(1, Ordering::Relaxed);
            run();
        }
    });
    start_run();
    let schedules = schedules.load(Ordering::Relaxed);
    match preemptions {
        Some(bound) => println!("{name}: {schedules} schedules, at most {bound} preemptions"),
        None => println!("{name}: {schedules} schedules, all there are"),
    }
}

/// Counts the values that were dropped, and lets loom see whether the drop is known of.
#[derive(Debug)]
pub(crate) struct Drops {
    count: AtomicUsize,
    trace: UnsafeCell<usize>,
}

impl Drops {
    pub(crate) fn new() -> Arc<Self> {
        #[expect(clippy::arc_with_non_send_sync, reason = "loom runs a model on one thread")]
        Arc::new(Self { count: AtomicUsize::new(0), trace: UnsafeCell::new(0) })
    }

    /// How many were dropped, whether or not this thread was told.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Touches what every drop touches: loom reports it unless each drop is ordered before.
    pub(crate) fn assert_ordered_before_here(&self) {
        self.trace.with(|_| ());
    }
}

/// A value that loom watches: reading it while or after it is dropped is reported.
#[derive(Debug)]
pub(crate) struct Value {
    start: UnsafeCell<usize>,
    drops: Arc<Drops>,
}

impl Value {
    pub(crate) fn of(range: CodeRange, drops: &Arc<Drops>) -> Self {
        Self { start: UnsafeCell::new(range.start()), drops: drops.clone() }
    }

    /// Reads the value, and checks that it belongs to the range.
    #[expect(unsafe_code, reason = "reads the cell that loom watches")]
    pub(crate) fn assert_of(&self, range: CodeRange) {
        // SAFETY: loom has checked that nobody writes meanwhile.
        let start = self.start.with(|start| unsafe { *start });
        assert_eq!(start, range.start(), "a value of another range");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.start.with_mut(|_| ());
        self.drops.trace.with_mut(|_| ());
        self.drops.count.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) fn range(start: usize) -> CodeRange {
    CodeRange::from_start_len(start, 0x10).expect("in the address space")
}

pub(crate) fn item(start: usize, drops: &Arc<Drops>) -> Item<Value> {
    let range = range(start);
    Item::try_new(range, Value::of(range, drops)).unwrap_or_else(|_| panic!("memory"))
}

/// Whether a lookup finds the range that starts at `start`, and the right value with it. Reads what is found
/// twice, as long as the section lasts.
pub(crate) fn finds(index: &Index<Value>, start: usize) -> bool {
    let reading = index.enter();
    let Some((found, value)) = reading.find((start + 1).into()) else { return false };
    value.assert_of(range(start));
    assert_eq!(found, range(start));
    value.assert_of(range(start));
    true
}

/// A step of reclamation, and what it makes due.
pub(crate) fn step(index: &Index<Value>) {
    index.tend(0, true);
    index.destroy_due();
}

/// Steps until nothing is left that no reader holds: at the end of a model.
pub(crate) fn reclaim_all(index: &Index<Value>) {
    for _ in 0..10 {
        step(index);
    }
}
