//! The door to the machine, over loom: the same names as in pcmap's own `sync.rs`.
//!
//! What differs from the real one, and why that is right:
//!
//! - The cell of owned snapshots and the collector are stand-ins (`ArcSwapAny`, `Collector`) that
//!   do what arc-swap and crossbeam-epoch promise. The cell is a loom mutex, which orders its users
//!   more than arc-swap promises to; handlers are not among them, and writers come to it last.
//! - Counters that only statistics read are not modelled.
//! - Two shards, and constants small enough that every interleaving can be visited.
//! - A block's [`Liveness`] makes loom report a read that races with its destruction; a read that
//!   comes after it fails outright, for [`dispose`] keeps the memory.

use crate::parking;
use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
pub(crate) use std::sync::atomic::AtomicU64 as Statistic;

pub(crate) const SHARDS: usize = 2;
pub(crate) const WRITES_PER_RECLAIM: u64 = 1 << 32;
pub(crate) const LARGE_TABLE: usize = 1 << 32;
pub(crate) const WRITE_PATIENCE: u32 = 1;
pub(crate) const RECLAIM_PATIENCE: u32 = 4;
pub(crate) const STRETCH: u64 = 64;
pub(crate) const STRETCHES: usize = 4;

thread_local! {
    static WEAKENED: Cell<Option<&'static str>> = const { Cell::new(None) };
    static GENERATION: Cell<usize> = const { Cell::new(1) };
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The orderings by edge name; one of them can be weakened.
pub(crate) mod edge {
    use std::sync::atomic::Ordering;

    macro_rules! edges {
        ($($name:ident = $ordering:ident;)*) => {
            $(pub(crate) fn $name() -> Ordering {
                if super::is_weakened(stringify!($name)) { Ordering::Relaxed } else { Ordering::$ordering }
            })*
            #[cfg(test)]
            pub(crate) const EDGES: &[(&str, Ordering)] = &[$((stringify!($name), Ordering::$ordering)),*];
        };
    }
    macro_rules! fences {
        ($($name:ident = $ordering:ident;)*) => {
            $(pub(crate) fn $name() {
                if !super::is_weakened(stringify!($name)) {
                    loom::sync::atomic::fence(Ordering::$ordering);
                }
            })*
            #[cfg(test)]
            pub(crate) const FENCES: &[&str] = &[$(stringify!($name)),*];
        };
    }
    include!("../../src/edges.rs");
}

fn is_weakened(name: &str) -> bool {
    WEAKENED.get() == Some(name)
}

/// Makes one edge relaxed, or drops one fence, until it is set to `None`.
#[cfg(test)]
pub(crate) fn weaken(name: Option<&'static str>) {
    WEAKENED.set(name);
}

/// Sets what the world looks like at the start of a run.
#[cfg(test)]
pub(crate) fn start_run() {
    parking::release();
    GENERATION.set(1);
    SHARD.set(None);
}

/// From here on this is a child of `fork`.
#[cfg(test)]
pub(crate) fn fork() {
    GENERATION.set(GENERATION.get() + 1);
}

/// Puts all readers on one shard, or, with `None`, each thread on its own as far as they go.
#[cfg(test)]
pub(crate) fn use_shard(shard: Option<usize>) {
    SHARD.set(shard);
}

macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
        $(#[$attribute])* $visibility fn $($rest)*
    };
}
pub(crate) use const_fn;

macro_rules! filled {
    ($value:expr; $size:expr) => {
        std::array::from_fn::<_, { $size }, _>(|_| $value)
    };
}
pub(crate) use filled;

pub(crate) fn shard_hint() -> usize {
    SHARD.get().unwrap_or_else(|| {
        let name = format!("{:?}", loom::thread::current().id());
        name.bytes().map(usize::from).sum()
    })
}

pub(crate) fn publication_barrier() {}

pub(crate) fn monotonic_nanos() -> u64 {
    1
}

pub(crate) fn fork_generation() -> usize {
    GENERATION.get()
}

pub(crate) fn unique_number() -> u64 {
    1
}

pub(crate) fn prepare_cell_use() {}

pub(crate) fn unless_destroying<R>(_owner: usize, run: impl FnOnce() -> R) -> Option<R> {
    Some(run())
}

pub(crate) fn pause(_: Duration) {
    loom::thread::yield_now();
}

/// A block's life, watched by loom.
#[derive(Debug)]
pub(crate) struct Liveness {
    access: loom::cell::UnsafeCell<()>,
    ended: Cell<bool>,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Self { access: loom::cell::UnsafeCell::new(()), ended: Cell::new(false) }
    }

    pub(crate) fn read(&self) {
        assert!(!self.ended.get(), "read after destruction");
        self.access.with(|_| ());
    }

    pub(crate) fn end(&self) {
        assert!(!self.ended.replace(true), "destroyed twice");
        self.access.with_mut(|_| ());
    }
}

pub(crate) fn dispose<B>(block: Box<B>) {
    parking::while_parking(|| drop(block));
}

/// As arc-swap's trait of that name.
///
/// # Safety
///
/// 1. As for arc-swap's.
#[expect(unsafe_code, reason = "the trait is unsafe to implement where it comes from")]
pub(crate) unsafe trait RefCnt: Clone {
    type Base;
    #[expect(dead_code, reason = "the stand-in keeps whole pointers")]
    fn into_ptr(me: Self) -> *mut Self::Base;
    fn as_ptr(me: &Self) -> *mut Self::Base;
    #[expect(dead_code, reason = "the stand-in keeps whole pointers")]
    unsafe fn from_ptr(pointer: *const Self::Base) -> Self;
}

