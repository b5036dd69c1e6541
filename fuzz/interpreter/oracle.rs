//! What a map should hold and answer, so plain that it is right at a glance; and ranges as somebody
//! may write them down.

use pcmap::{CodeRange, RangeError};
use std::collections::BTreeMap;

/// What is registered: start, end and identity.
pub(crate) type Row = (usize, usize, usize);

/// What should be registered, by start; no two ranges of it overlap.
#[derive(Clone, Default)]
pub(crate) struct Oracle(BTreeMap<usize, Row>);

impl Oracle {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn rows(&self) -> impl DoubleEndedIterator<Item = Row> {
        self.0.values().copied()
    }

    pub(crate) fn at(&self, pc: usize) -> Option<Row> {
        self.0.range(..=pc).next_back().map(|(_, &row)| row).filter(|&(_, end, _)| pc < end)
    }

    /// The last that ends at or before `pc`.
    pub(crate) fn below(&self, pc: usize) -> Option<Row> {
        self.0.range(..=pc).rev().map(|(_, &row)| row).find(|&(_, end, _)| end <= pc)
    }

    /// The first that starts behind `pc`.
    pub(crate) fn above(&self, pc: usize) -> Option<Row> {
        self.0.range(pc.saturating_add(1)..).next().map(|(_, &row)| row).filter(|row| row.0 > pc)
    }

    /// Those that share an address with `range`, each asked.
    pub(crate) fn sharing(&self, range: CodeRange) -> impl DoubleEndedIterator<Item = Row> {
        self.rows().filter(move |&row| share(row, range))
    }

    /// Whether one shares an address with a range that is not empty.
    pub(crate) fn is_in_the_way(&self, start: usize, end: usize) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, row)| row.1 > start)
    }

    pub(crate) fn insert(&mut self, range: CodeRange, id: usize) {
        if range.start() < range.end() {
            self.0.insert(range.start(), (range.start(), range.end(), id));
        }
    }

    pub(crate) fn remove(&mut self, range: CodeRange, id: usize) {
        if range.start() < range.end() {
            let gone = self.0.remove(&range.start());
            assert_eq!(gone, Some((range.start(), range.end(), id)));
        }
    }

    /// As `remove`, where it may never have been.
    pub(crate) fn remove_if_there(&mut self, range: CodeRange, id: usize) {
        if self.0.get(&range.start()) == Some(&(range.start(), range.end(), id)) {
            self.0.remove(&range.start());
        }
    }
}

/// Whether a row and a range share an address: the highest start lies below the lowest end.
pub(crate) fn share((start, end, _): Row, range: CodeRange) -> bool {
    start.max(range.start()) < end.min(range.end())
}

/// A range as somebody may write it down: perhaps reversed, perhaps beyond the last address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bounds {
    UpTo(usize, usize),
    Bytes(usize, usize),
}

impl TryFrom<Bounds> for CodeRange {
    type Error = RangeError;

    fn try_from(bounds: Bounds) -> Result<Self, RangeError> {
        match bounds {
            Bounds::UpTo(start, end) => (start..end).try_into(),
            Bounds::Bytes(start, len) => Self::from_start_len(start, len),
        }
    }
}

impl Bounds {
    /// What must be said about it, worked out without the crate; or start and end.
    pub(crate) fn edges(self) -> Result<(usize, usize), RangeError> {
        match self {
            Self::UpTo(start, end) if start > end => Err(RangeError::Reversed { start, end }),
            Self::UpTo(start, end) => Ok((start, end)),
            Self::Bytes(start, len) => start
                .checked_add(len)
                .map(|end| (start, end))
                .ok_or(RangeError::Wraps { start, len }),
        }
    }
}
