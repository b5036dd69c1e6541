#![expect(unsafe_code, reason = "follows uncounted pointers along the chain of versions")]
//! One version of the map: a table, and its place in the chain of all versions.
//!
//! History is linear. A writer makes the successor of the newest version and links it behind that
//! one with a single compare-and-swap of `next`, from null: that is the moment at which a write
//! takes effect among writers, and it can succeed once per version. Everything else (the pointer
//! that handlers read, the arc-swap cell, the head that reclamation moves) only follows the chain,
//! forward, and any thread may do that for any other; so nobody depends on the thread that linked.

use super::entry::Entry;
use super::shared::{Block, Shared};
use super::table::{Successor, Table};
use crate::sync::{AtomicPtr, AtomicU64, Statistic, edge, monotonic_nanos};
use core::ptr;

/// A version's block, by address.
pub(crate) type Raw<T> = *mut Block<Version<T>>;

/// A table and its place in the chain.
pub(crate) struct Version<T> {
    pub(crate) table: Table<T>,
    /// How many versions came before; also the number of publications so far.
    pub(crate) sequence: u64,
    /// What all earlier versions take, in bytes, with the entries that their successors left out.
    pub(crate) bytes_before: u64,
    /// The first epoch of the domain that its writer was counted in: no reader counted in an older
    /// domain can hold it (see `read_section`).
    pub(crate) born: u64,
    /// The successor, or null while this is the newest.
    next: AtomicPtr<Block<Version<T>>>,
    /// 0 until it is known to be displaced; then one more than the epoch that was read after that.
    tag: AtomicU64,
    /// When it was displaced: `monotonic_nanos`, 0 if not noted.
    displaced_at: Statistic,
    /// What its destruction will free, in bytes; known when it is taken out of the chain.
    pub(crate) weight: Statistic,
    /// The version below this one on a [`Stack`](super::stack::Stack).
    pub(super) below: AtomicPtr<Block<Version<T>>>,
}

impl<T> Version<T> {
    /// The empty version that every chain begins with.
    pub(crate) fn root() -> Self {
        Self::new(Table::empty(), 0, 0, 0)
    }

    /// The version after `self`.
    pub(crate) fn succeed(&self, successor: Successor<T>, born: u64) -> Self {
        let entries = successor.left_out * Shared::<Entry<T>>::BYTES;
        let own = Shared::<Self>::BYTES + self.table.bytes() + entries;
        Self::new(successor.table, self.sequence + 1, self.bytes_before + own as u64, born)
    }

    fn new(table: Table<T>, sequence: u64, bytes_before: u64, born: u64) -> Self {
        Self {
            table,
            sequence,
            bytes_before,
            born,
            next: AtomicPtr::new(ptr::null_mut()),
            tag: AtomicU64::new(0),
            displaced_at: Statistic::new(0),
            weight: Statistic::new(0),
            below: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The successor, or null.
    pub(crate) fn next(&self) -> Raw<T> {
        // Ordering [follow]: Acquire; pairs with Release in `Version::link`.
        //   seen:     the whole successor is visible;
        //   not seen: this is the newest version as far as this thread can know.
        self.next.load(edge::follow())
    }

    /// Puts `successor` behind this version and takes its count, unless there already is one.
    pub(crate) fn link(&self, successor: Shared<Self>) -> Result<(), Shared<Self>> {
        let raw = successor.into_raw();
        // Ordering [link]: Release; pairs with Acquire in `Version::next`.
        //   seen:     the whole successor is visible;
        //   not seen: the other writer's own link fails, and it looks again.
        // On failure nothing was learned but that it failed: the caller follows `next` again.
        match self.next.compare_exchange(ptr::null_mut(), raw, edge::link(), edge::lost()) {
            Ok(_) => Ok(()),
            // SAFETY: (`Shared::from_raw`) 1. the count that `into_raw` gave was not handed over.
            Err(_) => Err(unsafe { Shared::from_raw(raw) }),
        }
    }

    /// Notes that this version is displaced and that `epoch` was read after that.
    ///
    /// Several threads may note it; each note is right, and a later one only delays reclamation.
    pub(crate) fn note_displaced(&self, epoch: u64) {
        self.displaced_at.store(monotonic_nanos(), edge::statistic());
        // Ordering [tag]: Relaxed; the number is all there is to see, and any two numbers that
        // threads may store are right: each was read behind its own [writer_unlinks].
        self.tag.store(epoch.wrapping_add(1), edge::tag());
    }

    /// The epoch that was noted, if any.
    pub(crate) fn tag(&self) -> Option<u64> {
        // Ordering [tag]: Relaxed; see `note_displaced`.
        self.tag.load(edge::tag()).checked_sub(1)
    }

    /// When it was displaced, if that was noted: nanoseconds of `monotonic_nanos`.
    pub(crate) fn displaced_at(&self) -> Option<u64> {
        Some(self.displaced_at.load(edge::statistic())).filter(|&at| at != 0)
    }
}
