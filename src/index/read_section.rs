#![expect(unsafe_code, reason = "follows the pointer to the newest domain")]
//! Reader sections: wait-free entering and leaving, and the epoch that tells when nobody is inside.
//!
//! A reader counts itself in on a *shard*, on one of two *sides*: the parity of the epoch it saw.
//! The epoch advances from `e` to `e + 1` only when every count on the other side, that of
//! `e + 1`, was seen at zero once since. So a version that was displaced before the epoch was read
//! as `tag` is out of every reader's reach at `tag + 3`: three, because the first advance may rest
//! on a look around that began before the displacement.
//!
//! ```text
//! enter:    side = epoch & 1                  displaced: published moves on
//!           readers[side] += 1                           fence  [writer_displaces]
//!           fence  [reader_announces]                    tag = epoch
//!           version = published
//! leave:    readers[side] -= 1                advance:   e = epoch
//!                                                        fence  [scanner_looks]
//!                                                        every readers[(e + 1) & 1] == 0 ?
//!                                                        epoch: e -> e + 1
//! ```
//!
//! Counts, not flags: a handler that interrupts a reader is one more reader; a thread needs no
//! preparation; two threads that meet on a shard are only slower. New readers enter the current
//! side, so they cannot keep the epoch from advancing.
//!
//! # Domains: what becomes of the counts in a child of `fork`
//!
//! Threads that were inside do not exist in the child, and their counts would never return to
//! zero. They cannot be cleared either: the thread that forked may be inside itself. So the first
//! write in a child starts a new [`Domain`], with clean counts and a higher epoch, and keeps the
//! old one. A reader that finds, after it has read the published pointer, that the domain changed
//! since it counted itself in, leaves and enters again; hence a version whose writer already was
//! in the new domain (`Version::born`) is never held by a reader counted in an older one. What is
//! older than the domain is held back until the old counts are zero as well.

use super::try_box::try_box;
use crate::sync::{
    AtomicPtr, AtomicU64, AtomicUsize, SHARDS, const_fn, edge, filled, fork_generation, shard_hint,
};
use core::ptr;

/// Epochs of a child's domain start at the next multiple: higher than any the parent reached.
const EPOCHS_PER_DOMAIN: u64 = 1 << 48;

/// Stands for the inline domain once a process has taken it; not an address.
const CLAIMED: *mut Domain = ptr::without_provenance_mut(1);

/// Two counts on cache lines of their own (lines are fetched in pairs on x86-64): by its size, not
/// its alignment, so that what stands before the shards can share a line with other things.
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

/// An epoch and the reader counts that hold it back.
#[repr(C)] // the epoch stands with what a lookup reads before it
pub(crate) struct Domain {
    epoch: AtomicU64,
    /// The epoch that this domain began with.
    first_epoch: u64,
    /// The process it was started in, as `fork_generation` says.
    generation: AtomicUsize,
    /// The domain it replaced, as [`ReadSections::newest`] had it.
    previous: *mut Domain,
    /// Up to a pair of cache lines.
    apart: [u8; 64],
    shards: [Shard; SHARDS],
}

impl Domain {
    const_fn! {
        fn new(first_epoch: u64, generation: usize, previous: *mut Self) -> Self {
            Self {
                epoch: AtomicU64::new(first_epoch),
                first_epoch,
                generation: AtomicUsize::new(generation),
                previous,
                apart: [0; 64],
                shards: filled!(Shard::new(); SHARDS),
            }
        }
    }

    /// Counts the caller in, until the section is dropped.
    ///
    /// Wait-free: one shard, one addition. Signal-safe: atomics of this domain only; the two
    /// indices are masked to their arrays' sizes, so they cannot panic.
    #[inline(always)]
    fn announce(&self) -> Section<'_> {
        // Ordering [choose_side]: Relaxed; a side that was current a moment ago only delays an
        // advance. (A reader without a fence of its own would need Acquire here.)
        let side = (self.epoch.load(edge::choose_side()) & 1) as usize;
        let readers = &self.shards[shard_hint() % SHARDS].readers[side % 2];
        // Ordering [announce]: Relaxed; ordered by the fence that follows.
        readers.fetch_add(1, edge::announce());
        // Ordering [reader_announces]: SeqCst; meets [writer_displaces], [writer_unlinks] and
        // [scanner_looks].
        //   this fence first: whoever looks at the counts behind its own fence sees this reader;
        //   this one second:  what was displaced before theirs is not read any more behind this.
        edge::reader_announces();
        Section { readers, domain: self }
    }

    /// Whether every count of `side` is seen at zero.
    fn is_quiet(&self, side: usize) -> bool {
        // Ordering [scan]: Acquire; pairs with Release in `Section::drop`.
        //   seen:     all that the reader did in its section is before what follows;
        //   not seen: the count is not zero, and the epoch stays.
        self.shards.iter().all(|shard| shard.readers[side % 2].load(edge::scan()) == 0)
    }

    /// Whether every reader that was counted here when the caller's last `writer_displaces` or
    /// `writer_unlinks` came has left.
    fn has_drained(&self) -> bool {
        // Ordering [scanner_looks]: SeqCst; as in `try_advance`.
        edge::scanner_looks();
        self.is_quiet(0) && self.is_quiet(1)
    }

    /// Advances the epoch if no reader is on the side that it would turn to.
    ///
    /// Lock-free: one look at each shard, one attempt. Says whether it advanced.
    fn try_advance(&self) -> bool {
        // Ordering [observe_epoch]: Acquire; pairs with Release in the exchange below.
        //   seen: what the scans behind earlier advances saw is seen here too.
        let epoch = self.epoch.load(edge::observe_epoch());
        // Ordering [scanner_looks]: SeqCst; meets [reader_announces], [writer_displaces] and
        // [writer_unlinks].
        //   a reader's fence first: its count is seen, and the epoch stays;
        //   this one first:         the reader sees what was displaced before the epoch it is
        //                           measured against was read.
        edge::scanner_looks();
        let quiet = self.is_quiet(((epoch + 1) & 1) as usize);
        if quiet {
            // Ordering [advance]: Release; pairs with [observe_epoch] here and in `epoch`.
            //   failed: someone else advanced, which is as good.
            let _ = self.epoch.compare_exchange(epoch, epoch + 1, edge::advance(), edge::lost());
        }
        quiet
    }
}

