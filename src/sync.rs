//! The only door between the index and the machine.
//!
//! Everything in `src/index/`, `src/memory/` and `src/registry/claim.rs` reaches atomics, fences, the clock
//! and the process through this file and nothing else. The model package compiles the same index
//! over a file of the same shape made of loom's types (`loom-tests/src/sync.rs`), so the code that
//! is checked is the code that ships.

pub(crate) use core::sync::atomic::AtomicU64 as Statistic; // not modelled: nothing depends on it
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
pub(crate) use smallvec::SmallVec;

pub(crate) use crate::sys::barrier::publication_barrier;
pub(crate) use crate::sys::clock::{coarse_nanos, pause};
pub(crate) use crate::sys::destroying::unless_destroying;
pub(crate) use crate::sys::fork::generation as fork_generation;
pub(crate) use crate::sys::panics::Panics;
pub(crate) use crate::sys::prefetch::prefetch;

/// The orderings by edge name.
pub(crate) mod edge {
    #[cfg(pcmap_tsan)]
    use crate::sys::thread_sanitizer::fence;
    #[cfg(not(pcmap_tsan))]
    use core::sync::atomic::fence;

    #[cfg(not(pcmap_tsan))]
    macro_rules! ordering {
        ($name:ident, $ordering:expr) => {
            $ordering
        };
    }
    #[cfg(pcmap_tsan)]
    macro_rules! ordering {
        ($name:ident, $ordering:expr) => {
            crate::sys::thread_sanitizer::ordering(stringify!($name), $ordering)
        };
    }

    macro_rules! edges {
        ($($name:ident = $ordering:ident;)*) => {
            $(#[inline(always)]
            pub(crate) const fn $name() -> core::sync::atomic::Ordering {
                ordering!($name, core::sync::atomic::Ordering::$ordering)
            })*
        };
    }
    macro_rules! registry_edges {
        ($($edge:tt)*) => {
            #[cfg(feature = "registry")]
            edges! { $($edge)* }
        };
    }
    macro_rules! fences {
        ($($name:ident = $ordering:ident;)*) => {
            $(#[inline(always)]
            pub(crate) fn $name() {
                fence(core::sync::atomic::Ordering::$ordering);
            })*
        };
    }
    /// On x86-64 a locked instruction already orders every access before it against every one
    /// behind it, as a fence does (Intel's manual, volume 3, "Loads and stores are not reordered
    /// with locked instructions"; crossbeam-epoch rests on the same): what is left to
    /// keep in order is the compiler. Elsewhere (and for Miri and thread sanitizer) it is a fence.
    macro_rules! fences_behind_exchange {
        ($($name:ident = $ordering:ident;)*) => {
            $(#[inline(always)]
            pub(crate) fn $name() {
                #[cfg(all(target_arch = "x86_64", not(any(miri, pcmap_tsan))))]
                core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::$ordering);
                #[cfg(any(not(target_arch = "x86_64"), miri, pcmap_tsan))]
                fence(core::sync::atomic::Ordering::$ordering);
            })*
        };
    }
    include!("edges.rs");
}

/// A function that is `const` here and is not over loom, whose types have no `const` constructors.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visibility:vis fn $($rest:tt)*) => {
        $(#[$attribute])* $visibility const fn $($rest)*
    };
}
pub(crate) use const_fn;

/// `[value; size]` for values that are not `Copy`, in a `const_fn!`.
macro_rules! filled {
    ($value:expr; $size:expr) => {
        [const { $value }; $size]
    };
}
pub(crate) use filled;

/// Reader counts per era object: a power of two well above the cores of today's machines. Each fills
/// two cache lines (adjacent lines are fetched in pairs), so an object is a little over 8 KiB.
pub(crate) const SHARDS: usize = 64;

/// The most slots of a leaf of the index, and of a node above (at most 256: a byte tells one).
pub(crate) const LEAF_SLOTS: usize = 128;
pub(crate) const NODE_SLOTS: usize = 256;

/// Blocks of each size that the free list keeps: as many as one step of reclamation frees.
pub(crate) const FREE_PER_SIZE: usize = 8;

