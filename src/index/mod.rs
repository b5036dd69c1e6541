#![expect(unsafe_code, reason = "dereferences the published pointer inside sections")]
//! The concurrent index: immutable versions, one of which is published.
//!
//! ```text
//!   published ----> root, with the version ----> nodes ----> leaves ----> entries: state, value
//!                                      (nodes are shared by versions)
//!   displaced ----> limbo lists, by epoch ----> freed, when no reader is left
//! ```
//!
//! - **Handlers** read `published` inside a section ([`section`]): nothing is counted for what they
//!   read, nothing is freed, nobody is waited for.
//! - **Writers** enter a section, build the successor of the published version ([`edit`]), and exchange
//!   the pointer: that is the write. The writer that displaced a version retires the nodes and
//!   entries that its successor lacks ([`limbo`]).
//! - **Removal** is a flag in the entry ([`entry`]). Lookups look at it; the slot goes when its leaf
//!   is rewritten, by a later write or by compaction ([`compact`]).
//! - **Owned snapshots** are sorted vectors ([`view`]), the last of which is kept for the next who asks.
//!
//! [`reclaim`] frees what no reader can hold ([`era`]); a thread that stalls holds back a bounded part of it
//! ([`eras`]).
//!
//! This directory imports nothing but `crate::sync`, `crate::memory` and `crate::address_range`. So the
//! model package compiles the same files over loom.

mod compact;
mod cut;
mod difference;
pub(crate) mod edit;
pub(crate) mod entry;
pub(crate) mod era;
pub(crate) mod eras;
mod finish;
pub(crate) mod free_list;
pub(crate) mod limbo;
pub(crate) mod node;
mod rebase;
pub(crate) mod reclaim;
pub(crate) mod retired;
mod search;
pub(crate) mod search_plan;
pub(crate) mod section;
pub(crate) mod slot;
mod splice;
pub(crate) mod tree;
pub(crate) mod version;
pub(crate) mod view;

use crate::address_range::{CodeRange, Pc};
use crate::memory::OutOfMemory;
use crate::memory::{Block, Shared};
use crate::sync::{
    AtomicPtr, AtomicU64, ERA_RANGES, REBASE_FROM, SLOTS_PER_COMPACTION, Statistic,
    TOMBSTONES_LEFT, const_fn, edge, publication_barrier, unique_number,
};
use core::ptr;
use edit::{BATCH, Change, Edit, WRITE};
use entry::Item;
use eras::Eras;
use free_list::FreeList;
use limbo::Limbo;
use node::{Maker, Node};
use retired::Retired;
use section::Section;
use slot::Slot;
use tree::Tree;
use version::Version;
use view::View;

/// Why a write changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    OutOfMemory(OutOfMemory),
    Overlap { added: CodeRange, existing: CodeRange },
}

impl From<OutOfMemory> for Refusal {
    fn from(error: OutOfMemory) -> Self {
        Self::OutOfMemory(error)
    }
}

/// What was published: the number of the version, and how many ranges it shows.
struct Published {
    sequence: u64,
    entries: usize,
}

/// Tells the maps of a process apart, also those that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapId(u64);

/// The index of one map.
#[repr(C, align(128))] // what a lookup reads first, the epoch included, stands on one cache line
pub(crate) struct Index<T> {
    /// What handlers read: see [`Version::empty`] for when there is nothing.
    published: AtomicPtr<Node<T>>,
    pub(crate) eras: Eras,
    /// How many entries were removed so far, and how many of them were left out of a version.
    removals: AtomicU64,
    omissions: Statistic,
    /// Where compaction goes on.
    compacted: Statistic,
    /// The last snapshot's view, until something is removed; null: none. It carries a count.
    view: AtomicPtr<Block<View<T>>>,
    /// Values that no reader can hold any more, and their number.
    due: Limbo,
    /// How many values the map has let go of, and how many pieces of memory were freed.
    releases: Statistic,
    freed: Statistic,
    free_list: FreeList,
    id: AtomicU64,
}

/// A section, and the version that was published when it was entered.
pub(crate) struct Reading<'a, T> {
    section: Section<'a>,
    raw: *mut Node<T>,
}

