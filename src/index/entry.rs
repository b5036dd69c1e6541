//! One registration: its range, its value, and a tombstone.

use super::address_range::CodeRange;
use super::shared::Shared;
use crate::sync::{AtomicBool, edge};

/// What every table of the index points at for one registered range.
///
/// It lives as long as a table, an owned snapshot or a registration counts it, and is never
/// changed but for the tombstone.
pub(crate) struct Entry<T> {
    pub(crate) range: CodeRange,
    pub(crate) value: T,
    tombstone: AtomicBool,
}

impl<T> Entry<T> {
    pub(crate) fn new(range: CodeRange, value: T) -> Self {
        Self { range, value, tombstone: AtomicBool::new(false) }
    }

    /// The value of an entry that was never published.
    ///
    /// # Panics
    ///
    /// If the entry is counted elsewhere, which a refused write leaves it not.
    pub(crate) fn take_back(entry: Shared<Self>) -> T {
        match entry.try_into_body() {
            Ok(body) => body.value,
            Err(_) => unreachable!("a refused write keeps no entry"),
        }
    }

    /// Makes the entry invisible where it stands, in every table that holds it.
    ///
    /// For unregistering without memory for a successor table.
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
