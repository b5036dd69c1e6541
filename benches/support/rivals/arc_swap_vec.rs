//! A sorted vector behind an `ArcSwap`: lookups are without locks, and every write copies all of
//! it.

use crate::contender::{Lookup, Write, answer};
use arc_swap::ArcSwap;
use std::ops::Range;
use std::sync::Arc;

/// A range and its value, shared with the versions before and after.
#[derive(Clone, Debug)]
struct Place {
    start: usize,
    end: usize,
    value: Arc<u64>,
}

/// Lookups borrow from the version they load, so the answer costs no clone.
#[derive(Debug)]
pub(crate) struct ArcSwapVec {
    places: ArcSwap<Vec<Place>>,
}

fn place(range: &Range<usize>, value: u64) -> Place {
    Place { start: range.start, end: range.end, value: Arc::new(value) }
}

fn at(places: &[Place], pc: usize) -> Option<&Place> {
    let place = &places[places.partition_point(|place| place.start <= pc).checked_sub(1)?];
    (pc < place.end).then_some(place)
}

impl ArcSwapVec {
    fn insert(&self, new: &[Place]) {
        let Some(first) = new.first() else { return };
        self.places.rcu(|places| {
            let (below, above) =
                places.split_at(places.partition_point(|place| place.start < first.start));
            let mut places = Vec::with_capacity(places.len() + new.len());
            places.extend_from_slice(below);
            places.extend_from_slice(new);
            places.extend_from_slice(above);
            // One pass if all of them lie side by side.
            places.sort_by_key(|place| place.start);
            places
        });
    }

    fn remove(&self, old: &[Range<usize>]) {
        self.places.rcu(|places| {
            let stays = |place: &&Place| {
                old.binary_search_by_key(&place.start, |range| range.start).is_err()
            };
            places.iter().filter(stays).cloned().collect::<Vec<_>>()
        });
    }
}

impl Lookup for ArcSwapVec {
    const NAME: &'static str = "arc_swap_vec";

    fn holding(ranges: &[Range<usize>]) -> Self {
        let places: Vec<_> = ranges.iter().zip(0..).map(|(range, i)| place(range, i)).collect();
        Self { places: ArcSwap::from_pointee(places) }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let places = self.places.load();
        at(&places, pc).map(|place| answer(*place.value, pc - place.start))
    }
}

impl Write for ArcSwapVec {
    type Held<'i> = Range<usize>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        at(&self.places.load(), pc).map(|place| (*place.value, pc - place.start))
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