impl<T> Reading<'_, T> {
    /// The version (`None`: there is no range in it).
    ///
    /// Signal-safe: follows a pointer.
    #[inline(always)]
    pub(crate) fn version(&self) -> Option<&Version<T>> {
        // SAFETY: (`Version::peek`) 1. read from the published pointer in this section, which keeps it
        // from being freed.
        unsafe { Version::peek(self.raw) }
    }

    /// The registered range that contains `pc`, and its value.
    ///
    /// Wait-free. Signal-safe: reads immutable nodes, and one flag.
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn find(&self, pc: Pc) -> Option<(CodeRange, &T)> {
        let found = self.version()?.tree.find(pc)?;
        if found.entry.is_removed() {
            return None;
        }
        // SAFETY: (`Entry::value`) 1. live in this section: the map lets go of the value only when all
        // sections have ended that were entered before it was removed.
        Some((found.range, unsafe { found.entry.value() }))
    }

    fn tree(&self) -> Tree<T> {
        self.version().map_or(Tree::empty(), |version| version.tree)
    }

    fn sequence(&self) -> u64 {
        // SAFETY: (`Version::sequence_of`) 1. as in `version`.
        unsafe { Version::sequence_of(self.raw) }
    }
}

// SAFETY: the raw pointers lead to blocks that are given up by, and freed on, any thread; what they
// contain is `T`s (`Send + Sync`) and memory.
unsafe impl<T: Send + Sync> Send for Index<T> {}
// SAFETY: as above; all that `&Index` changes is atomic.
unsafe impl<T: Send + Sync> Sync for Index<T> {}