/// A reader's time inside: while it lives, no version it can read from the published pointer is
/// reclaimed.
pub(crate) struct Section<'a> {
    readers: &'a AtomicUsize,
    domain: &'a Domain,
}

impl Section<'_> {
    /// The first epoch of the domain that this section is counted in.
    pub(crate) fn first_epoch(&self) -> u64 {
        self.domain.first_epoch
    }
}

impl Drop for Section<'_> {
    /// Leaves. Wait-free: one subtraction. Signal-safe: one atomic.
    #[inline(always)]
    fn drop(&mut self) {
        // Ordering [leave]: Release; pairs with Acquire in `Domain::is_quiet`.
        //   seen:     all reads of this section come before the destruction it allows;
        //   not seen: the count is not zero yet.
        self.readers.fetch_sub(1, edge::leave());
    }
}

/// What stands between a displaced version and its destruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Grace {
    /// A reader may be inside: the epoch has not advanced far enough.
    Waiting,
    /// Only readers counted in the domain of a process this one was forked from.
    HeldByOldDomain,
    /// Nothing: no reader can hold it.
    Passed,
}

/// There is no memory for a domain of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoMemory;

/// The sections of one map: its current domain and those of the processes it was forked from.
#[repr(C)] // as above
pub(crate) struct ReadSections {
    /// The newest domain. Null: `first`, and no write was made yet; [`CLAIMED`]: `first`.
    newest: AtomicPtr<Domain>,
    first: Domain,
}

