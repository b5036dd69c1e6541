//! One era object: an epoch, the reader counts that hold it back, and the garbage of the era.
//!
//! ```text
//! enter:    side = epoch & 1                  displaced: published is exchanged
//!           readers[side] += 1                           fence  [writer_displaces]
//!           fence  [reader_announces]                    tag = epoch
//!           version = published                          limbo[tag % 4] gets it
//! leave:    readers[side] -= 1                advance:   e = epoch
//!                                                        fence  [scanner_looks]
//!                                                        every readers[(e + 1) & 1] == 0 ?
//!                                                        epoch: e -> e + 1
//!
//! at epoch e all that lies on limbo[(e - 3) % 4] may go
//! ```
//!
//! A reader counts itself in on a *shard*, on one of two *sides*: the parity of the epoch it saw. New
//! readers enter the current side, so they cannot keep the epoch from advancing. Counts, not flags: a
//! handler that interrupts a reader is one more reader, and a thread needs no preparation. Garbage
//! waits for three advances, because the first may rest on a look that began before the displacement.
//!
//! Objects are reused, and never freed before the map: see `eras`. Their counts and epochs go on.

use super::limbo::{Chain, Limbo};
use crate::sync::{AtomicU64, AtomicUsize, SHARDS, Statistic, const_fn, edge, filled, shard_hint};

/// Two counts on cache lines of their own (lines are fetched in pairs on x86-64).
#[repr(C)]
struct Shard {
    readers: [AtomicUsize; 2],
    apart: [u8; 128 - 2 * size_of::<AtomicUsize>()],
}

impl Shard {
    const_fn! {
        fn new() -> Self {
            let apart = [0; 128 - 2 * size_of::<AtomicUsize>()];
            Self { readers: [AtomicUsize::new(0), AtomicUsize::new(0)], apart }
        }
    }
}

/// Garbage is kept apart by what freeing it may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Memory of the index: nothing of the user's runs.
    Memory,
    /// Values, and views of them: destructors run.
    Values,
}

impl Sort {
    pub(crate) const ALL: [Self; 2] = [Self::Memory, Self::Values];
}

/// What an object is used for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// For nothing: the era of this number, its last, has drained.
    Free(u64),
    /// A thread claimed it for the era of this number, which may have begun on another object.
    Claimed(u64),
    /// The era of this number began here, and was not seen drained.
    Active(u64),
}

impl State {
    const fn bits(self) -> u64 {
        match self {
            Self::Free(number) => number << 2,
            Self::Claimed(number) => number << 2 | 1,
            Self::Active(number) => number << 2 | 2,
        }
    }

    const fn of(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Free(bits >> 2),
            1 => Self::Claimed(bits >> 2),
            _ => Self::Active(bits >> 2),
        }
    }
}

/// An era object.
#[repr(C)] // the epoch stands with what a lookup reads before it, the rest apart from that
pub(crate) struct Era {
    epoch: AtomicU64,
    apart: [u8; 104],
    state: AtomicU64,
    /// When its era began: nanoseconds of `coarse_nanos`.
    pub(super) began: Statistic,
    /// Memory that lies on its lists, or was taken off them and is not freed yet.
    items: Statistic,
    bytes: Statistic,
    /// What was displaced in its era, by [`Sort`] and by epoch.
    limbo: [[Limbo; 4]; 2],
    /// What was displaced in a later era, and a reader of this one may hold.
    waiting: [Limbo; 2],
    apart_too: [u8; 64],
    shards: [Shard; SHARDS],
}

impl Era {
    const_fn! {
        pub(crate) fn new(state: State) -> Self {
            Self {
                epoch: AtomicU64::new(0),
                apart: [0; 104],
                state: AtomicU64::new(state.bits()),
                began: Statistic::new(0),
                items: Statistic::new(0),
                bytes: Statistic::new(0),
                limbo: filled!(filled!(Limbo::new(); 4); 2),
                waiting: filled!(Limbo::new(); 2),
                apart_too: [0; 64],
                shards: filled!(Shard::new(); SHARDS),
            }
        }
    }

    /// Counts the caller in; the count is given back by subtracting from what this returns.
    ///
    /// Wait-free: one shard, one addition. Signal-safe: atomics of this object only; the two indices
    /// are masked to their arrays' sizes, so they cannot panic.
    #[inline(always)]
    pub(crate) fn announce(&self) -> &AtomicUsize {
        // Ordering [choose_side]: Relaxed; a side that was current a moment ago only delays an
        // advance.
        let side = (self.epoch.load(edge::choose_side()) & 1) as usize;
        let readers = &self.shards[shard_hint() % SHARDS].readers[side % 2];
        // Ordering [announce]: Relaxed; ordered by the fence that follows.
        readers.fetch_add(1, edge::announce());
        // Ordering [reader_announces]: SeqCst; meets [writer_displaces] and [scanner_looks].
        //   this fence first: a thread that looks at the counts behind its own fence sees this reader;
        //   this one second:  what was displaced before theirs is not read any more behind this.
        edge::reader_announces();
        readers
    }