impl<T> Index<T> {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                published: AtomicPtr::new(Version::empty(0)),
                eras: Eras::new(),
                removals: AtomicU64::new(0),
                omissions: Statistic::new(0),
                compacted: Statistic::new(0),
                view: AtomicPtr::new(ptr::null_mut()),
                due: Limbo::new(),
                releases: Statistic::new(0),
                freed: Statistic::new(0),
                free_list: FreeList::new(),
                id: AtomicU64::new(0),
            }
        }
    }

    /// Enters a section, and reads what is published.
    ///
    /// Wait-free. Signal-safe: see [`Eras::enter`]; besides it one load.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Reading<'_, T> {
        // Ordering [read_published]: Acquire; pairs with Release in `publish`.
        //   seen:     the whole version is visible;
        //   not seen: the previous one is read, which the section keeps alive.
        let (section, raw) = self.eras.enter(|| self.published.load(edge::read_published()));
        Reading { section, raw }
    }

    /// Adds entries, whose slots are sorted by start and not empty, in one publication; all or none.
    /// Gives the number of the version that has them.
    ///
    /// Lock-free: an attempt fails only when another thread published. Destructors do not run.
    pub(crate) fn insert(&self, items: &[Item<T>], slots: &[Slot<T>]) -> Result<u64, Refusal> {
        self.eras.follow_fork(true)?;
        if slots.len() >= ERA_RANGES {
            self.eras.leave_stalled_behind();
        }
        let reading = self.enter();
        let born = reading.section.era();
        let in_map = || items.iter().filter(|item| !item.range.is_empty());
        in_map().for_each(|item| item.enter_map(born));
        let inserted = self.insert_from(reading, slots);
        if inserted.is_err() {
            in_map().for_each(Item::leave_map);
        }
        // Also when it was refused: what is in the way is found when the caller is told.
        publication_barrier();
        let Published { sequence, entries } = inserted?;
        if self.has_many_tombstones(entries, TOMBSTONES_LEFT) {
            self.compact(SLOTS_PER_COMPACTION);
        }
        self.tend(sequence, true);
        Ok(sequence)
    }

    fn insert_from<'i>(
        &'i self,
        mut reading: Reading<'i, T>,
        slots: &[Slot<T>],
    ) -> Result<Published, Refusal> {
        let change = Change { add: slots, visit: &[] };
        let mark = |is_large, reading: &Reading<'_, T>| match is_large {
            true => BATCH | unique_number(),
            false => WRITE | reading.sequence(),
        };
        let mut is_large = slots.len() >= REBASE_FROM;
        let mut edit = self.edit(&reading, mark(is_large, &reading));
        edit.apply(change)?;
        while !self.publish(&reading, &mut edit) {
            let newer = self.enter();
            if is_large {
                edit.rebase(&reading.tree(), &newer.tree())?;
            } else {
                // A small write is made anew sooner than rebased. (But one range may lie over many that are
                // removed.)
                is_large = edit.replaced.len() >= REBASE_FROM;
                edit = self.edit(&newer, mark(is_large, &newer));
                edit.apply(change)?;
            }
            reading = newer;
        }
        let published = Published { sequence: reading.sequence() + 1, entries: edit.tree.entries };
        self.retire_displaced(reading, &edit);
        Ok(published)
    }

    /// A write that begins with what was read. No node that it finds has its mark.
    fn edit(&self, reading: &Reading<'_, T>, mark: u64) -> Edit<'_, T> {
        let maker = Maker { free_list: &self.free_list, born: reading.section.era(), mark };
        Edit::new(reading.tree(), maker)
    }

    /// Publishes the tree of `edit` in the place of what was read, unless another thread published first;
    /// says whether it did. Then the caller goes on with [`Index::retire_displaced`].
    fn publish(&self, reading: &Reading<'_, T>, edit: &mut Edit<'_, T>) -> bool {
        let sequence = reading.sequence() + 1;
        let root = match edit.tree.root.is_nothing() {
            true => Version::empty(sequence),
            false => {
                // SAFETY: (`Node::begin_version`) 1. the root is always of the edit's own making.
                unsafe { Node::begin_version(edit.tree, sequence) };
                edit.tree.root.node()
            }
        };
        // Before the exchange: a thread that stops behind that does not make others look for tombstones which
        // are not there.
        let omitted = edit.omitted.len() as u64;
        if omitted != 0 {
            self.omissions.fetch_add(omitted, edge::statistic());
        }
        // Ordering [publish]: Release; pairs with Acquire in `enter`.
        //   seen:     the whole version is visible;
        //   not seen: readers find the previous one, and count against its displacement;
        //   failed:   another thread published.
        // The old version was published in this section, so its address is not that of another.
        let published =
            self.published.compare_exchange(reading.raw, root, edge::publish(), edge::lost());
        if published.is_ok() {
            edit.keep();
            return true;
        }
        self.omissions.fetch_sub(omitted, edge::statistic());
        false
    }

    /// Makes an entry invisible, at once and for all lookups. What the map holds of it comes back, to be
    /// waited for, unless another thread was first.
    ///
    /// Lock-free; allocates nothing, builds nothing, cannot fail.
    pub(crate) fn remove(&self, item: Item<T>, retired: &mut Retired) {
        if item.range.is_empty() {
            return; // it is no entry
        }
        // Without memory for an era of its own, a child of `fork` goes on with its parent's.
        let _ = self.eras.follow_fork(false);
        if let Some(entry) = item.remove() {
            // Ordering [note_removal]: Release; pairs with Acquire in `view`.
            //   seen: the entry is seen to be removed.
            self.removals.fetch_add(1, edge::note_removal());
            publication_barrier();
            // SAFETY: (`Retired::add`) 1. `Item::remove` has just returned it.
            unsafe { retired.add(self, entry::Entry::garbage(entry)) };
            // Behind the fence in that ([writer_displaces], which meets [viewer_looks]): who waits for the
            // entry waits for the view, too, which may hold the value.
            if let Some(view) = self.displace_view() {
                // SAFETY: (`Retired::add`) 1. taken out by an exchange, with its count.
                unsafe { retired.add(self, View::garbage(view)) };
            }
        }
    }

    /// An owned view of the map (`None`: there is nothing in it). What is removed while it is made may
    /// be in it or not, one by one.
    ///
    /// Lock-free: it goes on when another thread changed the map. O(n), or constant if nothing has
    /// changed since somebody asked.
    pub(crate) fn view(&self) -> Result<Option<Shared<View<T>>>, OutOfMemory> {
        // Ordering [see_removals]: Acquire; pairs with Release in `remove`.
        //   seen: so many entries are seen to be removed, so the view lacks them.
        let removals = self.removals.load(edge::see_removals());
        // Both are loaded before the section looks at the era again: a view that is born in a later era than
        // that of the section would not wait for it.
        let (section, (raw, cached)) = self.eras.enter(|| {
            // Ordering [read_published]: Acquire; as in `enter`.
            let raw = self.published.load(edge::read_published());
            // Ordering [see_view]: Acquire; pairs with Release below.
            //   seen: the view is whole, and the era that it was born in is seen.
            (raw, self.view.load(edge::see_view()))
        });
        let reading = Reading { section, raw };
        let Some(version) = reading.version() else { return Ok(None) };
        // SAFETY: (`Shared::peek`) 1. null or a view; 2. its count is dropped when no reader can hold it
        // that entered before it was displaced.
        let view: Option<&View<T>> = unsafe { Shared::peek(cached) };
        if view.is_some_and(|view| view.made_of == (version.sequence, removals)) {
            // SAFETY: (`Shared::share_raw`) 1. as above.
            return Ok(Some(unsafe { Shared::share_raw(cached) }));
        }
        // SAFETY: (`View::try_new`) 1. in this section.
        let view = unsafe { View::try_new(version, removals, reading.section.era()) }?;
        let mine = view.clone().into_raw();
        // Ordering [show_view]: Release; pairs with Acquire above.
        //   failed: another thread put one there.
        if self.view.compare_exchange(cached, mine, edge::show_view(), edge::lost()).is_ok() {
            // Ordering [viewer_looks]: SeqCst; meets [writer_displaces].
            //   this fence first: a thread that removes something finds this view in the cell;
            //   this one second:  the removal is counted for the look below.
            edge::viewer_looks();
            // SAFETY: (`retire_view`) 1. displaced by the exchange above.
            unsafe { self.retire_view(cached) };
            // A thread that removed something meanwhile may have found the cell without this view.
            if self.removals.load(edge::see_removals()) != removals {
                let view = self.displace_view().unwrap_or(ptr::null_mut());
                // SAFETY: (`retire_view`) 1. taken out by the call above.
                unsafe { self.retire_view(view) };
            }
        } else {
            // SAFETY: (`Shared::from_raw`) 1. from `into_raw` above.
            drop(unsafe { Shared::from_raw(mine) });
        }
        Ok(Some(view))
    }

    /// The identity of the map, given when it is first asked for.
    pub(crate) fn id(&self) -> MapId {
        let known = self.id.load(edge::statistic());
        if known != 0 {
            return MapId(known);
        }
        let id = unique_number();
        match self.id.compare_exchange(0, id, edge::statistic(), edge::lost()) {
            Ok(_) => MapId(id),
            Err(known) => MapId(known),
        }
    }

    /// How many versions were published so far.
    pub(crate) fn sequence(&self) -> u64 {
        self.enter().sequence()
    }

    /// How many entries were removed so far.
    pub(crate) fn removals(&self) -> u64 {
        self.removals.load(edge::statistic())
    }

    /// How many removed entries the newest version shows, roughly.
    fn tombstones(&self) -> u64 {
        // (It may be told later than the omission.)
        let tombstones = self.removals().wrapping_sub(self.omissions.load(edge::statistic()));
        if tombstones >> 63 == 0 { tombstones } else { 0 }
    }

    /// How many entries are live, how many are removed and still shown by the newest version, and what the
    /// index takes beside the values, in bytes.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        let reading = self.enter();
        let Some(version) = reading.version() else { return (0, 0, 0) };
        let tree = &version.tree;
        let header = size_of::<entry::Entry<T>>() - size_of::<T>();
        let bytes = tree.bytes + tree.entries * header;
        let tombstones = (self.tombstones() as usize).min(tree.entries);
        (tree.entries - tombstones, tombstones, bytes)
    }
}

#[cfg(test)]
impl<T> Index<T> {
    /// Adds entries, in any order.
    pub(crate) fn insert_items(&self, items: &[Item<T>]) -> Result<u64, Refusal> {
        let mut slots: Vec<_> = items.iter().map(Slot::of_item).collect();
        slots.sort_unstable_by_key(Slot::start);
        self.insert(items, &slots)
    }

    /// Removes entries, and leaves them to others.
    pub(crate) fn remove_items(&self, items: &[Item<T>]) {
        let mut retired = Retired::nothing();
        items.iter().cloned().for_each(|item| self.remove(item, &mut retired));
        self.leave_to_others(&mut retired);
    }
}

#[cfg(test)]
mod invariants;