impl ReadSections {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                newest: AtomicPtr::new(ptr::null_mut()),
                first: Domain::new(0, 0, ptr::null_mut()),
            }
        }
    }

    /// The domain behind a pointer.
    ///
    /// Signal-safe: compares a pointer.
    #[inline(always)]
    fn domain_at(&self, domain: *mut Domain) -> &Domain {
        if domain.is_null() || domain == CLAIMED {
            return &self.first;
        }
        // SAFETY: any other pointer that is kept here is a domain from `follow_fork`, whole by
        // [read_domain]; those are freed by `drop` only, which nothing borrowed from `self` sees.
        unsafe { &*domain }
    }

    /// The newest domain.
    ///
    /// Signal-safe: one load.
    #[inline(always)]
    fn domain(&self) -> &Domain {
        // Ordering [read_domain]: Acquire; pairs with Release in `follow_fork`.
        //   seen:     the domain is whole;
        //   not seen: the previous one is used, and `enter` looks again.
        self.domain_at(self.newest.load(edge::read_domain()))
    }

    /// Enters a section and reads a pointer in it: with `read`, which must load the pointer that
    /// versions are displaced from, with Acquire.
    ///
    /// Wait-free: one addition and one fence; again only if the domain changed in between, which
    /// happens once in the life of a process (in a child of `fork`, at its first write).
    /// Signal-safe: atomics of this map only.
    #[inline(always)]
    pub(crate) fn enter<P>(&self, read: impl Fn() -> P) -> (Section<'_>, P) {
        let mut domain = self.domain();
        loop {
            let section = domain.announce();
            let pointer = read();
            let newest = self.domain();
            if ptr::eq(domain, newest) {
                return (section, pointer);
            }
            domain = newest;
        }
    }

    /// The current epoch, as it is at some moment after what the caller saw displaced before.
    pub(crate) fn epoch_after_displacement(&self) -> u64 {
        // Ordering [writer_unlinks]: SeqCst; meets [reader_announces] and [scanner_looks].
        //   this fence first:      readers behind theirs see the displacement, scanners behind
        //                          theirs are measured against an epoch no older than this one;
        //   a reader's first:      scanners behind this one see the reader;
        //   a scanner's first:     one advance may rest on it; that is why the grace is three.
        // The domain is read behind the fence too: a reader that is counted in a newer one, and
        // saw what was displaced, would have made that newer one visible here.
        edge::writer_unlinks();
        self.domain().epoch.load(edge::choose_side())
    }

    /// The same, for the caller whose exchange displaced it, right behind that.
    pub(crate) fn epoch_behind_exchange(&self) -> u64 {
        // Ordering [writer_displaces]: SeqCst; as [writer_unlinks], and some machines make it of the
        // exchange.
        edge::writer_displaces();
        self.domain().epoch.load(edge::choose_side())
    }

    /// Whether readers can still hold a version that was displaced before the epoch was read as
    /// `tag`, and whose writer was counted in the domain that began with epoch `born`.
    pub(crate) fn grace(&self, tag: u64, born: u64) -> Grace {
        if !self.has_passed(tag) {
            return Grace::Waiting;
        }
        let mut domain = self.domain();
        while domain.first_epoch > born {
            domain = self.domain_at(domain.previous);
            if !domain.has_drained() {
                return Grace::HeldByOldDomain;
            }
        }
        Grace::Passed
    }

    /// Advances the epoch if no reader stands in its way; says whether it did. Lock-free.
    pub(crate) fn try_advance(&self) -> bool {
        self.domain().try_advance()
    }

    /// Whether no reader of this process can hold what was displaced before the epoch was read as
    /// `tag`.
    pub(crate) fn has_passed(&self, tag: u64) -> bool {
        // Ordering [observe_epoch]: Acquire; pairs with Release in `Domain::try_advance`.
        //   seen:     all that readers did in the sections that allowed the advance came before;
        //   not seen: the epoch is lower, and the version waits.
        self.domain().epoch.load(edge::observe_epoch()) >= tag + 3
    }

    /// The current epoch, for statistics: advances in this process.
    pub(crate) fn epoch(&self) -> u64 {
        let domain = self.domain();
        domain.epoch.load(edge::statistic()) - domain.first_epoch
    }

    /// Whether `section` is counted in the newest domain.
    ///
    /// If it is not, what was written since may be born in a newer one, and then this section does
    /// not keep it alive. To be asked behind the load of a pointer to it, before following that.
    pub(crate) fn is_current(&self, section: &Section<'_>) -> bool {
        // Ordering [read_domain]: Acquire; see `domain`. Whoever sees a version sees the domain it
        // was born in, for its writer had seen that.
        ptr::eq(section.domain, self.domain())
    }

    /// Starts a domain of its own for a process that was forked since the last write.
    ///
    /// Lock-free: it goes on when another thread decided, or the process was forked meanwhile.
    /// Without memory for it the old domain stays, and the caller must not write: what
    /// readers of this process then hold from the old domain would not be waited for later.
    pub(crate) fn follow_fork(&self) -> Result<(), NoMemory> {
        loop {
            // The domain before the number: if a handler forks in between, and a domain is made in
            // the child meanwhile, the exchange below fails.
            let newest = self.newest.load(edge::read_domain());
            let generation = fork_generation();
            let current = self.domain_at(newest);
            if !newest.is_null() && current.generation.load(edge::claim_domain()) == generation {
                return Ok(());
            }
            self.start_domain(newest, current, generation)?;
            // Around again: whoever decided, a handler may have forked since the number was read.
        }
    }

    /// Puts a domain of process `generation` in the place of `newest`, unless another was put there.
    fn start_domain(
        &self,
        newest: *mut Domain,
        current: &Domain,
        generation: usize,
    ) -> Result<(), NoMemory> {
        // Before the first call of all nothing was published, so the inline domain can be taken as
        // it is, unless a count shows that a reader may have been lost in a fork before.
        let as_it_is = newest.is_null() && current.is_quiet(0) && current.is_quiet(1);
        let next = if as_it_is {
            current.generation.store(generation, edge::claim_domain()); // all store the same
            CLAIMED
        } else {
            let first_epoch = current.first_epoch.checked_add(EPOCHS_PER_DOMAIN);
            let first_epoch = first_epoch.ok_or(NoMemory)?; // 65,535 forks deep
            Box::into_raw(
                try_box(Domain::new(first_epoch, generation, newest)).map_err(|_| NoMemory)?,
            )
        };
        // Ordering [switch_domain]: Release; pairs with Acquire in `domain`.
        //   seen:   the domain is whole;
        //   failed: another thread of this process decided, and its decision stands.
        let decided =
            self.newest.compare_exchange(newest, next, edge::switch_domain(), edge::lost());
        if decided.is_err() && !as_it_is {
            // SAFETY: from `Box::into_raw` above, and handed to nobody.
            drop(unsafe { Box::from_raw(next) });
        }
        Ok(())
    }
}

impl Drop for ReadSections {
    fn drop(&mut self) {
        let mut domain = self.newest.load(edge::read_domain());
        while !domain.is_null() && domain != CLAIMED {
            // SAFETY: from `Box::into_raw` in `follow_fork`, freed here only; no section is left,
            // for each borrows `self`.
            let freed = unsafe { Box::from_raw(domain) };
            domain = freed.previous;
        }
    }
}
