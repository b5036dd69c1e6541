#![expect(unsafe_code, reason = "dereferences the published pointer inside read sections")]
//! The concurrent index: a chain of immutable versions, and three ways to the newest.
//!
//! ```text
//!            oldest             published           newest
//!              |                    |                  |
//!   chain:   [ v7 ] -> [ v8 ] -> [ v9 ] -> ... -> [ v10 ] -> null
//!            \_______________/               ^
//!         displaced: reclamation     linked by one exchange of v9.next: the write's moment
//! ```
//!
//! - **Handlers** read `published` inside a read section ([`read_section`]): no count of the
//!   version moves, nothing is freed, nobody is waited for.
//! - **Ordinary threads** that keep a view take a count of the version from an arc-swap cell, so
//!   they hold back that version and no other.
//! - **Writers** follow `published` to the newest version (inside a read section of their own,
//!   which keeps it alive: no thread-local is needed), build a successor, link it, and then move
//!   `published` and the cell forward. Both only ever follow the chain, so neither goes back, and
//!   any thread can do it for a writer that stopped.
//!
//! What `published` has passed is retired ([`reclamation`]).
//!
//! This directory imports nothing but `crate::sync`, so that the model package compiles the same
//! files over loom.

pub(crate) mod address_range;
mod cut;
pub(crate) mod departures;
pub(crate) mod edit;
pub(crate) mod entry;
pub(crate) mod guide;
pub(crate) mod leftovers;
pub(crate) mod node;
mod overlap;
pub(crate) mod read_section;
pub(crate) mod reclamation;
mod search;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod spares;
pub(crate) mod stack;
pub(crate) mod tree;
pub(crate) mod try_box;
pub(crate) mod version;
mod writing;

use crate::sync::{
    AtomicPtr, AtomicUsize, RECLAIM_PATIENCE, WRITE_ADVANCES, WRITES_PER_RECLAIM, const_fn, edge,
    publication_barrier,
};
use address_range::CodeRange;
use core::marker::PhantomData;
use core::ptr;
use edit::{Change, Edit};
use entry::Item;
use leftovers::Leftovers;
use read_section::{ReadSections, Section};
use reclamation::{Backlog, Effort, Settling};
use shared::{Block, Shared};
use try_box::try_box_with;
use version::{Raw, Version};
use writing::Writing;

/// Why a write changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    OutOfMemory,
    Overlap { added: CodeRange, existing: CodeRange },
}

/// How entries were taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// By the version of this sequence number: earlier ones may still show them to readers.
    Published(u64),
    /// In place, for want of memory: a later write will leave them out.
    Buried,
}

impl Removal {
    /// This and another one.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Published(a), Self::Published(b)) => Self::Published(a.max(b)),
            _ => Self::Buried,
        }
    }
}

/// Tells the maps of a process apart, also those that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapId(u64);

/// The index of one map.
#[repr(C, align(128))] // what a lookup reads first, the epoch included, stands on one cache line
pub(crate) struct Index<T> {
    /// What handlers read: null before the first write.
    published: AtomicPtr<Block<Version<T>>>,
    /// How often entries were buried: lookups ask an entry for its tombstone only if this is not 0.
    buried: AtomicUsize,
    /// Null before the first write.
    writing: AtomicPtr<Writing<T>>,
    sections: ReadSections,
    owns: PhantomData<Shared<Version<T>>>,
}

/// A read section, and the version that was published when it was entered.
pub(crate) struct Reading<'a, T> {
    index: &'a Index<T>,
    section: Section<'a>,
    raw: Raw<T>,
}

impl<T> Reading<'_, T> {
    /// The version (`None`: nothing was ever written).
    ///
    /// Signal-safe: follows a pointer.
    #[inline(always)]
    pub(crate) fn version(&self) -> Option<&Version<T>> {
        // SAFETY: (`Shared::peek`) 1. null or a version, read from the published pointer; 2. the
        // chain's count of it is dropped only when `Grace::Passed`, which the section that it was
        // read in keeps from coming as long as `self` lives.
        unsafe { Shared::peek(self.raw) }
    }

    /// Whether a lookup must ask the entry that it found for its tombstone.
    ///
    /// Signal-safe: one load.
    #[inline(always)]
    pub(crate) fn has_buried(&self) -> bool {
        // Ordering [tombstone]: Relaxed; as for the tombstone itself.
        self.index.buried.load(edge::tombstone()) != 0
    }

    /// One more count on the version.
    fn share(&self) -> Option<Shared<Version<T>>> {
        // SAFETY: (`Shared::share_raw`) 1. not null, and alive as in `version`.
        self.version().map(|_| unsafe { Shared::share_raw(self.raw) })
    }
}

