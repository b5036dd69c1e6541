#![expect(unsafe_code, reason = "follows uncounted pointers along the chain of versions")]
//! One version of the map: a tree, and its place in the chain of all versions.
//!
//! History is linear. A writer makes the successor of the newest version and links it behind that
//! one with a single compare-and-swap of `next`, from null: that is the moment at which a write
//! takes effect among writers, and it can succeed once per version. Everything else (the pointer
//! that handlers read, the head that reclamation moves) only follows the chain, forward, and any
//! thread may do that for any other; so nobody depends on the thread that linked.

use super::leftovers::Leftovers;
use super::node::Node;
use super::shared::{Block, Shared};
use super::tree::Tree;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Statistic, coarse_nanos, edge};
use core::ptr;

/// A version's block, by address.
pub(crate) type Raw<T> = *mut Block<Version<T>>;

/// A tree and its place in the chain.
#[repr(C)] // what a lookup reads comes first
pub(crate) struct Version<T> {
    pub(crate) tree: Tree<T>,
    /// How many versions came before; also the number of publications so far.
    pub(crate) sequence: u64,
    /// What all earlier versions take, in bytes, with what their successors left out.
    pub(crate) bytes_before: u64,
    /// The first epoch of the domain that its writer was counted in: no reader counted in an older
    /// domain can hold it (see `read_section`).
    pub(crate) born: u64,
    /// Keeps what writers write off the cache lines that lookups read.
    apart: [u8; 64],
    /// The successor, or null while this is the newest.
    next: AtomicPtr<Block<Version<T>>>,
    /// 0 until it is known to be displaced; then one more than the epoch that was read after that.
    tag: AtomicU64,
    /// When it was displaced: `coarse_nanos`, 0 if not noted.
    displaced_at: Statistic,
    /// What its destruction will free, in bytes; known when it is taken out of the chain.
    pub(crate) weight: Statistic,
    /// The version below this one on a [`Stack`](super::stack::Stack).
    pub(super) below: AtomicPtr<Block<Version<T>>>,
    /// Whether the tree's root is counted for this version: as [`Node`]s own what they point at.
    owns: AtomicBool,
    /// What the predecessor has that this lacks; when the predecessor is dismantled that passes to
    /// it, for it is the predecessor's destruction that waits for it. Null: nothing (any more).
    leftovers: AtomicPtr<Leftovers<T>>,
}

// SAFETY: the pointers lead to nodes and entries, which are counted, immutable and freed by
// whichever thread comes last, as `Shared<Entry<T>>` is.
unsafe impl<T: Send + Sync> Send for Version<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Version<T> {}

impl<T> Version<T> {
    /// The empty version that every chain begins with.
    pub(crate) fn root() -> Self {
        Self::new(Tree::empty(), ptr::null_mut(), 0, 0, 0)
    }

    /// The version after `self`. `None`: there is no memory.
    pub(crate) fn succeed(
        &self,
        tree: Tree<T>,
        leftovers: Box<Leftovers<T>>,
        born: u64,
    ) -> Option<Shared<Self>> {
        let own = Shared::<Self>::BYTES + size_of::<Leftovers<T>>() + leftovers.bytes();
        let bytes_before = self.bytes_before + own as u64;
        let sequence = self.sequence + 1;
        Shared::try_new_with(move || {
            Self::new(tree, Box::into_raw(leftovers), sequence, bytes_before, born)
        })
    }

