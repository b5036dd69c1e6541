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
pub(crate) mod entry;
pub(crate) mod read_section;
pub(crate) mod reclamation;
pub(crate) mod shared;
pub(crate) mod table;
pub(crate) mod try_box;
pub(crate) mod version;

use crate::sync::{ArcSwapAny, AtomicPtr, AtomicUsize, const_fn, edge, publication_barrier, unique_number};
use address_range::CodeRange;
use core::marker::PhantomData;
use core::ptr;
use entry::Entry;
use read_section::{ReadSections, Section};
use reclamation::{Backlog, Reclamation, Settling};
use shared::{Block, Shared};
use table::Change;
use try_box::try_box;
use version::{Raw, Version};

/// A write takes out the garbage itself every so many writes,
const WRITES_PER_RECLAIM: u64 = 16;
/// and every time when tables are so large that a few of them would weigh more than the work.
const LARGE_TABLE: usize = 256 * 1024;
/// Rounds without progress after which a write leaves garbage to a later call,
const WRITE_PATIENCE: u32 = 2;
/// and an explicit `reclaim` does: the epoch must advance three times, crossbeam's twice.
const RECLAIM_PATIENCE: u32 = 8;

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
#[repr(C)] // what a lookup reads first stands together
pub(crate) struct Index<T> {
    /// What handlers read: null before the first write.
    published: AtomicPtr<Block<Version<T>>>,
    /// Null before the first write.
    writing: AtomicPtr<Writing<T>>,
    sections: ReadSections,
    owns: PhantomData<Shared<Version<T>>>,
}

/// What only writers and owners of snapshots use; made by the first write.
struct Writing<T> {
    /// The first version, for publishing it; not to be followed once something is published.
    root: Raw<T>,
    /// Owned snapshots come from here. Follows `published`.
    cell: ArcSwapAny<Shared<Version<T>>>,
    reclamation: Reclamation<T>,
    id: MapId,
    /// How many buried entries the newest version holds.
    buried: AtomicUsize,
}

/// A read section, and the version that was published when it was entered.
pub(crate) struct Reading<'a, T> {
    section: Section<'a>,
    raw: Raw<T>,
}

