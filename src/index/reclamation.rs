#![expect(unsafe_code, reason = "takes versions out of the chain and destroys them later")]
//! From the head of the chain to destruction: what was displaced, and when it may go.
//!
//! The chain of versions is its own list of garbage: what lies between `oldest` and the published
//! version is displaced, in order, and retiring it took no memory. From there a version goes
//! through three hands:
//!
//! 1. **taken**: once the read sections say that no reader can hold it ([`Grace`]), whoever moves
//!    `oldest` past it has taken it;
//! 2. **deferred**: other reclaiming threads may still be looking at it. That is what
//!    crossbeam-epoch is for: its guards keep taken versions readable, and it carries each to a
//!    moment when no guard of that time is left, where it becomes *ready*;
//! 3. **destroyed**: with no guard and no section held, so that a value's destructor may take its
//!    time, panic, or call into the map.
//!
//! A thread that stops in between withholds what it has taken so far, and while it is pinned the
//! destruction of what is taken after that; it stops no call of any other thread.
//!
//! Each call registers its own participant and leaves with it. Nothing is cached per thread: no
//! garbage in a thread's private bag, and no destructor that runs when a thread exits.

use super::process_collector::{ProcessCollector, ProcessCollectors, SeenEmpty};
use super::read_section::{Grace, ReadSections};
use super::shared::{Block, Shared};
use super::stack::Stack;
use super::version::{Raw, Version};
use crate::sync::{AtomicPtr, AtomicU64, Guard, Statistic, edge, fork_generation};

/// The head of the chain, and what was taken from it.
pub(crate) struct Reclamation<T> {
    /// The oldest version still in the chain. The chain holds one count of each version in it.
    oldest: AtomicPtr<Block<Version<T>>>,
    /// Versions with a lower number have left the chain.
    taken: AtomicU64,
    taken_bytes: Statistic,
    /// Versions that only readers of an older domain can hold.
    aside: Stack<T>,
    aside_versions: Statistic,
    aside_bytes: Statistic,
    destroyed: Statistic,
    collectors: ProcessCollectors<T>,
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
    seen_empty: SeenEmpty,
}

impl Settling {
    pub(crate) fn before(target: u64) -> Self {
        Self { target, seen_empty: SeenEmpty::default() }
    }
}

/// What became of the head of the chain.
enum Head {
    /// It was taken, by this thread or another.
    Moved,
    /// A reader may hold it.
    Waits,
    /// It is published, or not older than was asked for.
    IsYoung,
}

impl<T> Reclamation<T> {
    /// Starts with the chain's first version, taking its count.
    pub(crate) fn new(root: Shared<Version<T>>) -> Self {
        Self {
            oldest: AtomicPtr::new(root.into_raw()),
            taken: AtomicU64::new(0),
            taken_bytes: Statistic::new(0),
            aside: Stack::new(),
            aside_versions: Statistic::new(0),
            aside_bytes: Statistic::new(0),
            destroyed: Statistic::new(0),
            collectors: ProcessCollectors::new(),
        }
    }

    /// Destroys what was retired before the call and nobody holds; gives up after `patience`
    /// rounds in a row without progress.
    ///
    /// Lock-free: what other threads hold stays where it is. Not for use inside a section of the
    /// same map, whose own count would keep the epoch from passing.
    pub(crate) fn reclaim(
        &self,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        patience: u32,
    ) {
        let process = self.collectors.current();
        let participant = process.collector.register();
        let mut target = None;
        let mut idle = 0;
        while idle < patience {
            sections.try_advance();
            let guard = participant.pin();
            if fork_generation() != process.generation {
                break; // a handler forked, and this goes on in the child
            }
            // SAFETY: (`peek_under`) 1. published, loaded behind the pin.
            let newest = unsafe { peek_under(published.load(edge::read_published()), &guard) };
            let target = *target.get_or_insert(newest.map_or(0, |newest| newest.sequence));
            let mut progress = false;
            let left = loop {
                match self.take_oldest(target, sections, published, process, &guard) {
                    Head::Moved => progress = true,
                    Head::Waits => break true,
                    Head::IsYoung => break false,
                }
            };
            self.take_back(sections, process, &guard);
            guard.flush();
            drop(guard);
            progress |= process.destroy_ready(&self.destroyed);
            if !left && !process.is_flying() {
                break;
            }
            idle = if progress { 0 } else { idle + 1 };
        }
        drop(participant);
        self.collectors.help_parents(process, &self.destroyed);
    }

