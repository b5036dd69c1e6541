#![expect(unsafe_code, reason = "holds values by plain pointers")]
//! What an owned snapshot shows: the ranges of the map at one moment, sorted, each with a hold on its
//! value.
//!
//! It shares nothing with the versions, so nodes need no counts, and the owner of a snapshot keeps values
//! and no nodes.

use super::entry::Entry;
use super::limbo::{Garbage, Kind};
use super::slot::Slot;
use super::version::Version;
use crate::address_range::CodeRange;
use crate::memory::OutOfMemory;
use crate::memory::{Block, Shared};
use crate::sync::Panics;
use core::mem::offset_of;

/// The view.
pub(crate) struct View<T> {
    /// The version, and the removals that were known before it was gone through: with other numbers, the
    /// map is another one.
    pub(crate) made_of: (u64, u64),
    rows: Vec<Slot<T>>,
    garbage: Garbage,
}

// SAFETY: the rows hold values, as `Item`s do.
unsafe impl<T: Send + Sync> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for View<T> {}

impl<T> View<T> {
    /// Of what is live in `version`, after so many removals.
    ///
    /// # Safety
    ///
    /// 1. The caller is in a section of era `born`, in which the version was published.
    pub(crate) unsafe fn try_new(
        version: &Version<T>,
        removals: u64,
        born: u64,
    ) -> Result<Shared<Self>, OutOfMemory> {
        let mut rows = Vec::new();
        let most = version.tree.entries;
        rows.try_reserve_exact(most).map_err(|_| OutOfMemory::of::<Slot<T>>(most))?;
        let garbage = Garbage::new(Kind::View, born, 0);
        let mut view = Self { made_of: (version.sequence, removals), rows: Vec::new(), garbage };
        for found in version.tree.iter() {
            if !found.entry.is_removed() {
                // By 1. the map holds the value of an entry that was live in this section.
                found.entry.hold();
                rows.push(found.slot);
            }
        }
        view.rows = rows;
        Shared::try_new(view).map_err(|_| OutOfMemory::of::<Block<Self>>(1))
    }

    /// What it takes in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Block<Self>>() + self.rows.capacity() * size_of::<Slot<T>>()
    }

    /// The ranges, sorted.
    pub(crate) fn rows(&self) -> &[Slot<T>] {
        &self.rows
    }

    /// The range and the value of one of its rows.
    pub(crate) fn registered<'v>(&'v self, row: &Slot<T>) -> (CodeRange, &'v T) {
        // SAFETY: rows are private to views, and this crate asks each for its own: held by it.
        let entry = unsafe { &*row.entry() };
        // SAFETY: (`Entry::value`) 1. the view holds it.
        (row.range(), unsafe { entry.value() })
    }

    /// The header of the view in a block.
    pub(crate) fn garbage(block: *mut Block<Self>) -> *mut Garbage {
        block.wrapping_byte_add(Self::offset()).cast()
    }

    /// The block of a header of kind [`Kind::View`].
    pub(crate) fn of_garbage(garbage: *mut Garbage) -> *mut Block<Self> {
        garbage.wrapping_byte_sub(Self::offset()).cast()
    }

    const fn offset() -> usize {
        Shared::<Self>::BODY + offset_of!(Self, garbage)
    }
}

impl<T> Drop for View<T> {
    /// Lets go of the values. Destructors may run: if one panics, the others run all the same.
    fn drop(&mut self) {
        let mut panics = Panics::none();
        for row in &self.rows {
            // SAFETY: (`Entry::let_go`) 1. held by `try_new` for this row.
            panics.contain(|| unsafe { Entry::let_go(row.entry()) });
        }
        panics.resume();
    }
}