// SAFETY: the raw pointers lead to blocks that are shared by counts and destroyed on any thread,
// as `Shared<Version<T>>` is, and `Shared` asks for `T: Send + Sync` itself.
unsafe impl<T: Send + Sync> Send for Index<T> {}
// SAFETY: as above; all that `&Index` changes is atomic.
unsafe impl<T: Send + Sync> Sync for Index<T> {}

impl<T> Index<T> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                published: AtomicPtr::new(ptr::null_mut()),
                buried: AtomicUsize::new(0),
                writing: AtomicPtr::new(ptr::null_mut()),
                sections: ReadSections::new(),
                owns: PhantomData,
            }
        }
    }

    /// Enters a read section, and reads what is published.
    ///
    /// Wait-free. Signal-safe: see [`ReadSections::enter`]; besides it one load.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Reading<'_, T> {
        // Ordering [read_published]: Acquire; pairs with Release in `publish_up_to`.
        //   seen:     the whole version is visible;
        //   not seen: the previous one is read, which the section keeps alive.
        let (section, raw) = self.sections.enter(|| self.published.load(edge::read_published()));
        Reading { index: self, section, raw }
    }

    /// Adds entries, sorted by start and not empty, in one publication; all or none. Gives the
    /// sequence number of the version that has them.
    pub(crate) fn insert(&self, items: &[Item<T>]) -> Result<u64, Refusal> {
        self.write(items, &[])
    }

    /// Takes out entries, sorted by start, in one publication. Cannot fail: without memory for a
    /// successor they are buried where they stand.
    pub(crate) fn remove(&self, items: &[Item<T>]) -> Removal {
        match self.write(&[], items) {
            Ok(sequence) => Removal::Published(sequence),
            Err(_) => self.bury(items),
        }
    }

    /// Makes entries invisible in place: what removing does without memory.
    pub(crate) fn bury(&self, items: &[Item<T>]) -> Removal {
        for item in items {
            item.entry.bury();
        }
        // Ordering [bury]: Release; pairs with Acquire [buried] in `write`.
        //   seen:     the tombstones are seen by whoever builds a tree behind that;
        //   not seen: the number is higher than that one's, and the map is not tidy.
        self.buried.fetch_add(1, edge::bury());
        publication_barrier();
        Removal::Buried
    }

    /// Leaves out the entries that are buried; the sequence number of a published version that
    /// lacks all that were buried before the call.
    pub(crate) fn tidy(&self) -> Result<u64, Refusal> {
        let Some(writing) = self.writing() else { return Ok(0) };
        if !self.is_tidy(writing) {
            return self.write(&[], &[]);
        }
        loop {
            let reading = self.enter();
            let Some(version) = reading.version() else { return Ok(0) };
            if let Some(newest) = self.newest(version, &reading.section) {
                let sequence = newest.sequence;
                self.publish_up_to(reading, sequence);
                return Ok(sequence);
            }
        }
    }

    /// Whether a version without everything that was buried so far is linked.
    fn is_tidy(&self, writing: &Writing<T>) -> bool {
        // Ordering [tidied]: Acquire; pairs with Release in `write`.
        //   seen:     that version is found by following the chain;
        //   not seen: the number is lower, and the map is gone through once more.
        let tidied = writing.tidied.load(edge::tidied());
        tidied >= self.buried.load(edge::buried())
    }

    /// An owned view of the newest version (`None`: nothing was ever written). Lock-free: goes on
    /// when another thread has put a version into the cell.
    pub(crate) fn snapshot(&self) -> Option<Shared<Version<T>>> {
        let writing = self.writing()?;
        let published = self.enter().share()?;
        loop {
            let held = writing.cell.load_full();
            let sequence = held.as_ref().map_or(0, |held| held.sequence);
            if let (Some(held), true) = (&held, sequence >= published.sequence) {
                return Some(held.clone());
            }
            writing.cell.compare_and_swap(&held, Some(published.clone()));
            // Ordering [fill_cell]: Release; pairs with Acquire in `empty_cell`.
            //   seen: what was put into the cell is seen there.
            writing.put_in_cell.fetch_add(1, edge::fill_cell());
        }
    }

    /// Takes a version out of the cell that is displaced.
    fn empty_cell(&self, writing: &Writing<T>) {
        // Ordering [cell_filled]: Acquire; pairs with Release in `snapshot`.
        //   not seen: the number differs later, and somebody looks again.
        let put = writing.put_in_cell.load(edge::cell_filled());
        if writing.seen_empty.load(edge::statistic()) == put {
            return;
        }
        let held = writing.cell.load_full();
        if let Some(version) = &held {
            if version.sequence >= self.sequence() {
                return; // it is not displaced yet
            }
            writing.cell.compare_and_swap(&held, None);
            if writing.cell.load_full().is_some() {
                return;
            }
        }
        writing.seen_empty.store(put, edge::statistic());
    }

    /// What follows the write of version `sequence`, when its outcome is safe with the caller: now
    /// and then garbage is taken out. Values' destructors run here.
    pub(crate) fn tend(&self, sequence: u64) {
        if sequence.is_multiple_of(WRITES_PER_RECLAIM) {
            self.take_out_garbage(Effort { advances: WRITE_ADVANCES, failures: 1 });
        }
    }

    /// Destroys what is retired and nobody holds, without waiting. Not inside a section of this
    /// map.
    pub(crate) fn reclaim(&self) {
        // If there is no memory, the domain stays the old one, and buried entries stay buried.
        let _ = self.sections.follow_fork();
        let _ = self.tidy();
        self.take_out_garbage(Effort { advances: u32::MAX, failures: RECLAIM_PATIENCE });
        if let Some(writing) = self.writing() {
            writing.reclamation.spares.clear();
        }
    }

    fn take_out_garbage(&self, effort: Effort) {
        let Some(writing) = self.writing() else { return };
        self.empty_cell(writing);
        let target = self.sequence();
        writing.reclamation.reclaim(&self.sections, &self.published, target, effort);
    }

    /// Whether what `settling` waits for is destroyed.
    pub(crate) fn has_settled(&self, settling: &mut Settling) -> bool {
        let settled =
            |writing: &Writing<T>| writing.reclamation.has_settled(&self.sections, settling);
        self.writing().is_none_or(settled)
    }

    /// The identity of a map that has been written to (any other has no entries to identify).
    pub(crate) fn id(&self) -> MapId {
        self.writing().map_or(MapId(0), |writing| writing.id)
    }

    /// How many versions were displaced so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.enter().version().map_or(0, |version| version.sequence)
    }

    /// How many entries the newest version holds, without buried ones, and what they take beside
    /// the values, in bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let reading = self.enter();
        let Some(version) = reading.version() else { return (0, 0) };
        let tree = &version.tree;
        let entry = Shared::<entry::Entry<T>>::BYTES - size_of::<T>();
        let bytes = Shared::<Version<T>>::BYTES + tree.bytes + tree.entries * entry;
        if !reading.has_buried() {
            return (tree.entries, bytes);
        }
        (tree.iter().filter(|found| !found.entry.is_buried()).count(), bytes)
    }

    /// What is retired and not destroyed.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        let reading = self.enter();
        Some(self.writing()?.reclamation.backlog(reading.version()?))
    }

    /// How often the epoch has advanced in this process.
    pub(crate) fn epoch(&self) -> u64 {
        self.sections.epoch()
    }

    /// Makes a change to the newest version; the sequence number of the version that has it.
    ///
    /// Lock-free: an attempt fails only when another thread's write was linked, or at the first
    /// write of a child of `fork`.
    fn write(&self, add: &[Item<T>], remove: &[Item<T>]) -> Result<u64, Refusal> {
        let writing = self.start_writing()?;
        self.sections.follow_fork().map_err(|_| Refusal::OutOfMemory)?;
        let sequence = loop {
            // Ordering [tidied]: Acquire; as in `is_tidy`: that version is found below.
            let tidied = writing.tidied.load(edge::tidied());
            let reading = self.enter();
            // (Not null: the root is published.)
            let version = reading.version().ok_or(Refusal::OutOfMemory)?;
            let Some(newest) = self.newest(version, &reading.section) else { continue };
            // Ordering [buried]: Acquire; pairs with Release in `bury`.
            //   seen: the tombstones of so many removals, which the successor will lack.
            let buried = self.buried.load(edge::buried());
            let tidy = buried > tidied;
            let leftovers = try_box_with(Leftovers::none).ok_or(Refusal::OutOfMemory)?;
            let mut edit = Edit::new(&newest.tree, &writing.reclamation.spares, leftovers);
            if let Err(refusal) = edit.make_tree(&Change { add, remove, tidy }) {
                // What stands in the way must be found by lookups when the caller is told.
                let shown = newest.sequence;
                self.publish_up_to(reading, shown);
                publication_barrier();
                return Err(refusal);
            }
            let changed = !add.is_empty() || !edit.leftovers.entries().is_empty();
            if changed {
                let born = reading.section.first_epoch();
                let version = newest.succeed(edit.tree, edit.leftovers, born);
                if newest.link(version.ok_or(Refusal::OutOfMemory)?).is_err() {
                    continue;
                }
                edit.made.keep();
            } else if tidy && !newest.next().is_null() {
                continue; // what was buried may be in a version behind this one
            }
            // Ordering [tidy]: Release; pairs with Acquire in `is_tidy`.
            //   seen: a version without what was buried then is linked, and found.
            if tidy {
                writing.tidied.fetch_max(buried, edge::tidy());
            }
            let sequence = newest.sequence + u64::from(changed);
            self.publish_up_to(reading, sequence);
            break sequence;
        };
        publication_barrier();
        Ok(sequence)
    }

    /// The newest version, from `version` on, which was read from the published pointer in
    /// `section`; `None` if the domain changed, and the caller must enter again.
    ///
    /// Lock-free: each step follows a write that another thread linked.
    fn newest<'r>(
        &self,
        version: &'r Version<T>,
        section: &'r Section<'_>,
    ) -> Option<&'r Version<T>> {
        let mut newest = version;
        loop {
            let next = newest.next();
            if !self.sections.is_current(section) {
                return None;
            }
            // SAFETY: (`Shared::peek`) 1. null or a version, from the chain; 2. it is displaced
            // later than `version`, which was published in the section, and it is not born in a
            // newer domain, so its `Grace` does not pass while the section lives.
            match unsafe { Shared::peek(next) } {
                Some(next) => newest = next,
                None => return Some(newest),
            }
        }
    }

    /// Moves the published pointer along the chain until it has reached `sequence`; `reading` is one
    /// that was begun before.
    ///
    /// Lock-free: an exchange fails only when another thread moved it.
    fn publish_up_to<'i>(&'i self, mut reading: Reading<'i, T>, sequence: u64) {
        while let Some(version) = reading.version().filter(|shown| shown.sequence < sequence) {
            // Ordering [publish]: Release; pairs with Acquire in `enter` and `dismantle_oldest`.
            //   seen:     the whole version is visible, having been seen by [follow] or made here;
            //   not seen: readers find the previous one, and count against its displacement;
            //   failed:   another thread moved it.
            // The version was published in this section, so its address is not that of another.
            let (shown, next) = (reading.raw, version.next());
            let moved = self.published.compare_exchange(shown, next, edge::publish(), edge::lost());
            if moved.is_ok() {
                version.note_displaced(self.sections.epoch_behind_exchange());
                if let Some(writing) = self.writing() {
                    writing.reclamation.note_displaced(version);
                }
                if version.sequence + 1 == sequence {
                    return;
                }
            }
            reading = self.enter();
        }
    }

    /// What writers use, if there has been a write.
    fn writing(&self) -> Option<&Writing<T>> {
        // Ordering [installed]: Acquire; pairs with Release in `start_writing`.
        //   seen:     it is whole;
        //   not seen: no write of which this thread was told has been made.
        let writing = self.writing.load(edge::installed());
        // SAFETY: null or from `Box::into_raw` in `start_writing`; freed by `drop` only.
        let writing = unsafe { writing.as_ref() }?;
        writing.life.read();
        Some(writing)
    }

    /// What writers use, made if this is the first write; and the root version is published.
    fn start_writing(&self) -> Result<&Writing<T>, Refusal> {
        let writing = match self.writing() {
            Some(writing) => writing,
            None => {
                let made = Box::into_raw(Writing::try_new()?);
                // Ordering [install]: Release; pairs with Acquire in `writing`.
                //   failed: another thread's is used.
                if self
                    .writing
                    .compare_exchange(ptr::null_mut(), made, edge::install(), edge::lost())
                    .is_err()
                {
                    // SAFETY: from `Box::into_raw` above, and handed to nobody.
                    Writing::discard(unsafe { *Box::from_raw(made) });
                }
                self.writing().ok_or(Refusal::OutOfMemory)? // never null again
            }
        };
        // Any thread may publish the root; nobody after the first can, for it is null only once.
        // Ordering [publish]: Release; as in `publish_up_to`.
        if self.published.load(edge::read_published()).is_null() {
            let _ = self.published.compare_exchange(
                ptr::null_mut(),
                writing.root,
                edge::publish(),
                edge::lost(),
            );
        }
        Ok(writing)
    }
}

impl<T> Drop for Index<T> {
    fn drop(&mut self) {
        let writing = self.writing.load(edge::installed());
        // SAFETY: null or from `Box::into_raw` in `start_writing`; freed below.
        if let Some(writing) = unsafe { writing.as_ref() } {
            // SAFETY: (`Reclamation::finish`) 1. here only, but for what was never installed; 2.
            // calls and sections borrow the map.
            unsafe { writing.reclamation.finish() };
        }
        if !writing.is_null() {
            // SAFETY: from `Box::into_raw` in `start_writing`, freed here only.
            drop(unsafe { Box::from_raw(writing) });
        }
    }
}

#[cfg(test)]
mod invariants;