impl<T> Reading<'_, T> {
    /// The version (`None`: nothing was ever written).
    ///
    /// Signal-safe: follows a pointer.
    #[inline(always)]
    pub(crate) fn version(&self) -> Option<&Version<T>> {
        // SAFETY (`Shared::peek`): 1. null or a version, read from the published pointer; 2. the
        // chain's count of it is dropped only when `Grace::Passed`, which the section that it was
        // read in keeps from coming as long as `self` lives.
        unsafe { Shared::peek(self.raw) }
    }

    /// One more count on the version.
    fn share(&self) -> Option<Shared<Version<T>>> {
        // SAFETY (`Shared::share_raw`): 1. not null, and alive as in `version`.
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
        Reading { section, raw }
    }

    /// Adds entries, sorted by start and not empty, in one publication; all or none.
    pub(crate) fn insert(&self, entries: &[Shared<Entry<T>>]) -> Result<(), Refusal> {
        self.write(&Change { add: entries, remove: &[] }).map(drop)
    }

    /// Takes out entries, sorted by start, in one publication. Cannot fail: without memory for a
    /// successor they are buried where they stand.
    pub(crate) fn remove(&self, entries: &[Shared<Entry<T>>]) -> Removal {
        if let Ok(sequence) = self.write(&Change { add: &[], remove: entries }) {
            return Removal::Published(sequence);
        }
        if let Some(writing) = self.writing() {
            // Counted before they are buried: whoever leaves them out counts them off again.
            writing.buried.fetch_add(entries.len(), edge::statistic());
        }
        for entry in entries {
            entry.bury();
        }
        publication_barrier();
        Removal::Buried
    }

    /// Leaves out the entries that are buried; the sequence number of a published version that
    /// lacks them all. An empty change does that, and publishes nothing if there are none.
    pub(crate) fn tidy(&self) -> Result<u64, Refusal> {
        let Some(writing) = self.writing() else { return Ok(0) };
        // Ordering [tidied]: Acquire; pairs with Release in `write`.
        //   seen:     the version that left them out is linked, and found below;
        //   not seen: the count is not zero, and the table is gone through once more.
        if writing.buried.load(edge::tidied()) != 0 {
            return self.write(&Change { add: &[], remove: &[] });
        }
        let reading = self.enter();
        // SAFETY (`Version::newest`): 1. as in `write`.
        let newest = reading.version().map(|version| unsafe { version.newest() }.sequence);
        self.publish_up_to(newest.unwrap_or(0));
        Ok(newest.unwrap_or(0))
    }

    /// An owned view of the newest version (`None`: nothing was ever written).
    ///
    /// Lock-free.
    pub(crate) fn snapshot(&self) -> Option<Shared<Version<T>>> {
        let published = self.enter().share()?;
        let writing = self.writing()?;
        writing.follow(&published);
        Some(writing.cell.load_full())
    }

    /// Destroys what is retired and nobody holds, without waiting. Not inside a section of this
    /// map.
    pub(crate) fn reclaim(&self) {
        // If there is no memory, buried entries stay buried.
        let _ = self.tidy();
        if let Some(writing) = self.writing() {
            writing.reclamation.reclaim(&self.sections, &self.published, RECLAIM_PATIENCE);
        }
    }

    /// Whether what `settling` waits for is destroyed.
    pub(crate) fn has_settled(&self, settling: &mut Settling) -> bool {
        self.writing().is_none_or(|writing| writing.reclamation.has_settled(settling))
    }

    /// The identity of a map that has been written to (any other has no entries to identify).
    pub(crate) fn id(&self) -> MapId {
        self.writing().map_or(MapId(0), |writing| writing.id)
    }

    /// How many versions were displaced so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.enter().version().map_or(0, |version| version.sequence)
    }

    /// How many entries the newest version holds, without buried ones.
    pub(crate) fn entries(&self) -> usize {
        let buried = self.writing().map_or(0, |w| w.buried.load(edge::statistic()));
        let slots = self.enter().version().map_or(0, |version| version.table.slots().len());
        slots.saturating_sub(buried)
    }

    /// What is retired and not destroyed.
    pub(crate) fn backlog(&self) -> Option<Backlog> {
        Some(self.writing()?.reclamation.backlog(&self.published))
    }

    /// How often the epoch has advanced in this process.
    pub(crate) fn epoch(&self) -> u64 {
        self.sections.epoch()
    }

    /// Makes `change` to the newest version; the sequence number of the version that has it.
    ///
    /// Lock-free: an attempt fails only when another thread's write was linked.
    fn write(&self, change: &Change<'_, T>) -> Result<u64, Refusal> {
        let writing = self.start_writing()?;
        self.sections.follow_fork();
        let reading = self.enter();
        let Some(mut newest) = reading.version() else {
            return Err(Refusal::OutOfMemory); // not reached: `start_writing` publishes the root
        };
        let version = loop {
            // SAFETY (`Version::newest`): 1. what is linked behind a version that was published
            // in this section is displaced later still, and so kept alive by the section too.
            newest = unsafe { newest.newest() };
            let successor = match newest.table.successor(change) {
                Ok(successor) => successor,
                Err(refusal) => {
                    // What stands in the way must be found by lookups when the caller is told.
                    self.publish_up_to(newest.sequence);
                    return Err(refusal);
                }
            };
            if change.add.is_empty() && successor.left_out == 0 {
                self.publish_up_to(newest.sequence);
                return Ok(newest.sequence);
            }
            let tidied = successor.tidied;
            let version = Shared::try_new(newest.succeed(successor, reading.section.first_epoch()))
                .map_err(|_| Refusal::OutOfMemory)?;
            // arc-swap makes a node for each thread that uses it, and aborts without memory for
            // it: provoked here, where nothing is changed yet.
            drop(writing.cell.load());
            if newest.link(version.clone()).is_ok() {
                // Ordering [tidy]: Release; pairs with Acquire in `tidy`.
                writing.buried.fetch_sub(tidied, edge::tidy());
                break version;
            }
        };
        self.publish_up_to(version.sequence);
        drop(reading);
        writing.follow(&version);
        publication_barrier();
        if version.sequence % WRITES_PER_RECLAIM == 0 || version.table.bytes() >= LARGE_TABLE {
            writing.reclamation.reclaim(&self.sections, &self.published, WRITE_PATIENCE);
        }
        Ok(version.sequence)
    }

    /// Moves the published pointer along the chain until it has reached `sequence`.
    ///
    /// Lock-free: an exchange fails only when another thread moved it. To be called inside a
    /// section of this map.
    fn publish_up_to(&self, sequence: u64) {
        loop {
            let raw = self.published.load(edge::read_published());
            // SAFETY (`Shared::peek`): 1. a published version; 2. loaded inside the caller's
            // section, which keeps it alive.
            let Some(version) = (unsafe { Shared::peek(raw) }) else { return };
            if version.sequence >= sequence {
                return;
            }
            // Ordering [publish]: Release; pairs with Acquire in `enter` and `take_oldest`.
            //   seen:     the whole version is visible, having been seen by [follow] or made here;
            //   not seen: readers find the previous one, and count against its displacement;
            //   failed:   another thread moved it.
            let moved =
                self.published.compare_exchange(raw, version.next(), edge::publish(), edge::lost());
            if moved.is_ok() {
                version.note_displaced(self.sections.epoch_after_displacement());
            }
        }
    }

    /// What writers use, if there has been a write.
    fn writing(&self) -> Option<&Writing<T>> {
        // Ordering [installed]: Acquire; pairs with Release in `start_writing`.
        //   seen:     it is whole;
        //   not seen: no write of which this thread was told has been made.
        let writing = self.writing.load(edge::installed());
        // SAFETY: null or from `Box::into_raw` in `start_writing`; freed by `drop` only.
        unsafe { writing.as_ref() }
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
                    drop(unsafe { Box::from_raw(made) });
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

impl<T> Writing<T> {
    fn try_new() -> Result<Box<Self>, Refusal> {
        let root = Shared::try_new(Version::root()).map_err(|_| Refusal::OutOfMemory)?;
        let writing = Self {
            root: root.as_raw(),
            cell: ArcSwapAny::new(root.clone()),
            reclamation: Reclamation::new(root),
            id: MapId(unique_number()),
            buried: AtomicUsize::new(0),
        };
        try_box(writing).map_err(|_| Refusal::OutOfMemory)
    }

    /// Moves the cell forward until it has reached `version`.
    ///
    /// Lock-free: an exchange fails only when another thread moved it. Not inside a section: what
    /// the cell lets go of may be destroyed here.
    fn follow(&self, version: &Shared<Version<T>>) {
        loop {
            let held = self.cell.load();
            if held.sequence >= version.sequence {
                return;
            }
            self.cell.compare_and_swap(&*held, version.clone());
        }
    }
}

impl<T> Drop for Index<T> {
    fn drop(&mut self) {
        let writing = self.writing.load(edge::installed());
        if !writing.is_null() {
            // SAFETY: from `Box::into_raw` in `start_writing`, freed here only; sections, which
            // borrow `self`, are gone.
            drop(unsafe { Box::from_raw(writing) });
        }
    }
}
