#![expect(unsafe_code, reason = "a vector is changed when its readers have left")]
//! Two sorted vectors behind one counter of readers: how SpiderMonkey finds the code of a program
//! counter.
//!
//! Readers count themselves in, load the pointer to the vector that is published, search it, and
//! count themselves out. A writer changes the other vector, publishes it, waits until it has seen
//! no reader at all, and makes the same change to the vector that was displaced. So a lookup may
//! come in a signal handler; but all threads share the counter, and a reader that is stopped, or
//! enough readers that take turns, hold up every writer.

use crate::contender::{Lookup, Write, answer};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::yield_now;

#[derive(Clone, Debug)]
struct Place {
    start: usize,
    end: usize,
    value: u64,
}

/// The two vectors. Values are where the ranges are: with that much a writer need not allocate.
#[derive(Debug)]
pub(crate) struct GlobalCounterVec {
    vectors: [UnsafeCell<Vec<Place>>; 2],
    /// Which of them is published.
    published: AtomicUsize,
    readers: AtomicUsize,
    writers: Mutex<()>,
}

// SAFETY: readers share the published vector; a writer, one at a time, changes the other one, which
// no reader is left in.
unsafe impl Sync for GlobalCounterVec {}

impl GlobalCounterVec {
    #[inline]
    fn get<R>(&self, pc: usize, found: impl FnOnce(&Place) -> R) -> Option<R> {
        self.readers.fetch_add(1, SeqCst);
        let published = self.vectors[self.published.load(SeqCst)].get();
        // SAFETY: published after this reader was counted, so no writer touches it before the count
        // was seen at zero.
        let places = unsafe { &*published };
        let below = places.partition_point(|place| place.start <= pc).checked_sub(1);
        let place = below.map(|below| &places[below]).filter(|place| pc < place.end);
        let answer = place.map(found);
        self.readers.fetch_sub(1, SeqCst);
        answer
    }

    /// Makes a change to both vectors, one after the other.
    fn change(&self, change: impl Fn(&mut Vec<Place>)) {
        let _alone = self.writers.lock().expect("not poisoned");
        let published = self.published.load(SeqCst);
        // SAFETY: not published, the only writer, and the last one waited for its readers.
        change(unsafe { &mut *self.vectors[1 - published].get() });
        self.published.store(1 - published, SeqCst);
        let mut looks = 0_u32;
        while self.readers.load(SeqCst) != 0 {
            looks += 1;
            // The reader may be waiting for this very processor.
            if looks & 0x3ff == 0 {
                yield_now();
            }
        }
        // SAFETY: displaced, and since then a moment without readers was seen.
        change(unsafe { &mut *self.vectors[published].get() });
    }

    fn insert(&self, new: &[Place]) {
        let Some(first) = new.first() else { return };
        self.change(|places| {
            let at = places.partition_point(|place| place.start < first.start);
            places.splice(at..at, new.iter().cloned());
            if new.len() > 1 {
                // One pass if all of them lie side by side.
                places.sort_by_key(|place| place.start);
            }
        });
    }

    fn remove(&self, old: &[Range<usize>]) {
        self.change(|places| match old {
            [one] => {
                places.remove(places.partition_point(|place| place.start < one.start));
            }
            _ => places.retain(|place| {
                old.binary_search_by_key(&place.start, |range| range.start).is_err()
            }),
        });
    }
}

fn places(ranges: &[Range<usize>]) -> Vec<Place> {
    let values = ranges.iter().zip(0..);
    values.map(|(range, value)| Place { start: range.start, end: range.end, value }).collect()
}

impl Lookup for GlobalCounterVec {
    const NAME: &'static str = "global_counter_vec";

    fn holding(ranges: &[Range<usize>]) -> Self {
        Self {
            vectors: [UnsafeCell::new(places(ranges)), UnsafeCell::new(places(ranges))],
            published: AtomicUsize::new(0),
            readers: AtomicUsize::new(0),
            writers: Mutex::new(()),
        }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        self.get(pc, |place| answer(place.value, pc - place.start))
    }
}

impl Write for GlobalCounterVec {
    type Held<'i> = Range<usize>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        self.get(pc, |place| (place.value, pc - place.start))
    }

    fn register(&self, range: Range<usize>, value: u64) -> Range<usize> {
        self.insert(&[Place { start: range.start, end: range.end, value }]);
        range
    }

    fn unregister(&self, held: Range<usize>) {
        self.remove(&[held]);
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        self.insert(&places(ranges));
        let result = meanwhile();
        self.remove(ranges);
        result
    }
}
