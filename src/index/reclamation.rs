#![expect(unsafe_code, reason = "takes versions out of the chain and dismantles them")]
//! From the head of the chain to destruction: what was displaced, and when it may go.
//!
//! The chain of versions is its own list of garbage: what lies between `oldest` and the published
//! version is displaced, in order, and retiring it took no memory. From there a version goes
//! through two hands:
//!
//! 1. **dismantled**, once the read sections say that no reader can hold it ([`Grace`]): the nodes
//!    that its successor lacks are freed (or left to the owned snapshots that show them), and
//!    `oldest` moves past it. This is done in the order of the chain, for a node may be freed only
//!    when every version that shows it is gone or owns what it shows; so it is done by one thread at
//!    a time, the one that has the *claim*;
//! 2. **destroyed**: the entries it was the last to show, and the version itself; with no claim and
//!    no section held, so that a value's destructor may take its time, panic, or call into the map.
//!
//! The claim is taken by one exchange, or not at all: who finds it taken goes on without. A thread
//! that stops while it has it withholds what is retired until it goes on; it stops no call of any
//! other thread.
//!
//! # The claim and fork
//!
//! In a child of `fork` the thread that had the claim may not exist. The claim names process and
//! thread, so another thread of a child takes it over from a thread of the parent, and carries on
//! with the version at the head: what had been done to that is written down step by step
//! (`progress`), each step before it is made, so that nothing is freed twice. A node whose turn it was
//! may be lost, with what it owns; and what was being counted for an owned snapshot at that very
//! moment may be counted once too often, and stay. But the thread that forked lives on in the child, and may have been interrupted by
//! the handler it forked in: then it has the claim still, and what is retired waits until it
//! returns to it. (A child that forked in a handler is to return from it before it starts threads.)

use super::departures::{Destroyed, ProcessDepartures, SeenEmpty, destroy, destroy_all};
use super::node::Node;
use super::read_section::{Grace, ReadSections};
use super::shared::{Block, Shared};
use super::spares::Spares;
use super::stack::Stack;
use super::version::{Raw, Version};
use crate::sync::{AtomicPtr, AtomicU64, Statistic, edge, fork_generation, thread_identity};

/// The head of the chain, and what was taken from it.
pub(crate) struct Reclamation<T> {
    /// The oldest version still in the chain. The chain holds one count of each version in it, and
    /// of everything they show. Only moved by the thread that has the claim.
    oldest: AtomicPtr<Block<Version<T>>>,
    /// 0, or the [`Claim`] of the thread that dismantles.
    claim: AtomicU64,
    /// How far the head is dismantled: its sequence number, and in the lowest [`PROGRESS_BITS`] one
    /// more than the number of nodes that were given back; 0 if it was not begun. Ordered by the
    /// claim; only read again after a fork.
    progress: Statistic,
    /// Versions with a lower number have left the chain.
    taken: AtomicU64,
    /// Versions that only readers of an older domain can hold.
    aside: Stack<T>,
    /// When the oldest version was displaced that is neither destroyed nor about to be, roughly: 0 if
    /// there is none.
    oldest_since: Statistic,
    destroyed: Destroyed,
    /// Memory of nodes that were dismantled.
    pub(super) spares: Spares,
    departures: ProcessDepartures<T>,
}

const PROGRESS_BITS: u32 = 24;

/// What is retired and not destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    pub(crate) destroyed: u64,
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    /// When the oldest of them was displaced: nanoseconds of `coarse_nanos`.
    pub(crate) oldest: Option<u64>,
}

/// How far one caller has come in waiting until all versions before `target` are destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settling {
    target: u64,
    seen_empty: SeenEmpty,
    /// An epoch read after all of them were displaced, if it was needed.
    tag: Option<u64>,
}

impl Settling {
    pub(crate) fn before(target: u64) -> Self {
        Self { target, seen_empty: SeenEmpty::default(), tag: None }
    }
}

/// How hard a call tries to get at what readers may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// How often it advances the epoch at most,
    pub(crate) advances: u32,
    /// and how often it may fail to.
    pub(crate) failures: u32,
}