    /// Both counts of a shard, for a reader that counts itself in everywhere. Signal-safe.
    pub(super) fn both_sides(&self, shard: usize) -> &[AtomicUsize; 2] {
        &self.shards[shard % SHARDS].readers
    }

    /// Whether every count of `side` is seen at zero.
    #[inline]
    fn is_quiet(&self, side: usize) -> bool {
        // Ordering [scan]: Acquire; pairs with Release in `Section::drop`.
        //   seen:     all that the reader did in its section is before what follows;
        //   not seen: the count is not zero, and the epoch stays.
        self.shards.iter().all(|shard| shard.readers[side % 2].load(edge::scan()) == 0)
    }

    /// Whether nobody is counted on either side.
    pub(crate) fn is_empty(&self) -> bool {
        // Ordering [scanner_looks]: SeqCst; as in `try_advance`.
        edge::scanner_looks();
        self.is_quiet(0) && self.is_quiet(1)
    }

    /// Advances the epoch if no reader is on the side that it would turn to; says whether nobody was.
    ///
    /// Lock-free: one look at each shard, one attempt.
    #[inline]
    pub(crate) fn try_advance(&self) -> bool {
        // Ordering [observe_epoch]: Acquire; pairs with Release in the exchange below.
        //   seen: what the scans behind earlier advances saw is seen here too.
        let epoch = self.epoch.load(edge::observe_epoch());
        // Ordering [scanner_looks]: SeqCst; meets [reader_announces] and [writer_displaces].
        //   a reader's fence first: its count is seen, and the epoch stays;
        //   this one first:         the reader sees what was displaced before the epoch it is
        //                           measured against was read.
        edge::scanner_looks();
        let quiet = self.is_quiet(((epoch + 1) & 1) as usize);
        if quiet {
            // Ordering [advance]: Release; pairs with [observe_epoch] here and in `epoch`.
            //   failed: another thread advanced, which is as good.
            let _ = self.epoch.compare_exchange(epoch, epoch + 1, edge::advance(), edge::lost());
        }
        quiet
    }

    /// The epoch, for measuring garbage against it.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // Ordering [observe_epoch]: Acquire; pairs with Release in `try_advance`.
        //   seen:     all that readers did in the sections that allowed the advance came before;
        //   not seen: the epoch is lower, and garbage waits.
        self.epoch.load(edge::observe_epoch())
    }

    /// The epoch as a tag, read behind the fence [`writer_displaces`](edge::writer_displaces).
    pub(crate) fn epoch_for_tag(&self) -> u64 {
        // Ordering [choose_side]: Relaxed; the fence before it orders it.
        self.epoch.load(edge::choose_side())
    }

    /// The list of what was displaced at `epoch`.
    #[inline]
    pub(crate) fn limbo(&self, sort: Sort, epoch: u64) -> &Limbo {
        &self.limbo[sort as usize][(epoch % 4) as usize]
    }

    #[inline]
    pub(crate) fn waiting(&self, sort: Sort) -> &Limbo {
        &self.waiting[sort as usize]
    }

    /// Notes memory that came.
    #[inline]
    pub(crate) fn note(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, edge::statistic());
        self.bytes.fetch_add(bytes, edge::statistic());
    }

    /// Notes memory that went.
    #[inline]
    pub(crate) fn forget(&self, items: u64, bytes: u64) {
        self.items.fetch_sub(items, edge::statistic());
        self.bytes.fetch_sub(bytes, edge::statistic());
    }

    /// How much memory there is: pieces.
    pub(crate) fn items(&self) -> u64 {
        self.items.load(edge::statistic())
    }

    /// The same in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(edge::statistic())
    }

    /// All garbage of the object.
    pub(crate) fn take_all(&self, sort: Sort) -> Chain {
        let mut all = self.waiting(sort).take();
        self.limbo[sort as usize].iter().for_each(|limbo| all.append(limbo.take()));
        all
    }

    /// Whether nothing lies on its lists.
    pub(crate) fn has_no_garbage(&self) -> bool {
        self.limbo.iter().flatten().chain(&self.waiting).all(Limbo::is_empty)
    }

    /// When the oldest of what lies on its lists came, roughly.
    pub(crate) fn oldest_garbage(&self) -> Option<u64> {
        self.limbo.iter().flatten().chain(&self.waiting).filter_map(Limbo::since).min()
    }

    #[inline]
    pub(crate) fn state(&self) -> State {
        // Ordering [see_state]: Acquire; pairs with Release in `change`, however many changes lie in
        // between, for all are exchanges.
        //   seen:     all that the readers did whose era was seen drained came before;
        //   not seen: the era counts as not drained, and garbage waits.
        State::of(self.state.load(edge::see_state()))
    }

    /// Changes the state, if it is `from`.
    pub(crate) fn change(&self, from: State, to: State) -> bool {
        // Ordering [change_state]: Release; pairs with Acquire in `state`.
        //   failed: another thread changed it.
        let (from, to) = (from.bits(), to.bits());
        self.state.compare_exchange(from, to, edge::change_state(), edge::lost()).is_ok()
    }
}