/// Stands in for arc-swap: a cell from which a counted pointer can be loaded while it is replaced.
pub(crate) struct ArcSwapAny<R> {
    held: loom::sync::Mutex<R>,
}

pub(crate) struct Loaded<R>(R);

impl<R> Deref for Loaded<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.0
    }
}

impl<R: RefCnt> ArcSwapAny<R> {
    pub(crate) fn new(value: R) -> Self {
        Self { held: loom::sync::Mutex::new(value) }
    }

    pub(crate) fn load_full(&self) -> R {
        self.held.lock().expect("no panic under the lock").clone()
    }

    pub(crate) fn load(&self) -> Loaded<R> {
        Loaded(self.load_full())
    }

    pub(crate) fn compare_and_swap(&self, current: &R, new: R) -> Loaded<R> {
        let mut held = self.held.lock().expect("no panic under the lock");
        if R::as_ptr(&held) == R::as_ptr(current) {
            Loaded(std::mem::replace(&mut *held, new))
        } else {
            Loaded(held.clone())
        }
    }
}

type Deferred = Box<dyn FnOnce()>;

/// Stands in for crossbeam-epoch: what a guard defers runs in a later `flush`, when no guard is
/// left that was pinned at the time; or when the collector is dropped.
///
/// It orders no more than crossbeam-epoch does: a full fence where a guard pins or flushes
/// (so that who pins later sees what was unlinked before), from each unpinning to what runs after
/// it, and from the flush behind a deferring to its running. The bookkeeping itself is hidden from loom.
#[derive(Clone)]
pub(crate) struct Collector {
    state: Arc<CollectorState>,
}

struct CollectorState {
    book: Mutex<Book>,
    /// Stored to by whoever unpins or flushes, loaded by whoever runs.
    handover: AtomicUsize,
}

#[derive(Default)]
struct Book {
    pinned: Vec<u64>,
    next: u64,
    /// What was deferred, with the first guard number that was not given out at the time.
    deferred: Vec<(u64, Deferred)>,
}

impl Collector {
    pub(crate) fn new() -> Self {
        let state = CollectorState { book: Mutex::default(), handover: AtomicUsize::new(0) };
        #[expect(clippy::arc_with_non_send_sync, reason = "loom runs a model on one thread")]
        let state = Arc::new(state);
        Self { state }
    }

    pub(crate) fn register(&self) -> LocalHandle {
        LocalHandle { collector: self.clone() }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.state.book.lock().expect("no panic under the lock")
    }
}

impl Drop for CollectorState {
    fn drop(&mut self) {
        let deferred = std::mem::take(&mut self.book.lock().expect("no panic").deferred);
        deferred.into_iter().for_each(|(_, run)| run());
    }
}

pub(crate) struct LocalHandle {
    collector: Collector,
}

impl LocalHandle {
    pub(crate) fn pin(&self) -> Guard {
        let collector = self.collector.clone();
        let mut book = collector.book();
        let number = book.next;
        book.next += 1;
        book.pinned.push(number);
        drop(book);
        loom::sync::atomic::fence(Ordering::SeqCst);
        Guard { number, collector, bag: RefCell::default() }
    }
}

pub(crate) struct Guard {
    number: u64,
    collector: Collector,
    /// What this guard deferred and nobody else knows of yet.
    bag: RefCell<Vec<Deferred>>,
}

impl Guard {
    /// As crossbeam's.
    ///
    /// # Safety
    ///
    /// 1. Whatever `run` borrows lives until it has run.
    #[expect(unsafe_code, reason = "the closure outlives what it borrows, as far as types can say")]
    pub(crate) unsafe fn defer_unchecked(&self, run: impl FnOnce()) {
        let run: Box<dyn FnOnce() + '_> = Box::new(run);
        // SAFETY: only the lifetime changes; by 1. it is long enough.
        let run = unsafe { std::mem::transmute::<Box<dyn FnOnce() + '_>, Deferred>(run) };
        self.bag.borrow_mut().push(run);
    }

    pub(crate) fn flush(&self) {
        loom::sync::atomic::fence(Ordering::SeqCst);
        self.collector.state.handover.fetch_add(1, Ordering::Release);
        let mut book = self.collector.book();
        let next = book.next;
        book.deferred.extend(self.bag.take().into_iter().map(|run| (next, run)));
        let oldest = book.pinned.iter().copied().min().unwrap_or(book.next);
        let (run, keep) = std::mem::take(&mut book.deferred)
            .into_iter()
            .partition::<Vec<_>, _>(|(guards_below, _)| *guards_below <= oldest);
        book.deferred = keep;
        drop(book);
        self.collector.state.handover.fetch_add(0, Ordering::Acquire);
        run.into_iter().for_each(|(_, run)| run());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        assert!(self.bag.take().is_empty(), "a guard that deferred is flushed");
        self.collector.state.handover.fetch_add(1, Ordering::Release);
        self.collector.book().pinned.retain(|&number| number != self.number);
    }
}

#[cfg(test)]
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    loom::model(test);
}