/// What became of the head of the chain.
enum Head {
    /// It was taken.
    Moved,
    /// A reader may hold it.
    Waits,
    /// It is published, or not older than was asked for.
    IsYoung,
}

/// The right to dismantle, until it is dropped.
struct Claim<'a> {
    place: &'a AtomicU64,
    name: u64,
    generation: usize,
    /// Whether a thread had it that the fork left behind.
    is_taken_over: bool,
}

impl Claim<'_> {
    const GENERATION_BITS: u32 = 16;

    /// How this thread of this process signs.
    fn name(generation: usize) -> u64 {
        let generation = generation as u64 & ((1 << Self::GENERATION_BITS) - 1);
        thread_identity() << Self::GENERATION_BITS | generation
    }

    /// Whether `holder`, the name in the claim, stands for a thread that the fork left behind.
    fn is_lost(holder: u64, name: u64) -> bool {
        let differs = holder ^ name;
        differs & ((1 << Self::GENERATION_BITS) - 1) != 0 && differs >> Self::GENERATION_BITS != 0
    }

    /// Whether `holder` stands for this very thread, before the fork that made this process.
    fn is_own_from_before(holder: u64, name: u64) -> bool {
        holder != name && (holder ^ name) >> Self::GENERATION_BITS == 0
    }

    /// Whether this is still the process that it was made in: a handler may have forked.
    fn stands(&self) -> bool {
        fork_generation() == self.generation
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // Ordering [unclaim]: Release; pairs with [claim].
        //   seen: everything that was done to the chain is seen by whoever dismantles next.
        let free = self.place.compare_exchange(self.name, 0, edge::unclaim(), edge::lost());
        debug_assert!(free.is_ok(), "nobody takes a claim from a thread that lives");
    }
}

impl<T> Reclamation<T> {
    /// Starts with the chain's first version, taking its count.
    pub(crate) fn new(root: Shared<Version<T>>) -> Self {
        Self {
            oldest: AtomicPtr::new(root.into_raw()),
            claim: AtomicU64::new(0),
            progress: Statistic::new(0),
            taken: AtomicU64::new(0),
            aside: Stack::new(),
            oldest_since: Statistic::new(0),
            destroyed: Destroyed { versions: Statistic::new(0), bytes: Statistic::new(0) },
            spares: Spares::new(),
            departures: ProcessDepartures::new(),
        }
    }

