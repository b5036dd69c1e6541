#![expect(unsafe_code, reason = "takes versions out of the chain and destroys them later")]
//! From the head of the chain to destruction: what was displaced, and when it may go.
//!
//! The chain of versions is its own list of garbage: what lies between `oldest` and the published
//! version is displaced, in order, and retiring it took no memory. Reclaiming moves `oldest`
//! forward past a version once the read sections say that no handler can hold it ([`Grace`]); the
//! thread whose exchange succeeds has taken it, one version at a time, so that a thread which
//! stops here withholds one and no more. Other reclaiming threads may still be looking at the one
//! taken: that is what crossbeam-epoch is for. Its guards keep taken versions readable, and it
//! carries their destruction to a moment when no guard of that time is left.
//!
//! Each call registers its own participant and leaves with it. Nothing is cached per thread: no
//! garbage in a thread's private bag, and no destructor that runs when a thread exits.

use super::read_section::{Grace, ReadSections};
use super::shared::{Block, Shared};
use super::version::{Raw, Version};
use crate::sync::{AtomicPtr, AtomicU64, AtomicUsize, Collector, Guard, edge, fork_generation};
use core::ptr;

/// Versions in flight are counted by stretches of [`STRETCH`] in a ring of this many.
const STRETCHES: usize = 4;
const STRETCH: u64 = 64;

/// The head of the chain, and what was taken from it.
pub(crate) struct Reclamation<T> {
    /// The oldest version still in the chain. The chain holds one count of each version in it.
    oldest: AtomicPtr<Block<Version<T>>>,
    /// Versions that only readers lost in a fork can hold: a stack, linked by `Version::aside`.
    aside: AtomicPtr<Block<Version<T>>>,
    /// The newest collector, or null before the first call.
    collector: AtomicPtr<ProcessCollector>,
    destroyed: AtomicU64,
    destroyed_bytes: AtomicU64,
}

/// The collector of one process: participants of threads that a fork left behind would stop it,
/// so a child gets its own.
struct ProcessCollector {
    // First, so dropped first: what it still carries counts itself out of the next field.
    collector: Collector,
    /// Versions taken out of the chain and not destroyed yet.
    in_flight: [AtomicUsize; STRETCHES],
    /// When the first of them was displaced, roughly; for `stats`.
    flying_since: AtomicU64,
    generation: usize,
    /// That of the process this one was forked from, or null.
    previous: *mut ProcessCollector,
}

/// What is retired and not destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    pub(crate) destroyed: u64,
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    /// When the oldest of them was displaced: nanoseconds of `monotonic_nanos`.
    pub(crate) oldest: Option<u64>,
}

/// How far one caller has come in waiting until all versions before `target` are destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settling {
    target: u64,
    seen_empty: [bool; STRETCHES],
}

impl Settling {
    pub(crate) fn before(target: u64) -> Self {
        Self { target, seen_empty: [false; STRETCHES] }
    }
}

/// A version's place in the count of those in flight; counts itself out when dropped.
struct Flight<'a> {
    in_flight: &'a AtomicUsize,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Ordering [destroyed]: Release; pairs with Acquire in `has_settled`.
        //   seen:     the destruction that came before this is complete;
        //   not seen: the count is not zero, and the other thread waits.
        self.in_flight.fetch_sub(1, edge::destroyed());
    }
}

impl ProcessCollector {
    /// Counts a version in, before it is taken.
    fn board<T>(&self, version: &Version<T>) -> Flight<'_> {
        let stretch = (version.sequence / STRETCH) as usize % STRETCHES;
        if self.in_flight.iter().all(|count| count.load(edge::statistic()) == 0) {
            self.flying_since.store(version.displaced_at().unwrap_or(0), edge::statistic());
        }
        let in_flight = &self.in_flight[stretch];
        // Ordering [in_flight]: Relaxed; [pop], which follows, makes it visible.
        in_flight.fetch_add(1, edge::in_flight());
        Flight { in_flight }
    }
}

impl<T> Reclamation<T> {
    /// Starts with the chain's first version, taking its count.
    pub(crate) fn new(root: Shared<Version<T>>) -> Self {
        Self {
            oldest: AtomicPtr::new(root.into_raw()),
            aside: AtomicPtr::new(ptr::null_mut()),
            collector: AtomicPtr::new(ptr::null_mut()),
            destroyed: AtomicU64::new(0),
            destroyed_bytes: AtomicU64::new(0),
        }
    }

