//! The door to the machine, over loom: the same names as in pcmap's own `sync.rs`.
//!
//! What differs from the real one, and why that is right:
//!
//! - Counters that only statistics read are not modelled.
//! - Two shards, nodes of eight slots, and constants small enough that every interleaving can be visited.
//!   Reclamation is what a model asks for: no write and no removal makes a step of it by itself, unless the
//!   model says that eras are full at once (`fill_eras`).
//! - A block's [`Liveness`] makes loom report a read that races with its destruction; a read that
//!   comes after it fails outright, for [`dispose`] keeps the memory.

use crate::parking;
use std::alloc::Layout;
use std::cell::Cell;
use std::cmp::Ordering;
use std::time::Duration;

pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
pub(crate) use smallvec::SmallVec;
pub(crate) use std::sync::atomic::AtomicU64 as Statistic;

pub(crate) const SHARDS: usize = 2;
/// So that a few ranges make a tree of several levels.
pub(crate) const LEAF_SLOTS: usize = 8;
pub(crate) const NODE_SLOTS: usize = 8;
pub(crate) const FREE_PER_SIZE: usize = 1;
pub(crate) const OPERATIONS_PER_TEND: u64 = 1 << 32;
pub(crate) const ENDED_PER_TEND: usize = 4;
pub(crate) const RECLAIM_ADVANCES: u32 = 5;
pub(crate) const RECLAIM_PATIENCE: u32 = 1;
/// Compaction comes when it is asked for.
pub(crate) const TOMBSTONES_LEFT: u64 = 1 << 32;
pub(crate) const SLOTS_PER_COMPACTION: usize = 64;
pub(crate) const ERA_RANGES: usize = 64;
pub(crate) const REBASE_FROM: usize = 2;
pub(crate) const ERA_BYTES: EraBytes = EraBytes;

thread_local! {
    static WEAKENED: Cell<Option<&'static str>> = const { Cell::new(None) };
    static GENERATION: Cell<usize> = const { Cell::new(1) };
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    static NUMBER: Cell<u64> = const { Cell::new(1) };
    static FULL: Cell<bool> = const { Cell::new(false) };
    static LAST_NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// How much garbage an era takes: all there is, or none (`fill_eras`).
pub(crate) struct EraBytes;

impl PartialEq<EraBytes> for u64 {
    fn eq(&self, _: &EraBytes) -> bool {
        false
    }
}

impl PartialOrd<EraBytes> for u64 {
    fn partial_cmp(&self, _: &EraBytes) -> Option<Ordering> {
        Some(if FULL.get() && *self != 0 { Ordering::Greater } else { Ordering::Less })
    }
}

/// The orderings by edge name; one of them can be weakened.
pub(crate) mod edge {
    use std::sync::atomic::Ordering;

    macro_rules! edges {
        ($($name:ident = $ordering:ident;)*) => {
            $(pub(crate) fn $name() -> Ordering {
                if crate::sync::is_weakened(stringify!($name)) { Ordering::Relaxed } else { Ordering::$ordering }
            })*
            #[cfg(test)]
            pub(crate) const EDGES: &[(&str, Ordering)] = &[$((stringify!($name), Ordering::$ordering)),*];
        };
    }
    /// Edges like any other; their list has another name, for both are in one module.
    macro_rules! registry_edges {
        ($($edge:tt)*) => {
            mod registry {
                use std::sync::atomic::Ordering;
                edges! { $($edge)* }
            }
            pub(crate) use registry::*;
            #[cfg(test)]
            pub(crate) use registry::EDGES as REGISTRY_EDGES;
        };
    }
    macro_rules! fences {
        ($($name:ident = $ordering:ident;)*) => {
            $(pub(crate) fn $name() {
                if !crate::sync::is_weakened(stringify!($name)) {
                    loom::sync::atomic::fence(Ordering::$ordering);
                }
            })*
            #[cfg(test)]
            pub(crate) const FENCES: &[&str] = &[$(stringify!($name)),*];
        };
    }
    /// A fence like any other; its list has another name, for both are in one module.
    macro_rules! fences_behind_exchange {
        ($($fence:tt)*) => {
            mod behind_exchange {
                use std::sync::atomic::Ordering;
                fences! { $($fence)* }
            }
            pub(crate) use behind_exchange::*;
            #[cfg(test)]
            pub(crate) use behind_exchange::FENCES as FENCES_BEHIND_EXCHANGE;
        };
    }
    include!("../../src/edges.rs");
}

/// Nothing that a model could see.
pub(crate) fn prefetch<T>(_: *const T) {}

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
    FULL.set(false);
    LAST_NUMBER.set(0);
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

/// From here on any garbage at all is too much for an era: whoever tends begins another one, unless the
/// epoch advances.
#[cfg(test)]
pub(crate) fn fill_eras() {
    FULL.set(true);
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
    SHARD.get().unwrap_or_else(this_thread)
}

/// A number of this thread's.
fn this_thread() -> usize {
    let name = format!("{:?}", loom::thread::current().id());
    name.bytes().map(usize::from).sum()
}

pub(crate) fn publication_barrier() {}

pub(crate) fn coarse_nanos() -> u64 {
    1
}

pub(crate) fn fork_generation() -> usize {
    GENERATION.get()
}

pub(crate) fn unique_number() -> u64 {
    NUMBER.replace(NUMBER.get() + 1)
}

pub(crate) fn unless_destroying<R>(_owner: usize, run: impl FnOnce() -> R) -> Option<R> {
    Some(run())
}

pub(crate) fn pause(_: Duration) {
    loom::thread::yield_now();
}

/// No destructor panics here, but for a model that fails: that ends at once.
pub(crate) struct Panics;

impl Panics {
    pub(crate) const fn none() -> Self {
        Self
    }

    pub(crate) fn contain(&mut self, run: impl FnOnce()) {
        run();
    }

    pub(crate) fn resume(self) {}
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

/// As pcmap's.
///
/// # Safety
///
/// 1. As pcmap's.
#[expect(unsafe_code, reason = "what the allocator's own function asks for")]
pub(crate) unsafe fn dispose_memory(memory: *mut u8, layout: Layout) {
    // SAFETY: by 1.
    parking::while_parking(|| unsafe { std::alloc::dealloc(memory, layout) });
}

#[cfg(test)]
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000_000;
    builder.check(test);
}