    /// Whether everything that `settling` waits for is destroyed, but for what was set aside.
    ///
    /// Wait-free.
    pub(crate) fn has_settled(&self, settling: &mut Settling) -> bool {
        // Ordering [taken]: Acquire; pairs with Release in `take_oldest`.
        //   seen: the count in flight of every version with a lower number was seen.
        if self.taken.load(edge::taken()) < settling.target {
            return false;
        }
        let process = self.collectors.current();
        process.see_off(&mut settling.seen_empty)
    }

    /// What is retired and not destroyed. Lock-free.
    pub(crate) fn backlog(&self, published: &AtomicPtr<Block<Version<T>>>) -> Backlog {
        let process = self.collectors.current();
        let participant = process.collector.register();
        let guard = participant.pin();
        let taken = self.taken.load(edge::statistic());
        let taken_bytes = self.taken_bytes.load(edge::statistic());
        // SAFETY: (`peek_under`) 1. the top of what was set aside, loaded behind the pin.
        let aside = unsafe { peek_under(self.aside.top(), &guard) };
        // SAFETY: (`peek_under`) 1. the head of the chain, loaded behind the pin.
        let oldest = unsafe { peek_under(self.oldest.load(edge::head()), &guard) };
        // SAFETY: (`peek_under`) 1. published, loaded behind the pin.
        let newest = unsafe { peek_under(published.load(edge::read_published()), &guard) };
        let (sequence, bytes) =
            newest.map_or((0, 0), |newest| (newest.sequence, newest.bytes_before));
        let flying = process.flying.load(edge::statistic());
        let waiting = [aside, oldest.filter(|oldest| oldest.sequence < sequence)];
        Backlog {
            destroyed: self.destroyed.load(edge::statistic()),
            versions: sequence.saturating_sub(taken)
                + self.aside_versions.load(edge::statistic())
                + flying,
            bytes: bytes.saturating_sub(taken_bytes)
                + self.aside_bytes.load(edge::statistic())
                + process.flying_bytes.load(edge::statistic()),
            oldest: waiting
                .into_iter()
                .flatten()
                .filter_map(Version::displaced_at)
                .chain((flying != 0).then(|| process.flying_since.load(edge::statistic())))
                .min(),
        }
    }

    /// Takes the oldest version out of the chain if it may go and is older than `target`.
    fn take_oldest(
        &self,
        target: u64,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        process: &ProcessCollector<T>,
        guard: &Guard,
    ) -> Head {
        // Ordering [head]: Acquire; pairs with Release in the exchange below.
        //   seen:     the version is whole, and so is what its taker saw published: `shown`, read
        //             next, is not older than `head`;
        //   not seen: the exchange fails.
        let head = self.oldest.load(edge::head());
        // Ordering [read_published]: Acquire; pairs with Release in `Index::publish_up_to`.
        //   seen: `head` is displaced, and an epoch read behind this counts from then.
        // Null: the root is not published yet; it is displaced from nothing.
        let shown = published.load(edge::read_published());
        if shown.is_null() || shown == head {
            return Head::IsYoung;
        }
        // SAFETY: (`peek_under`) 1. the head of the chain, loaded behind the pin.
        let Some(version) = (unsafe { peek_under(head, guard) }) else { return Head::IsYoung };
        if version.sequence >= target {
            return Head::IsYoung;
        }
        let tag = version.tag().unwrap_or_else(|| {
            // The thread that displaced it has not come to say so; any thread may.
            let epoch = sections.epoch_after_displacement();
            version.note_displaced(epoch);
            epoch
        });
        let grace = sections.grace(tag, version.born);
        if grace == Grace::Waiting {
            return Head::Waits;
        }
        let next = version.next();
        // SAFETY: (`peek_under`) 1. behind the head, which was in the chain when it was loaded
        // behind the pin, so this was not taken before the pin either.
        let after = unsafe { peek_under(next, guard) };
        let bytes = after.map_or(0, |after| after.bytes_before - version.bytes_before);
        // Any thread would store the same.
        version.weight.store(bytes, edge::statistic());
        let flight = process.board(version);
        // Ordering [pop]: Release; pairs with Acquire at `head`.
        //   seen:   the new head is whole, and the count in flight is seen;
        //   failed: another thread took it.
        if self.oldest.compare_exchange(head, next, edge::pop(), edge::lost()).is_err() {
            return Head::Moved;
        }
        self.taken_bytes.fetch_add(bytes, edge::statistic());
        // Ordering [took]: Release; pairs with Acquire in `has_settled`.
        //   seen: the count in flight of this version and (by [head]) of all before it is seen.
        self.taken.fetch_max(version.sequence + 1, edge::took());
        match grace {
            Grace::HeldByOldDomain => {
                self.set_aside(version, head);
                drop(flight);
            }
            // SAFETY: (`defer`) 1. taken out of the chain above; 2. its grace has passed; 3. by our
            // caller, `reclaim`.
            _ => unsafe { process.defer(head, flight, guard) },
        }
        Head::Moved
    }

