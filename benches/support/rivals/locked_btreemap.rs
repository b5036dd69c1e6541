//! A `BTreeMap` from end addresses behind a reader-writer lock, with an `Arc` cloned for each
//! answer: what wasmtime keeps its code in.

use crate::contender::{Lookup, Write, answer};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

/// By end address: start and value.
pub(crate) type Ranges = BTreeMap<usize, (usize, Arc<u64>)>;

/// One of the two locks.
pub(crate) trait SharedLock: Sync {
    const NAME: &'static str;

    fn around(ranges: Ranges) -> Self;
    fn shared<R>(&self, read: impl FnOnce(&Ranges) -> R) -> R;
    fn exclusive<R>(&self, write: impl FnOnce(&mut Ranges) -> R) -> R;
}

impl SharedLock for std::sync::RwLock<Ranges> {
    const NAME: &'static str = "rwlock_btreemap";

    fn around(ranges: Ranges) -> Self {
        Self::new(ranges)
    }

    #[inline]
    fn shared<R>(&self, read: impl FnOnce(&Ranges) -> R) -> R {
        read(&self.read().expect("not poisoned"))
    }

    #[inline]
    fn exclusive<R>(&self, write: impl FnOnce(&mut Ranges) -> R) -> R {
        write(&mut self.write().expect("not poisoned"))
    }
}

impl SharedLock for parking_lot::RwLock<Ranges> {
    const NAME: &'static str = "parking_lot_btreemap";

    fn around(ranges: Ranges) -> Self {
        Self::new(ranges)
    }

    #[inline]
    fn shared<R>(&self, read: impl FnOnce(&Ranges) -> R) -> R {
        read(&self.read())
    }

    #[inline]
    fn exclusive<R>(&self, write: impl FnOnce(&mut Ranges) -> R) -> R {
        write(&mut self.write())
    }
}

/// The map behind either lock.
#[derive(Debug)]
pub(crate) struct LockedBTreeMap<L>(L);

impl<L: SharedLock> LockedBTreeMap<L> {
    #[inline]
    fn get(&self, pc: usize) -> Option<(Arc<u64>, usize)> {
        self.0.shared(|ranges| {
            let (_, (start, value)) = ranges.range(pc + 1..).next()?;
            (*start <= pc).then(|| (value.clone(), pc - start))
        })
    }
}

impl<L: SharedLock> Lookup for LockedBTreeMap<L> {
    const NAME: &'static str = L::NAME;

    fn holding(ranges: &[Range<usize>]) -> Self {
        Self(L::around(
            ranges
                .iter()
                .zip(0..)
                .map(|(range, value)| (range.end, (range.start, Arc::new(value))))
                .collect(),
        ))
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let (value, offset) = self.get(pc)?;
        Some(answer(*value, offset))
    }
}

impl<L: SharedLock> Write for LockedBTreeMap<L> {
    type Held<'i>
        = Range<usize>
    where
        L: 'i;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        self.get(pc).map(|(value, offset)| (*value, offset))
    }

    fn register(&self, range: Range<usize>, value: u64) -> Range<usize> {
        let value = Arc::new(value);
        self.0.exclusive(|ranges| ranges.insert(range.end, (range.start, value)));
        range
    }

    fn unregister(&self, held: Range<usize>) {
        black_box(self.0.exclusive(|ranges| ranges.remove(&held.end)));
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        let values = ranges.iter().zip(0..);
        let new = values.map(|(range, value)| (range.end, (range.start, Arc::new(value))));
        self.0.exclusive(|map| map.extend(new));
        let result = meanwhile();
        self.0.exclusive(|map| {
            for range in ranges {
                black_box(map.remove(&range.end));
            }
        });
        result
    }
}