    /// Destroys what was retired before the call and nobody holds; gives up after `patience`
    /// rounds in a row that destroyed nothing.
    ///
    /// Lock-free: what other threads hold stays where it is. Not for use inside a section of the
    /// same map, whose own count would keep the epoch from passing.
    pub(crate) fn reclaim(
        &self,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        patience: u32,
    ) {
        sections.follow_fork();
        let process = self.process_collector();
        let participant = process.collector.register();
        let mut target = None;
        let mut idle = 0;
        while idle < patience {
            sections.try_advance();
            let before = self.destroyed.load(edge::statistic());
            let guard = participant.pin();
            // SAFETY (`peek_under`): 1. published, loaded behind the pin.
            let newest = unsafe { peek_under(published.load(edge::read_published()), &guard) };
            let target = *target.get_or_insert(newest.map_or(0, |newest| newest.sequence));
            while self.take_oldest(sections, published, process, &guard) {}
            self.take_back(sections, process, &guard);
            guard.flush();
            drop(guard);
            let destroyed = self.destroyed.load(edge::statistic());
            if destroyed >= target {
                break;
            }
            idle = if destroyed == before { idle + 1 } else { 0 };
        }
        drop(participant);
        self.help_parents(process);
    }

    /// Whether everything that `settling` waits for is destroyed, but for what only readers lost
    /// in a fork can hold. Lock-free.
    pub(crate) fn has_settled(&self, settling: &mut Settling) -> bool {
        let process = self.process_collector();
        let participant = process.collector.register();
        let guard = participant.pin();
        // Ordering [head]: Acquire; pairs with Release in `take_oldest`.
        //   seen: the count in flight of every version taken before is seen as well.
        // SAFETY (`peek_under`): 1. the head of the chain, loaded behind the pin.
        let oldest = unsafe { peek_under(self.oldest.load(edge::head()), &guard) };
        if oldest.is_none_or(|oldest| oldest.sequence < settling.target) {
            return false;
        }
        // Versions that left the chain later may be in flight too, so each stretch of the ring is
        // waited for until it was seen empty once: what left before was not in it then.
        for (seen, in_flight) in settling.seen_empty.iter_mut().zip(&process.in_flight) {
            // Ordering [settled]: Acquire; pairs with Release in `Flight::drop`.
            //   seen: the destruction of every version that was in the stretch is complete.
            *seen |= in_flight.load(edge::settled()) == 0;
        }
        settling.seen_empty.iter().all(|&seen| seen)
    }

    /// What is retired and not destroyed. Lock-free.
    pub(crate) fn backlog(&self, published: &AtomicPtr<Block<Version<T>>>) -> Backlog {
        let process = self.process_collector();
        let participant = process.collector.register();
        let guard = participant.pin();
        let destroyed = self.destroyed.load(edge::statistic());
        let destroyed_bytes = self.destroyed_bytes.load(edge::statistic());
        // SAFETY (`peek_under`): 1. the top of what was set aside, loaded behind the pin.
        let aside = unsafe { peek_under(self.aside.load(edge::take_back()), &guard) };
        // SAFETY (`peek_under`): 1. the head of the chain, loaded behind the pin.
        let oldest = unsafe { peek_under(self.oldest.load(edge::head()), &guard) };
        // SAFETY (`peek_under`): 1. published, loaded behind the pin.
        let newest = unsafe { peek_under(published.load(edge::read_published()), &guard) };
        let (sequence, bytes) = newest.map_or((0, 0), |newest| (newest.sequence, newest.bytes_before));
        let in_flight = process.in_flight.iter().any(|count| count.load(edge::statistic()) != 0);
        let waiting = [aside, oldest.filter(|oldest| oldest.sequence < sequence)];
        Backlog {
            destroyed,
            versions: sequence.saturating_sub(destroyed),
            bytes: bytes.saturating_sub(destroyed_bytes),
            oldest: waiting
                .into_iter()
                .flatten()
                .filter_map(Version::displaced_at)
                .chain(in_flight.then(|| process.flying_since.load(edge::statistic())))
                .min(),
        }
    }