    #[inline(always)]
    fn new(
        tree: Tree<T>,
        leftovers: *mut Leftovers<T>,
        sequence: u64,
        bytes_before: u64,
        born: u64,
    ) -> Self {
        Self {
            tree,
            sequence,
            bytes_before,
            born,
            apart: [0; 64],
            next: AtomicPtr::new(ptr::null_mut()),
            tag: AtomicU64::new(0),
            displaced_at: Statistic::new(0),
            weight: Statistic::new(0),
            below: AtomicPtr::new(ptr::null_mut()),
            owns: AtomicBool::new(false),
            leftovers: AtomicPtr::new(leftovers),
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
        self.displaced_at.store(coarse_nanos(), edge::statistic());
        // Ordering [tag]: Relaxed; the number is all there is to see, and any two numbers that
        // threads may store are right: each was read behind its own [writer_displaces] or
        // [writer_unlinks].
        self.tag.store(epoch.wrapping_add(1), edge::tag());
    }

    /// The epoch that was noted, if any.
    pub(crate) fn tag(&self) -> Option<u64> {
        // Ordering [tag]: Relaxed; see `note_displaced`.
        self.tag.load(edge::tag()).checked_sub(1)
    }

    /// When it was displaced, if that was noted: nanoseconds of `coarse_nanos`.
    pub(crate) fn displaced_at(&self) -> Option<u64> {
        Some(self.displaced_at.load(edge::statistic())).filter(|&at| at != 0)
    }

    /// Counts the tree's root for this version, which something beside the chain shows.
    ///
    /// # Safety
    ///
    /// 1. The caller dismantles the chain, and has come to this version.
    pub(crate) unsafe fn own_tree(&self) {
        if self.tree.root.is_nothing() || self.owns() {
            return;
        }
        // SAFETY: (`Node::share`) 1. by 1. the chain's counts of what this version shows stand.
        unsafe { Node::share(self.tree.root.node()) };
        // Ordering [count_up]: Relaxed; the [count_down] of the chain's count follows it.
        self.owns.store(true, edge::count_up());
    }

    /// Whether its tree is counted for it: see `own_tree`.
    pub(crate) fn owns(&self) -> bool {
        self.owns.load(edge::count_up())
    }

    /// What the predecessor has that this lacks.
    ///
    /// # Safety
    ///
    /// 1. Until the answer goes nobody else takes it.
    pub(crate) unsafe fn leftovers(&self) -> Option<&Leftovers<T>> {
        // SAFETY: null, or from `Box::into_raw` in `succeed`; by 1. not freed meanwhile.
        unsafe { self.leftovers.load(edge::leftovers()).as_ref() }
    }

    /// Passes what this version lacks on to `predecessor`, which is dismantled.
    ///
    /// In two steps, either of which may be made twice: a fork may leave the one who makes them
    /// behind between the two, and another one makes them again.
    pub(crate) fn pass_leftovers_to(&self, predecessor: &Self) {
        // Ordering [leftovers]: Relaxed; whoever dismantles holds the claim, which orders this for
        // the next one, and [put] orders it for whoever destroys the predecessor.
        let leftovers = self.leftovers.load(edge::leftovers());
        if !leftovers.is_null() {
            predecessor.leftovers.store(leftovers, edge::leftovers());
            self.leftovers.store(ptr::null_mut(), edge::leftovers());
        }
    }

    /// Gives back the chain's counts of the entries that went with this version; their values'
    /// destructors may run, and panic: the rest goes all the same.
    ///
    /// # Safety
    ///
    /// 1. The version is dismantled, and the caller has the chain's count of it.
    pub(crate) unsafe fn release_entries(&self) {
        // Ordering [leftovers]: Relaxed; see `pass_leftovers_to`.
        let leftovers = self.leftovers.swap(ptr::null_mut(), edge::leftovers());
        if !leftovers.is_null() {
            // SAFETY: from `Box::into_raw` in `succeed`; by 1. taken out by nobody else.
            let leftovers = unsafe { Box::from_raw(leftovers) };
            // SAFETY: (`Leftovers::release_entries`) 1. by 1.
            unsafe { leftovers.release_entries() };
        }
    }
}

impl<T> Drop for Version<T> {
    /// Gives back the root, if it is this version's; values' destructors may run.
    fn drop(&mut self) {
        let leftovers = self.leftovers.load(edge::leftovers());
        if !leftovers.is_null() {
            // SAFETY: from `Box::into_raw` in `succeed`; nobody else has this version. The list's
            // own drop gives nothing back.
            drop(unsafe { Box::from_raw(leftovers) });
        }
        if self.owns() {
            // SAFETY: (`Node::release`) 1. counted by `own_tree`.
            unsafe { Node::release(self.tree.root.node(), None) };
        }
    }
}
