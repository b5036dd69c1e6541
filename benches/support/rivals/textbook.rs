#![expect(unsafe_code, reason = "values live as long as the epoch says")]
//! What a textbook shows: a sorted vector behind an `ArcSwap`, copied whole at each write, and
//! crossbeam's epochs for what was displaced.
//!
//! It cannot be asked in a signal handler: pinning an epoch takes a thread-local, which a thread's
//! first pin allocates, and a pin may run destructors.

use crate::contender::{Lookup, Write, answer};
use arc_swap::ArcSwap;
use crossbeam_epoch::{self as epoch, Atomic, Guard};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

/// A range and its value, which all versions share that show it.
#[derive(Clone, Debug)]
struct Place {
    start: usize,
    end: usize,
    /// Never changed; destroyed some time after a version without it was published.
    value: Atomic<u64>,
}

#[derive(Debug)]
pub(crate) struct Textbook {
    places: ArcSwap<Vec<Place>>,
}

fn place(range: &Range<usize>, value: u64) -> Place {
    Place { start: range.start, end: range.end, value: Atomic::new(value) }
}

impl Place {
    /// The value of a place in a version that was loaded under this guard.
    #[inline]
    fn value<'g>(&self, guard: &'g Guard) -> &'g u64 {
        let value = self.value.load(Relaxed, guard);
        // SAFETY: the guard was pinned before the version was loaded. A writer defers the destruction
        // of a value after it has published a version without it, so this guard holds it up.
        unsafe { value.deref() }
    }
}

impl Textbook {
    #[inline]
    fn get<R>(&self, pc: usize, found: impl FnOnce(u64, usize) -> R) -> Option<R> {
        let guard = epoch::pin();
        let places = self.places.load();
        let at = places.partition_point(|place| place.start <= pc).checked_sub(1)?;
        let place = &places[at];
        (pc < place.end).then(|| found(*place.value(&guard), pc - place.start))
    }

    fn insert(&self, new: &[Place]) {
        let Some(first) = new.first() else { return };
        let guard = epoch::pin();
        let displaced = self.places.rcu(|places| {
            let (below, above) =
                places.split_at(places.partition_point(|place| place.start < first.start));
            let mut places = [below, new, above].concat();
            // One pass if all of them lie side by side.
            places.sort_by_key(|place| place.start);
            places
        });
        guard.defer(move || drop(displaced));
        // A vector is too large to wait until 63 more have come.
        guard.flush();
    }

    fn remove(&self, old: &[Range<usize>]) {
        let is_old =
            |place: &Place| old.binary_search_by_key(&place.start, |range| range.start).is_ok();
        let guard = epoch::pin();
        let displaced = self.places.rcu(|places| {
            places.iter().filter(|place| !is_old(place)).cloned().collect::<Vec<_>>()
        });
        for place in displaced.iter().filter(|place| is_old(place)) {
            let value = place.value.load(Relaxed, &guard);
            // SAFETY: the version just published lacks it, and whoever removed it is the only one who
            // did: ranges are unregistered once.
            unsafe { guard.defer_destroy(value) };
        }
        guard.defer(move || drop(displaced));
        guard.flush();
    }
}

impl Drop for Textbook {
    fn drop(&mut self) {
        for place in self.places.load().iter() {
            let value = place.value.clone();
            // SAFETY: nobody else has the map, and no other place has this value.
            drop(unsafe { value.into_owned() });
        }
    }
}

impl Lookup for Textbook {
    const NAME: &'static str = "textbook";

    fn holding(ranges: &[Range<usize>]) -> Self {
        let places: Vec<_> = ranges.iter().zip(0..).map(|(range, i)| place(range, i)).collect();
        Self { places: ArcSwap::from_pointee(places) }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        self.get(pc, answer)
    }
}

impl Write for Textbook {
    type Held<'i> = Range<usize>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        self.get(pc, |value, offset| (value, offset))
    }

    fn register(&self, range: Range<usize>, value: u64) -> Range<usize> {
        self.insert(&[place(&range, value)]);
        range
    }

    fn unregister(&self, held: Range<usize>) {
        self.remove(&[held]);
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        let new: Vec<_> = ranges.iter().zip(0..).map(|(range, i)| place(range, i)).collect();
        self.insert(&new);
        let result = meanwhile();
        self.remove(ranges);
        result
    }
}