    fn try_claim(&self) -> Option<Claim<'_>> {
        let generation = fork_generation();
        let name = Claim::name(generation);
        let holder = self.claim.load(edge::lost());
        if holder != 0 && !Claim::is_lost(holder, name) {
            return None;
        }
        // Ordering [claim]: Acquire; pairs with Release in `Claim::drop`.
        //   seen:   everything that was done to the chain before;
        //   failed: another thread dismantles.
        // What a thread that the fork left behind had done is in this process's memory, all of it.
        self.claim.compare_exchange(holder, name, edge::claim(), edge::lost()).ok()?;
        Some(Claim { place: &self.claim, name, generation, is_taken_over: holder != 0 })
    }

    /// Destroys what was retired before the call and nobody holds, as far as `effort` goes.
    ///
    /// Lock-free: what other threads hold stays where it is. Not for use inside a section of the
    /// same map, whose own count would keep the epoch from passing.
    pub(crate) fn reclaim(
        &self,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        target: u64,
        effort: Effort,
    ) {
        if let Some(claim) = self.try_claim() {
            self.dismantle_displaced(&claim, sections, published, target, effort);
        }
        if let Some(departures) = self.departures.current() {
            departures.destroy_ready(&self.destroyed);
            self.departures.help_parents(departures, &self.destroyed);
        }
    }

    fn dismantle_displaced(
        &self,
        claim: &Claim<'_>,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        target: u64,
        effort: Effort,
    ) {
        if claim.is_taken_over {
            self.repair_taken();
        }
        let Effort { mut advances, mut failures } = effort;
        while claim.stands() {
            match self.dismantle_oldest(sections, published, target) {
                Some(Head::Moved) => {}
                Some(Head::Waits) if advances != 0 && failures != 0 => {
                    if sections.try_advance() {
                        advances -= 1;
                    } else {
                        failures -= 1;
                    }
                }
                _ => break,
            }
        }
        if claim.stands() {
            self.take_back(sections);
            self.note_oldest();
        }
    }

    /// A thread that the fork left behind may have moved the head without saying so. For the thread
    /// that has the claim.
    fn repair_taken(&self) {
        // SAFETY: (`Shared::peek`) 1. the head of the chain; 2. only the thread that has the claim takes
        // it out.
        let head: Option<&Version<T>> = unsafe { Shared::peek(self.oldest.load(edge::by_claim())) };
        if let Some(head) = head.filter(|head| self.taken.load(edge::by_claim()) < head.sequence) {
            // Ordering [took]: Release; as in `dismantle_oldest`.
            self.taken.store(head.sequence, edge::took());
        }
    }

    /// Notes when the oldest of what is left was displaced. For the thread that has the claim.
    fn note_oldest(&self) {
        let [aside, head] = [self.aside.top(), self.oldest.load(edge::by_claim())].map(|raw| {
            // SAFETY: (`Shared::peek`) 1. and 2. null, or with its count where only the thread that
            // has the claim takes it from.
            unsafe { Shared::peek(raw) }.and_then(Version::displaced_at)
        });
        self.oldest_since.store(aside.or(head).unwrap_or(0), edge::statistic());
    }

    /// Notes that a version was displaced just now.
    pub(crate) fn note_displaced(&self, version: &Version<T>) {
        if self.oldest_since.load(edge::statistic()) == 0 {
            self.oldest_since.store(version.displaced_at().unwrap_or(0), edge::statistic());
        }
    }

    /// Whether everything that `settling` waits for is destroyed, but for what was set aside.
    ///
    /// Wait-free.
    pub(crate) fn has_settled(&self, sections: &ReadSections, settling: &mut Settling) -> bool {
        // Ordering [taken]: Acquire; pairs with Release in `dismantle_oldest`.
        //   seen: the count in flight of every version with a lower number was seen.
        if self.taken.load(edge::taken()) < settling.target {
            return self.is_left_to_this_thread(sections, settling);
        }
        self.departures.current().is_some_and(|flying| flying.see_off(&mut settling.seen_empty))
    }

    /// Whether this thread forked in the midst of dismantling, in a handler that has not returned,
    /// and no reader can hold what `settling` waits for: it is destroyed when the handler returns.
    fn is_left_to_this_thread(&self, sections: &ReadSections, settling: &mut Settling) -> bool {
        let name = Claim::name(fork_generation());
        if !Claim::is_own_from_before(self.claim.load(edge::lost()), name) {
            return false;
        }
        let tag = *settling.tag.get_or_insert_with(|| sections.epoch_after_displacement());
        sections.try_advance();
        sections.has_passed(tag)
    }

    /// What is retired and not destroyed, where `newest` is the published version. Wait-free.
    pub(crate) fn backlog(&self, newest: &Version<T>) -> Backlog {
        let destroyed = self.destroyed.versions.load(edge::statistic());
        let bytes = self.destroyed.bytes.load(edge::statistic());
        let versions = newest.sequence.saturating_sub(destroyed);
        let since = self.oldest_since.load(edge::statistic());
        Backlog {
            destroyed,
            versions,
            bytes: newest.bytes_before.saturating_sub(bytes),
            oldest: (versions != 0 && since != 0).then_some(since),
        }
    }

    /// Dismantles the head of the chain if it may go and is older than `target`.
    ///
    /// For the thread that has the claim. `None`: there is no memory.
    fn dismantle_oldest(
        &self,
        sections: &ReadSections,
        published: &AtomicPtr<Block<Version<T>>>,
        target: u64,
    ) -> Option<Head> {
        // Ordering [by_claim]: Relaxed; whoever moved it had the claim before this thread.
        let head = self.oldest.load(edge::by_claim());
        // Ordering [read_published]: Acquire; pairs with Release in `Index::publish_up_to`.
        //   seen: `head` is displaced, and an epoch read behind this counts from then.
        // Null: the root is not published yet; it is displaced from nothing.
        let shown = published.load(edge::read_published());
        if shown.is_null() || shown == head {
            return Some(Head::IsYoung);
        }
        // SAFETY: (`Shared::peek`) 1. the head of the chain; 2. the chain counts it, and only the
        // thread that has the claim takes it out.
        let version: &Version<T> = unsafe { Shared::peek(head) }?;
        if version.sequence >= target {
            return Some(Head::IsYoung);
        }
        let tag = version.tag().unwrap_or_else(|| {
            // The thread that displaced it has not come to say so; any thread may.
            let epoch = sections.epoch_after_displacement();
            version.note_displaced(epoch);
            epoch
        });
        // What a thread was dismantling that the fork left behind was out of every reader's reach, or
        // owns what it shows.
        let begun = self.progress_of(version) != 0;
        let grace = match version.owns() {
            false if begun => Grace::Passed,
            _ => sections.grace(tag, version.born),
        };
        if grace == Grace::Waiting {
            return Some(Head::Waits);
        }
        let departures = self.departures.current()?;
        // SAFETY: (`Shared::peek`) 1. its successor, for it is displaced; 2. in the chain, behind it.
        let next: &Version<T> = unsafe { Shared::peek(version.next()) }?;
        // SAFETY: (`dismantle`) 1. the head, by the thread that has the claim; 2. its grace has passed,
        // but perhaps for readers of an old domain; 3. which is said here.
        unsafe { self.dismantle(head, version, next, grace == Grace::HeldByOldDomain) };
        departures.board(version);
        self.oldest.store(version.next(), edge::by_claim());
        // Ordering [took]: Release; pairs with Acquire in `has_settled`.
        //   seen: the count in flight of this version and of all before it is seen.
        self.taken.store(version.sequence + 1, edge::took());
        if grace == Grace::HeldByOldDomain {
            departures.leave(version);
            // SAFETY: (`Stack::push`) 1. taken out of the chain above, with its count.
            unsafe { self.aside.push(head) };
        } else {
            // SAFETY: (`Departures::make_ready`) 1. taken, dismantled and counted in above.
            unsafe { departures.make_ready(head) };
        }
        Some(Head::Moved)
    }

    /// How far `version`, the head, is dismantled: see [`Reclamation::progress`].
    fn progress_of(&self, version: &Version<T>) -> u64 {
        let begin = version.sequence << PROGRESS_BITS;
        let progress = self.progress.load(edge::statistic()).wrapping_sub(begin);
        if progress >> PROGRESS_BITS == 0 { progress } else { 0 }
    }

    /// Gives back the chain's counts of the nodes that `next` lacks.
    ///
    /// # Safety
    ///
    /// 1. `raw` is `version`, the head of the chain, `next` its successor, and the caller has the
    ///    claim, or the map for itself.
    /// 2. No reader can hold `version` or one before it, unless it owns what it shows.
    /// 3. `held`: a reader may hold it all the same.
    unsafe fn dismantle(&self, raw: Raw<T>, version: &Version<T>, next: &Version<T>, held: bool) {
        let begin = version.sequence << PROGRESS_BITS;
        let progress = self.progress_of(version);
        if progress == 0 {
            // SAFETY: (`Shared::is_shared`) 1. in the chain, by 1.
            if held || unsafe { Shared::is_shared(raw) } {
                // SAFETY: (`Version::own_tree`) 1. by 1.; nothing of it was given back.
                unsafe { version.own_tree() };
            }
            self.progress.store(begin.wrapping_add(1), edge::statistic());
        }
        let bytes = next.bytes_before - version.bytes_before;
        version.weight.store(bytes, edge::statistic());
        // SAFETY: (`Version::leftovers`) 1. only who dismantles takes them, by 1. this thread.
        let nodes = unsafe { next.leftovers() }.map_or(&[][..], |leftovers| leftovers.nodes());
        for (number, &node) in nodes.iter().enumerate().skip(progress.saturating_sub(1) as usize) {
            // SAFETY: (`Node::own_if_shared`) 1. the chain's count of what the successor lacks,
            // in an order in which everything below comes later; by 2. no reader.
            unsafe { Node::own_if_shared(node) };
            let number = number as u64 + 2;
            self.progress.store(begin.wrapping_add(number), edge::statistic());
            // SAFETY: (`Node::release`) 1. as above; once, as `progress` says.
            unsafe { Node::release(node, Some(&self.spares)) };
        }
        next.pass_leftovers_to(version);
    }

    /// Makes ready what was set aside and is no longer held; sets the rest aside again.
    ///
    /// For the thread that has the claim.
    fn take_back(&self, sections: &ReadSections) {
        // The top is the one set aside last, so held by no more domains than the others: if it may
        // not go, none may. (Not so after nested forks, where some wait for the map's end.)
        // SAFETY: (`Shared::peek`) 1. null, or set aside; 2. its count is on the stack, and only the
        // thread that has the claim takes it off.
        let Some(top) = (unsafe { Shared::peek(self.aside.top()) }) else { return };
        let Some(departures) = self.departures.current() else { return };
        if !may_go(sections, top) {
            return;
        }
        let mut raw = self.aside.take_all();
        // SAFETY: (`Stack::unlink`) 1. taken off the stack, with its count, by this thread alone.
        while let Some((version, rest)) = unsafe { Stack::unlink(raw) } {
            raw = rest;
            if may_go(sections, &version) {
                departures.board(&version);
                // SAFETY: (`Departures::make_ready`) 1. dismantled before it was set aside.
                unsafe { departures.make_ready(version.into_raw()) };
            } else {
                // SAFETY: (`Stack::push`) 1. with its count, as it was taken off.
                unsafe { self.aside.push(version.into_raw()) };
            }
        }
    }

    /// Destroys everything, through shared access.
    ///
    /// # Safety
    ///
    /// 1. It is called once, and nothing is called after it but `drop`.
    /// 2. No other call on the map is under way, and no section of it is left.
    pub(crate) unsafe fn finish(&self) {
        let mut raw = self.oldest.load(edge::by_claim());
        loop {
            // SAFETY: (`Shared::from_raw`) 1. the chain holds a count of each version in it.
            let version = unsafe { Shared::from_raw(raw) };
            let successor = version.next();
            // SAFETY: (`Shared::peek`) 1. null, or its successor; 2. in the chain.
            match unsafe { Shared::peek(successor) } {
                Some(next) => {
                    // SAFETY: (`dismantle`) 1. by 2. of this; 2. likewise; 3. nobody.
                    unsafe { self.dismantle(raw, &version, next, false) };
                    // SAFETY: (`destroy`) 1. dismantled.
                    unsafe { destroy(version) };
                    raw = successor;
                }
                None => {
                    // SAFETY: (`retire_newest`) 1. by 2. of this.
                    unsafe { retire_newest(raw, &version) };
                    break;
                }
            }
        }
        // SAFETY: (`destroy_all`) 1. what is set aside was dismantled.
        unsafe { destroy_all(&self.aside) };
        // SAFETY: (`ProcessDepartures::finish`) 1. by 2. of this.
        unsafe { self.departures.finish() };
    }
}

/// Gives back everything that the newest version shows.
///
/// # Safety
///
/// 1. `raw` is `version`, the newest and last of its chain, and nobody else uses the map.
unsafe fn retire_newest<T>(raw: Raw<T>, version: &Version<T>) {
    // SAFETY: (`Shared::is_shared`) 1. alive: it is borrowed.
    if unsafe { Shared::is_shared(raw) } {
        // SAFETY: (`Version::own_tree`) 1. by 1.
        unsafe { version.own_tree() };
    }
    if !version.tree.root.is_nothing() {
        // SAFETY: (`Node::retire_all`) 1. by 1. the chain's counts of what it shows, for good.
        unsafe { Node::retire_all(version.tree.root.node()) };
    }
}

/// Whether no reader can hold a version that was set aside.
fn may_go<T>(sections: &ReadSections, version: &Version<T>) -> bool {
    version.tag().is_some_and(|tag| sections.grace(tag, version.born) == Grace::Passed)
}
