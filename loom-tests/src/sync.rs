//! The door to the machine, over loom: the same names as in pcmap's own `sync.rs`.
//!
//! What differs from the real one, and why that is right:
//!
//! - The cell of owned snapshots is a stand-in (`ArcSwapAny`) that does what arc-swap promises. It
//!   is a loom mutex, which orders its users more than arc-swap promises to; neither handlers nor
//!   writers are among them.
//! - Counters that only statistics read are not modelled.
//! - Two shards, nodes of eight slots, and constants small enough that every interleaving can be visited.
//! - A block's [`Liveness`] makes loom report a read that races with its destruction; a read that
//!   comes after it fails outright, for [`dispose`] keeps the memory.

use crate::parking;
use std::alloc::Layout;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::time::Duration;

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
pub(crate) use smallvec::SmallVec;
pub(crate) use std::sync::atomic::AtomicU64 as Statistic;

pub(crate) const SHARDS: usize = 2;
/// So that a few ranges make a tree of several levels.
pub(crate) const LEAF_SLOTS: usize = 8;
pub(crate) const NODE_SLOTS: usize = 8;
pub(crate) const SPARES_PER_SIZE: usize = 1;
pub(crate) const WRITES_PER_RECLAIM: u64 = 1 << 32;
pub(crate) const WRITE_ADVANCES: u32 = 1;
pub(crate) const RECLAIM_PATIENCE: u32 = 1;
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
    1
}

pub(crate) fn thread_identity() -> u64 {
    1 + this_thread() as u64
}

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

/// As arc-swap's trait of that name.
///
/// # Safety
///
/// 1. As for arc-swap's.
#[expect(unsafe_code, reason = "the trait is unsafe to implement where it comes from")]
pub(crate) unsafe trait RefCnt: Clone {
    type Base;
    fn into_ptr(me: Self) -> *mut Self::Base;
    fn as_ptr(me: &Self) -> *mut Self::Base;
    unsafe fn from_ptr(pointer: *const Self::Base) -> Self;
}

// SAFETY: as for what is in it; nothing has the null address.
#[expect(unsafe_code, reason = "the trait is unsafe to implement")]
unsafe impl<R: RefCnt> RefCnt for Option<R> {
    type Base = R::Base;

    fn into_ptr(me: Self) -> *mut R::Base {
        me.map_or(std::ptr::null_mut(), R::into_ptr)
    }

    fn as_ptr(me: &Self) -> *mut R::Base {
        me.as_ref().map_or(std::ptr::null_mut(), R::as_ptr)
    }

    unsafe fn from_ptr(pointer: *const R::Base) -> Self {
        // SAFETY: by the contract of this.
        (!pointer.is_null()).then(|| unsafe { R::from_ptr(pointer) })
    }
}

/// Stands in for arc-swap: a cell from which a counted pointer can be loaded while it is replaced.
pub(crate) struct ArcSwapAny<R: RefCnt> {
    /// Carries a count.
    held: loom::sync::Mutex<*mut R::Base>,
}

#[expect(unsafe_code, reason = "takes back the counts that it gave away")]
impl<R: RefCnt> ArcSwapAny<R> {
    pub(crate) fn new(value: R) -> Self {
        Self { held: loom::sync::Mutex::new(R::into_ptr(value)) }
    }

    fn shared(held: *mut R::Base) -> R {
        // SAFETY: carries a count, which stays where it is.
        let held = ManuallyDrop::new(unsafe { R::from_ptr(held) });
        R::clone(&held)
    }

    pub(crate) fn load_full(&self) -> R {
        Self::shared(*self.held.lock().expect("no panic under the lock"))
    }

    pub(crate) fn compare_and_swap(&self, current: &R, new: R) -> R {
        let mut held = self.held.lock().expect("no panic under the lock");
        if *held != R::as_ptr(current) {
            return Self::shared(*held);
        }
        let old = std::mem::replace(&mut *held, R::into_ptr(new));
        // SAFETY: carried a count, and no longer in the cell.
        unsafe { R::from_ptr(old) }
    }
}

#[expect(unsafe_code, reason = "takes back the count that it gave away")]
impl<R: RefCnt> Drop for ArcSwapAny<R> {
    fn drop(&mut self) {
        let held = *self.held.lock().expect("no panic under the lock");
        // SAFETY: carries a count.
        drop(unsafe { R::from_ptr(held) });
    }
}

#[cfg(test)]
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000_000;
    builder.check(test);
}
