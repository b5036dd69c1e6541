//! The loops around writes, the same for every contender and compiled for each; and the reader
//! that may run beside them.

use crate::contender::Write;
use std::hint::{black_box, spin_loop};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

/// A contender whose type no longer matters.
pub(crate) trait Writer: Sync {
    fn name(&self) -> &'static str;

    /// Nanoseconds for registering and unregistering one range, at one place after the other.
    fn pairs(&self, places: &[Range<usize>], first: usize, pairs: usize) -> f64;

    /// Nanoseconds for unregistering ranges one by one, of as many as are registered for it, untimed, at
    /// one place after the other.
    fn removals(&self, places: &[Range<usize>], first: usize, removals: usize) -> f64;

    /// Nanoseconds for registering all ranges at once, and for that and unregistering them.
    fn batch(&self, ranges: &[Range<usize>]) -> (f64, f64);

    /// Looks up one address after the other until told to stop; how many.
    fn look_up(&self, probes: &[usize], stop: &AtomicBool) -> usize;

    /// What was displaced and is not destroyed yet, where that is known.
    fn garbage_bytes(&self) -> Option<u64>;
}

impl<W: Write> Writer for W {
    fn name(&self) -> &'static str {
        W::NAME
    }

    #[inline(never)]
    fn pairs(&self, places: &[Range<usize>], first: usize, pairs: usize) -> f64 {
        let began = Instant::now();
        for k in first..first + pairs {
            self.with_one(places[k % places.len()].clone(), k as u64, || ());
        }
        began.elapsed().as_nanos() as f64 / pairs as f64
    }

    #[inline(never)]
    fn removals(&self, places: &[Range<usize>], first: usize, removals: usize) -> f64 {
        let register = |k: usize| self.register(places[k % places.len()].clone(), k as u64);
        let all_held: Vec<_> = (first..first + removals).map(register).collect();
        let began = Instant::now();
        for held in all_held {
            self.unregister(held);
        }
        began.elapsed().as_nanos() as f64 / removals as f64
    }

    #[inline(never)]
    fn batch(&self, ranges: &[Range<usize>]) -> (f64, f64) {
        let began = Instant::now();
        let registered = self.with_many(ranges, || began.elapsed());
        (registered.as_nanos() as f64, began.elapsed().as_nanos() as f64)
    }

    #[inline(never)]
    fn look_up(&self, probes: &[usize], stop: &AtomicBool) -> usize {
        let looking = probes.iter().cycle().take_while(|&&pc| {
            black_box(self.find(pc));
            !stop.load(Relaxed)
        });
        1 + looking.count()
    }

    fn garbage_bytes(&self) -> Option<u64> {
        Write::garbage_bytes(self)
    }
}

/// The system calls' name among the contenders.
pub(crate) const MAPPING: &str = "mmap_mprotect_munmap";

/// The system calls, which know no ranges.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Mapping;

#[cfg(unix)]
impl Writer for Mapping {
    fn name(&self) -> &'static str {
        MAPPING
    }

    #[inline(never)]
    fn pairs(&self, _places: &[Range<usize>], _first: usize, pairs: usize) -> f64 {
        let began = Instant::now();
        for _ in 0..pairs {
            crate::mapping::map_protect_unmap();
        }
        began.elapsed().as_nanos() as f64 / pairs as f64
    }

    fn removals(&self, _places: &[Range<usize>], _first: usize, _removals: usize) -> f64 {
        unreachable!("a removal is compared with removals")
    }

    fn batch(&self, _ranges: &[Range<usize>]) -> (f64, f64) {
        unreachable!("a batch is compared with batches")
    }

    /// The other thread only keeps the processor that it runs on: the system tells it of what was
    /// unmapped.
    fn look_up(&self, _probes: &[usize], stop: &AtomicBool) -> usize {
        while !stop.load(Relaxed) {
            spin_loop();
        }
        0
    }

    fn garbage_bytes(&self) -> Option<u64> {
        None
    }
}

/// Does the work, beside a thread that looks up if there is to be a reader; also how many lookups that
/// made.
pub(crate) fn beside_readers<R>(
    readers: usize,
    contender: &dyn Writer,
    probes: &[usize],
    work: impl FnOnce() -> R,
) -> (R, usize) {
    let (running, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                scope.spawn(|| {
                    running.store(true, Relaxed);
                    contender.look_up(probes, &stop)
                })
            })
            .collect();
        while !readers.is_empty() && !running.load(Relaxed) {
            thread::yield_now();
        }
        let result = work();
        stop.store(true, Relaxed);
        let lookups = readers.into_iter().map(|reader| reader.join().expect("it only looks up"));
        (result, lookups.sum())
    })
}