    /// Takes the oldest version out of the chain if it may go; says whether to try the next.
    fn take_oldest(
        &self,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        process: &ProcessCollector,
        guard: &Guard,
    ) -> bool {
        // Ordering [head]: Acquire; pairs with Release in the exchange below.
        //   seen:     the version is whole, and so is what its taker saw published: `published`,
        //             read next, is not older than `head`;
        //   not seen: the exchange fails.
        let head = self.oldest.load(edge::head());
        // Ordering [read_published]: Acquire; pairs with Release in `Index::publish_up_to`.
        //   seen: `head` is displaced, and an epoch read behind this counts from then.
        if published.load(edge::read_published()) == head {
            return false;
        }
        // SAFETY (`peek_under`): 1. the head of the chain, loaded behind the pin.
        let Some(version) = (unsafe { peek_under(head, guard) }) else { return false };
        let tag = version.tag().unwrap_or_else(|| {
            // The thread that displaced it has not come to say so; any thread may.
            let epoch = sections.epoch_after_displacement();
            version.note_displaced(epoch);
            epoch
        });
        let grace = sections.grace(tag, version.born);
        if grace == Grace::Waiting {
            return false;
        }
        let next = version.next();
        let flight = process.board(version);
        // Ordering [pop]: Release; pairs with Acquire at `head` here and in `has_settled`.
        //   seen:   the new head is whole, and the count in flight is seen;
        //   failed: another thread took it.
        if self.oldest.compare_exchange(head, next, edge::pop(), edge::lost()).is_err() {
            return true;
        }
        // SAFETY (`peek_under`): 1. behind the head, which was in the chain when it was loaded
        // behind the pin, so this was not taken before the pin either.
        let after = unsafe { peek_under(next, guard) };
        let bytes = after.map_or(0, |after| after.bytes_before - version.bytes_before);
        match grace {
            Grace::HeldByOldDomain => self.set_aside(version, head),
            // SAFETY (`destroy_later`): 1. taken out of the chain above; 2. its grace has passed.
            _ => unsafe { self.destroy_later(head, bytes, flight, guard) },
        }
        true
    }

    /// Has crossbeam-epoch destroy a version when no guard that may look at it is left.
    ///
    /// # Safety
    ///
    /// 1. The version was taken out of the chain (or off the stack) by the caller, with its count.
    /// 2. No reader can hold it.
    unsafe fn destroy_later(&self, raw: Raw<T>, bytes: u64, flight: Flight<'_>, guard: &Guard) {
        let (destroyed, destroyed_bytes) = (&self.destroyed, &self.destroyed_bytes);
        let destroy = move || {
            // Counts itself out last, and even if a value's destructor panics.
            let _flight = flight;
            destroyed.fetch_add(1, edge::statistic());
            destroyed_bytes.fetch_add(bytes, edge::statistic());
            // SAFETY (`Shared::from_raw`): 1. the chain's count, by 1. of `destroy_later`.
            drop(unsafe { Shared::from_raw(raw) });
        };
        // SAFETY: the closure borrows from `self` and its collectors. It runs in a call on this
        // map, which borrows both, or when the collector is dropped, in `Reclamation::drop`: no
        // participant outlives the call that registered it, so nothing else runs closures. It
        // may run on another thread: what it drops is `Send` and `Sync` (bounds of `CodeMap`).
        unsafe { guard.defer_unchecked(destroy) };
    }

    /// Keeps a version until the readers of the old domain have left, if ever they do.
    fn set_aside(&self, version: &Version<T>, raw: Raw<T>) {
        loop {
            let top = self.aside.load(edge::take_back());
            version.aside.store(top, edge::statistic());
            // Ordering [set_aside]: Release; pairs with Acquire in `take_back`.
            //   seen: the link to the rest of the stack is seen, and the version is whole.
            if self.aside.compare_exchange(top, raw, edge::set_aside(), edge::lost()).is_ok() {
                return;
            }
        }
    }