    /// Keeps a version until the readers of the old domain have left, if ever they do.
    fn set_aside(&self, version: &Version<T>, raw: Raw<T>) {
        self.aside_versions.fetch_add(1, edge::statistic());
        self.aside_bytes.fetch_add(version.weight.load(edge::statistic()), edge::statistic());
        // SAFETY: (`Stack::push`) 1. both callers have taken the version, with its count.
        unsafe { self.aside.push(raw) };
    }

    /// Defers what was set aside and is no longer held; sets the rest aside again.
    fn take_back(&self, sections: &ReadSections, process: &ProcessCollector<T>, guard: &Guard) {
        // The top is the one set aside last, so held by no more domains than the others: if it may
        // not go, none may. (Not so after nested forks, where some wait for the map's end.)
        // SAFETY: (`peek_under`) 1. the top of what was set aside, loaded behind the pin.
        let Some(top) = (unsafe { peek_under(self.aside.top(), guard) }) else { return };
        if !may_go(sections, top) {
            return;
        }
        let mut raw = self.aside.take_all();
        // SAFETY: (`Stack::unlink`) 1. taken off the stack, with its count, by this thread alone.
        while let Some((version, rest)) = unsafe { Stack::unlink(raw) } {
            raw = rest;
            let weight = version.weight.load(edge::statistic());
            if may_go(sections, &version) {
                let flight = process.board(&version);
                // SAFETY: (`defer`) 1. taken off the stack; 2. its grace has passed; 3. by our caller,
                // `reclaim`.
                unsafe { process.defer(version.into_raw(), flight, guard) };
            } else {
                let taken = version.into_raw();
                // SAFETY: (`peek_under`) 1. taken off the stack behind the pin.
                if let Some(version) = unsafe { peek_under(taken, guard) } {
                    self.set_aside(version, taken);
                }
            }
            self.aside_versions.fetch_sub(1, edge::statistic());
            self.aside_bytes.fetch_sub(weight, edge::statistic());
        }
    }

    /// Destroys everything, through shared access: what the collectors carry points here.
    ///
    /// # Safety
    ///
    /// 1. It is called once, and nothing is called after it but `drop`.
    /// 2. No other call on the map is under way, and no section of it is left.
    pub(crate) unsafe fn finish(&self) {
        // SAFETY: (`ProcessCollectors::finish`) 1. and 2. by 1. and 2. of this.
        unsafe { self.collectors.finish() };
        self.aside.clear();
        let mut raw = self.oldest.load(edge::head());
        while !raw.is_null() {
            // SAFETY: (`Shared::from_raw`) 1. the chain holds a count of each version in it.
            let version = unsafe { Shared::from_raw(raw) };
            raw = version.next();
        }
    }
}

/// Whether no reader can hold a version that was set aside.
fn may_go<T>(sections: &ReadSections, version: &Version<T>) -> bool {
    version.tag().is_some_and(|tag| sections.grace(tag, version.born) == Grace::Passed)
}

/// The version behind a pointer, as long as the guard lives.
///
/// # Safety
///
/// 1. `raw` is null, or was the published version, in the chain, or set aside at some moment after
///    `guard` was pinned on the map's collector of this process.
unsafe fn peek_under<T>(raw: Raw<T>, _guard: &Guard) -> Option<&Version<T>> {
    // SAFETY: (`Shared::peek`) 1. by 1.; 2. what is published, in the chain or set aside carries a
    // count, which goes through `defer` under a guard; crossbeam-epoch declares it ready no sooner
    // than every guard pinned before that is gone.
    unsafe { Shared::peek(raw) }
}