/// One in so many registrations (and removals) makes a step of reclamation. An advance is a look at all
/// shards, which takes from readers the cache lines that they count on; what is freed at a time is no
/// more than what an allocator and the free list keep at hand.
pub(crate) const OPERATIONS_PER_TEND: u64 = 8;
/// So many objects of ended eras are looked at in such a step.
pub(crate) const ENDED_PER_TEND: usize = 4;
/// When so many bytes of garbage wait in an era and its epoch cannot advance, a new era begins. It is what a
/// thread that stalls holds back beside what the map contained.
pub(crate) const ERA_BYTES: u64 = 256 << 10;
/// `reclaim` advances the epoch so often at most (four times empties all lists),
pub(crate) const RECLAIM_ADVANCES: u32 = 8;
/// and gives up when it could not so many times.
pub(crate) const RECLAIM_PATIENCE: u32 = 3;
/// A registration compacts when there are so many tombstones more than a quarter of all ranges: where there
/// are few ranges, it would have to do so all the time.
pub(crate) const TOMBSTONES_LEFT: u64 = 16;
/// It looks for them among so many ranges: some leaves.
pub(crate) const SLOTS_PER_COMPACTION: usize = 512;
/// Batches of so many ranges keep what they made when another write comes first.
pub(crate) const REBASE_FROM: usize = 64;
/// Before a batch of so many ranges an era begins, if a reader stays inside: they would be more than that reader may
/// hold back.
pub(crate) const ERA_RANGES: usize = 4096;

/// A number that differs between threads, for choosing a shard: the address of a local variable.
///
/// Thread stacks lie megabytes apart, so the bits above the lowest sixteen tell threads apart,
/// and an alternate signal stack is just another shard. Nothing is set up, nothing is read: safe
/// in a handler. Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4) spreads
/// stacks that lie at regular distances.
#[inline(always)]
pub(crate) fn shard_hint() -> usize {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let local = 0_u8;
    let page = ((&raw const local).addr() >> 16) as u64;
    (page.wrapping_mul(GOLDEN) >> (64 - SHARDS.trailing_zeros())) as usize
}

/// A number that no other call in this line of processes gets, and not 0.
pub(crate) fn unique_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, core::sync::atomic::Ordering::Relaxed) + 1
}

/// Marks the life of a counted block. Over loom it reports reads that race with destruction or
/// come after it; here it is nothing.
#[derive(Debug)]
pub(crate) struct Liveness;

impl Liveness {
    pub(crate) const fn new() -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn read(&self) {}

    #[inline(always)]
    pub(crate) fn end(&self) {}
}

/// Frees a block. Over loom the memory is kept until the model's end, so that a read after
/// destruction is reported instead of being undefined.
#[inline(always)]
pub(crate) fn dispose<B>(block: Box<B>) {
    drop(block);
}

/// Frees a block of memory whose contents need no drop; as [`dispose`].
///
/// # Safety
///
/// 1. It was allocated with this layout, and nobody uses it any more.
#[inline(always)]
#[expect(unsafe_code, reason = "what the allocator's own function asks for")]
pub(crate) unsafe fn dispose_memory(memory: *mut u8, layout: std::alloc::Layout) {
    // SAFETY: by 1.
    unsafe { std::alloc::dealloc(memory, layout) };
}

/// Runs a unit test of the index; over loom, as a model.
#[cfg(test)]
pub(crate) fn explore(test: impl Fn() + Send + Sync + 'static) {
    test();
}

#[cfg(test)]
mod tests {
    use super::{SHARDS, shard_hint};
    use std::sync::mpsc::channel;

    #[test]
    #[cfg_attr(miri, ignore = "its threads have no stacks at real addresses")]
    fn threads_spread_over_the_shards() {
        for threads in [16, 64, 256] {
            let (answer, answers) = channel();
            let mut readers = [0; SHARDS];
            std::thread::scope(|scope| {
                // Each stays until all have answered: no two have the same stack.
                let _stay: Vec<_> = (0..threads)
                    .map(|_| {
                        let answer = answer.clone();
                        let (stay, go) = channel::<()>();
                        scope.spawn(move || {
                            answer.send(shard_hint() % SHARDS).expect("somebody counts");
                            let _ = go.recv();
                        });
                        stay
                    })
                    .collect();
                answers.iter().take(threads).for_each(|shard| readers[shard] += 1);
            });
            let used = readers.iter().filter(|&&readers| readers != 0).count();
            let most = readers.iter().max().expect("there are shards");
            println!("{threads} threads on {used} of {SHARDS} shards, at most {most} on one");
            // Half as many as chance would use would be a broken hash.
            assert!(used >= threads.min(SHARDS) / 4, "{readers:?}");
        }
    }
}