    /// Destroys what was set aside and is no longer held; sets the rest aside again.
    fn take_back(&self, sections: &ReadSections, process: &ProcessCollector, guard: &Guard) {
        // Ordering [take_back]: Acquire; pairs with Release in `set_aside`.
        if self.aside.load(edge::take_back()).is_null() {
            return;
        }
        let mut raw = self.aside.swap(ptr::null_mut(), edge::take_back());
        // SAFETY (`peek_under`): 1. taken off the stack, with its count, by this thread alone.
        while let Some(version) = unsafe { peek_under(raw, guard) } {
            let taken = raw;
            raw = version.aside.load(edge::statistic());
            let passed = version
                .tag()
                .is_some_and(|tag| sections.grace(tag, version.born) == Grace::Passed);
            if passed {
                let flight = process.board(version);
                let bytes = Shared::<Version<T>>::BYTES + version.table.bytes();
                // SAFETY (`destroy_later`): 1. taken off the stack above; 2. its grace has passed.
                unsafe { self.destroy_later(taken, bytes as u64, flight, guard) };
            } else {
                self.set_aside(version, taken);
            }
        }
    }

    /// This process's collector, made on first use: installed with one exchange, so that nobody
    /// waits for a thread that stops while it makes one.
    fn process_collector(&self) -> &ProcessCollector {
        let generation = fork_generation();
        loop {
            // Ordering [installed]: Acquire; pairs with Release in the exchange below.
            //   seen: the collector is whole.
            let newest = self.collector.load(edge::installed());
            // SAFETY: null or from `Box::into_raw` below; freed by `Reclamation::drop` only.
            if let Some(process) = unsafe { newest.as_ref() } {
                if process.generation == generation {
                    return process;
                }
            }
            let process = Box::into_raw(Box::new(ProcessCollector {
                collector: Collector::new(),
                in_flight: [const { AtomicUsize::new(0) }; STRETCHES],
                flying_since: AtomicU64::new(0),
                generation,
                previous: newest,
            }));
            // Ordering [install]: Release; pairs with Acquire above.
            //   failed: another thread installed one; this one goes.
            if self
                .collector
                .compare_exchange(newest, process, edge::install(), edge::lost())
                .is_err()
            {
                // SAFETY: from `Box::into_raw` above, and handed to nobody.
                drop(unsafe { Box::from_raw(process) });
            }
        }
    }

    /// Lets the collectors of the processes this one was forked from run what they carry, if the
    /// threads they wait for are not among those that the fork left behind.
    fn help_parents(&self, process: &ProcessCollector) {
        let mut parent = process.previous;
        // SAFETY: null or from `Box::into_raw` in `process_collector`; freed by `drop` only.
        while let Some(process) = unsafe { parent.as_ref() } {
            if process.in_flight.iter().any(|count| count.load(edge::statistic()) != 0) {
                let participant = process.collector.register();
                participant.pin().flush();
            }
            parent = process.previous;
        }
    }
}

/// The version behind a pointer, as long as the guard lives.
///
/// # Safety
///
/// 1. `raw` is null, or was the published version, in the chain, or set aside at some moment after
///    `guard` was pinned on the map's collector of this process.
unsafe fn peek_under<'g, T>(raw: Raw<T>, _guard: &'g Guard) -> Option<&'g Version<T>> {
    // SAFETY (`Shared::peek`): 1. by 1.; 2. what is published, in the chain or set aside carries a
    // count, which goes through `destroy_later` under a guard; crossbeam-epoch runs that no sooner
    // than every guard pinned before it is gone.
    unsafe { Shared::peek(raw) }
}

impl<T> Drop for Reclamation<T> {
    /// Destroys everything: nobody else is left.
    fn drop(&mut self) {
        let mut collector = self.collector.load(edge::installed());
        while !collector.is_null() {
            // SAFETY: from `Box::into_raw` in `process_collector`, freed here only. Dropping a
            // collector without participants runs all that it carries.
            let process = unsafe { Box::from_raw(collector) };
            collector = process.previous;
        }
        let mut raw = self.aside.load(edge::take_back());
        while !raw.is_null() {
            // SAFETY (`Shared::from_raw`): 1. what was set aside carries its count.
            let version = unsafe { Shared::from_raw(raw) };
            raw = version.aside.load(edge::statistic());
        }
        let mut raw = self.oldest.load(edge::head());
        while !raw.is_null() {
            // SAFETY (`Shared::from_raw`): 1. the chain holds a count of each version in it.
            let version = unsafe { Shared::from_raw(raw) };
            raw = version.next();
        }
    }
}
