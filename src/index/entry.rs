//! One registration: its value, and a tombstone.

use super::address_range::CodeRange;
use super::shared::Shared;
use crate::sync::{AtomicBool, edge};

/// What a leaf of the index points at for one registered range.
///
/// It lives as long as the index, an owned snapshot or a registration counts it, and is never
/// changed but for the tombstone. The range stands in the leaf, where the search wants it, and in
/// the registration, which finds the entry by it.
pub(crate) struct Entry<T> {
    pub(crate) value: T,
    tombstone: AtomicBool,
}

/// An entry and its range, on the way into the index or out of it.
pub(crate) struct Item<T> {
    pub(crate) range: CodeRange,
    pub(crate) entry: Shared<Entry<T>>,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        Self { range: self.range, entry: self.entry.clone() }
    }
}

impl<T> Item<T> {
    /// An entry of its own for `value`; without memory for it, the value comes back.
    pub(crate) fn try_new(range: CodeRange, value: T) -> Result<Self, T> {
        match Shared::try_new(Entry { value, tombstone: AtomicBool::new(false) }) {
            Ok(entry) => Ok(Self { range, entry }),
            Err(entry) => Err(entry.value),
        }
    }

    /// The value of an entry that was never published.
    ///
    /// # Panics
    ///
    /// If the entry is counted elsewhere, which a refused write leaves it not.
    pub(crate) fn take_back(self) -> T {
        match self.entry.into_body_if_last() {
            Some(body) => body.value,
            None => unreachable!("a refused write keeps no entry"),
        }
    }
}

impl<T> Entry<T> {
    /// Makes the entry invisible where it stands, in every version that shows it.
    ///
    /// For unregistering without memory for a successor.
    pub(crate) fn bury(&self) {
        // Ordering [bury]: Release would do, but it is an exchange: once that is done, every later
        // lookup on a machine with x86-64's ordering sees it. Elsewhere the caller ends with
        // `publication_barrier`.
        self.tombstone.swap(true, edge::bury());
    }

    /// Whether lookups no longer find the entry.
    ///
    /// Signal-safe: one load.
    #[inline(always)]
    pub(crate) fn is_buried(&self) -> bool {
        // Ordering [tombstone]: Relaxed; the flag carries no data with it. Whoever is told by
        // synchronisation that the entry is gone sees it by coherence.
        self.tombstone.load(edge::tombstone())
    }
}
