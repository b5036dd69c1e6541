#![expect(unsafe_code, reason = "frees what no reader can hold")]
//! From displaced to freed: who retires what, and who frees it when.
//!
//! Retired garbage lies on the limbo list of its era and epoch ([`era`](super::era)). Any thread may take
//! a list that is due and free what is on it, in any order: a reader that can come to a node entered before
//! that node was displaced, so the node's own epoch covers it. Writers do so as they go, and so pay for
//! their garbage.
//!
//! What a reader of an older era may hold waits on the list of that era until it has drained
//! ([`eras`](super::eras)).
//!
//! Values are kept apart from memory. A registration frees memory only, and puts values that are due where
//! the next call finds them that may run destructors.

use super::edit::Edit;
use super::entry::Entry;
use super::era::{Era, Sort, State};
use super::eras::Current;
use super::limbo::{Chain, Garbage, Kind};
use super::node::Node;
use super::view::View;
use super::{Index, Reading};
use crate::memory::{Block, Shared};
use crate::sync::{
    ENDED_PER_TEND, ERA_BYTES, OPERATIONS_PER_TEND, Panics, RECLAIM_ADVANCES, RECLAIM_PATIENCE,
    edge, unless_destroying,
};
use core::ptr;

/// What is retired and not freed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    pub(crate) freed: u64,
    /// When the oldest of them came, roughly: nanoseconds of `coarse_nanos`.
    pub(crate) oldest: Option<u64>,
}

/// What one era holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) number: u64,
    pub(crate) is_current: bool,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
    /// When it began: nanoseconds of `coarse_nanos`; 0 for the first.
    pub(crate) began: u64,
}

impl<T> Index<T> {
    /// Retires what the version that was read has and its successor lacks: this thread has displaced it just
    /// before, by publishing the tree of `edit`.
    pub(super) fn retire_displaced(&self, reading: Reading<'_, T>, edit: &Edit<'_, T>) {
        // (Nobody else frees what it displaced.)
        drop(reading);
        let mut chain = Chain::empty();
        let (mut items, mut bytes) = (0, 0);
        let mut add = |garbage: *mut Garbage, size: usize| {
            // SAFETY: (`Chain::push`) 1. nobody else retires it, and it lives until it is freed.
            unsafe { chain.push(garbage) };
            (items, bytes) = (items + 1, bytes + size as u64);
        };
        for node in edit.replaced.iter() {
            // SAFETY: (`Node::size`) 1. not retired yet.
            add(Node::garbage(node), unsafe { Node::size(node) });
        }
        for entry in edit.omitted.iter() {
            // SAFETY: its block lives until it is omitted and freed.
            if unsafe { &*entry }.omit() {
                add(Entry::garbage(entry), size_of::<Entry<T>>());
            }
        }
        self.retire(Sort::Memory, chain, items, bytes);
    }

    /// Puts on a limbo list what the caller displaced by an exchange just before.
    fn retire(&self, sort: Sort, chain: Chain, items: u64, bytes: u64) {
        let tag = self.eras.tag_behind_exchange();
        self.eras.tagged(&tag).note(items, bytes);
        self.eras.limbo(&tag, sort).push(chain);
    }

    /// Retires a view, if it is one.
    ///
    /// # Safety
    ///
    /// 1. `view` was taken out of the cell by an exchange just before, with its count, by this thread.
    pub(super) unsafe fn retire_view(&self, view: *mut Block<View<T>>) {
        if !view.is_null() {
            let mut chain = Chain::empty();
            let garbage = View::garbage(view);
            // SAFETY: (`Chain::push`) 1. by 1. the count keeps it.
            unsafe { chain.push(garbage) };
            let (items, bytes) = self.weight(Sort::Values, garbage);
            self.retire(Sort::Values, chain, items, bytes);
        }
    }

    /// Takes the view out of the cell, with its count.
    pub(super) fn displace_view(&self) -> Option<*mut Block<View<T>>> {
        if self.view.load(edge::lost()).is_null() {
            return None;
        }
        // Ordering [see_view]: Acquire; as in `view`.
        let view = self.view.swap(ptr::null_mut(), edge::see_view());
        (!view.is_null()).then_some(view)
    }

    /// What follows operation number `number` of a caller who may allocate, or not: now and then a step of
    /// reclamation.
    pub(crate) fn tend(&self, number: u64, may_allocate: bool) {
        let current = self.eras.current();
        let is_full = current.era.bytes() > ERA_BYTES;
        if !is_full && !number.is_multiple_of(OPERATIONS_PER_TEND) {
            return;
        }
        let advanced = self.step(&current, ENDED_PER_TEND);
        // Also if threads that advance in step pass over the same list again and again.
        let bytes = current.era.bytes() / if advanced { 2 } else { 1 };
        if is_full && bytes > ERA_BYTES {
            self.eras.begin(&current, may_allocate);
        }
    }

    /// Advances the epoch, if that can be, and frees what is due then: of the current era, and of some that
    /// have ended. Says whether it advanced. Lock-free.
    fn step(&self, current: &Current<'_>, ended: usize) -> bool {
        let advanced = current.era.try_advance();
        let epoch = current.era.epoch();
        for sort in Sort::ALL {
            // Nothing waits for the current era. What waited for an era before it on the same object, and
            // was not taken when that one drained, is not to wait for this one.
            self.settle(current.era, sort, current.era.waiting(sort).take(), None);
            // What was displaced three epochs ago: its number is this one's plus one, modulo four.
            let limbo = current.era.limbo(sort, epoch + 1);
            let taken = limbo.take();
            if taken.is_empty() {
                continue;
            }
            // Has the epoch advanced meanwhile, or the era changed? Then what came last may be on it.
            if self.eras.is_current(current) && current.era.epoch() == epoch {
                self.settle(current.era, sort, taken, Some(current.number()));
            } else {
                limbo.push(taken);
            }
        }
        self.eras.some(ended).for_each(|era| self.look_at(era));
        advanced
    }

    /// Frees what lies on the lists of an object whose era has ended and drained.
    fn look_at(&self, era: &Era) {
        self.eras.drain(era);
        let State::Free(number) = era.state() else { return };
        if era.has_no_garbage() {
            return;
        }
        for sort in Sort::ALL {
            self.settle(era, sort, era.waiting(sort).take(), None);
            for epoch in 0..4 {
                let limbo = era.limbo(sort, epoch);
                let taken = limbo.take();
                if taken.is_empty() {
                    continue;
                }
                // If the object is in use again, what was displaced now may be on the list.
                if era.state() == State::Free(number) {
                    self.settle(era, sort, taken, Some(number));
                } else {
                    limbo.push(taken);
                }
            }
        }
    }

    /// Frees garbage of `source` that was displaced in that era (`None`: as each of it says), as far as no
    /// older era holds it; the rest is left to those eras. Values become due.
    fn settle(&self, source: &Era, sort: Sort, chain: Chain, displaced: Option<u64>) {
        let (due, _) = self.free_due(source, sort, chain, displaced, |_| false);
        if !due.is_empty() {
            self.due.push(due);
        }
    }

    /// As `settle`: gives the values that are due; and what is held by eras that the caller `keeps` waiting
    /// for, by number.
    pub(super) fn free_due(
        &self,
        source: &Era,
        sort: Sort,
        mut chain: Chain,
        displaced: Option<u64>,
        keeps: impl Fn(u64) -> bool,
    ) -> (Chain, Chain) {
        let (mut due, mut kept) = (Chain::empty(), Chain::empty());
        let (mut items, mut bytes) = (0, 0);
        // The last that was found free to go: most have the same.
        let mut free_to_go = None;
        while let Some(garbage) = chain.pop() {
            // SAFETY: alive, by `Chain::push`.
            let header = unsafe { &*garbage };
            let mark = || header.mark.load(edge::statistic());
            let lived = (header.born(), displaced.unwrap_or_else(mark));
            if free_to_go != Some(lived) {
                if let Some((era, number)) = self.eras.holding(lived.0, lived.1) {
                    if keeps(number) {
                        // SAFETY: (`Chain::push`) 1. popped above.
                        unsafe { kept.push(garbage) };
                    } else {
                        header.mark.store(lived.1, edge::statistic());
                        self.park(source, era, number, sort, garbage);
                    }
                    continue;
                }
                free_to_go = Some(lived);
            }
            if sort == Sort::Memory {
                // SAFETY: (`free`) 1. no reader can hold it: see `eras`.
                let size = unsafe { self.free(garbage) };
                (items, bytes) = (items + 1, bytes + size as u64);
            } else {
                let (count, size) = self.weight(sort, garbage);
                (items, bytes) = (items + count, bytes + size);
                // SAFETY: (`Chain::push`) 1. popped above.
                unsafe { due.push(garbage) };
            }
        }
        if items != 0 {
            source.forget(items, bytes);
            self.freed.fetch_add(items, edge::statistic());
        }
        (due, kept)
    }

    /// Leaves garbage to an era that holds it.
    fn park(&self, source: &Era, era: &Era, number: u64, sort: Sort, garbage: *mut Garbage) {
        let (items, bytes) = self.weight(sort, garbage);
        source.forget(items, bytes);
        era.note(items, bytes);
        let mut chain = Chain::empty();
        // SAFETY: (`Chain::push`) 1. popped by the caller.
        unsafe { chain.push(garbage) };
        era.waiting(sort).push(chain);
        // Ordering [parker_looks]: SeqCst; meets [drainer_looks].
        //   this fence first:  the list is not empty for the thread that drained the era, and took it after that;
        //   this one second:   the era is seen to have drained, and the list is taken here.
        edge::parker_looks();
        if era.state() != State::Active(number) {
            self.settle(era, sort, era.waiting(sort).take(), None);
        }
    }

    /// For how many pieces of memory garbage counts, and for how many bytes. (Values are counted apart, by
    /// `removals` and `releases`.)
    pub(super) fn weight(&self, sort: Sort, garbage: *mut Garbage) -> (u64, u64) {
        // SAFETY: callers have it in their hands.
        let size = match unsafe { &*garbage }.kind() {
            // SAFETY: (`Node::size`) 1. as above.
            Kind::Node => unsafe { Node::<T>::size(Node::of_garbage(garbage)) },
            Kind::Entry if sort == Sort::Values => return (0, 0),
            Kind::Entry => size_of::<Entry<T>>(),
            Kind::View => {
                // SAFETY: (`Shared::peek`) 1. and 2. a view, with the count that the cell had.
                let view: Option<&View<T>> = unsafe { Shared::peek(View::of_garbage(garbage)) };
                view.map_or(0, View::bytes)
            }
        };
        (1, size as u64)
    }

    /// Frees memory; says how much that was, in bytes.
    ///
    /// # Safety
    ///
    /// 1. It is memory of this index (not a view), the caller's, and no reader can hold it.
    pub(super) unsafe fn free(&self, garbage: *mut Garbage) -> usize {
        // SAFETY: by 1. alive.
        match unsafe { &*garbage }.kind() {
            // SAFETY: (`Node::discard`) 1. by 1.
            Kind::Node => unsafe { Node::<T>::discard(Node::of_garbage(garbage), &self.free_list) },
            Kind::Entry | Kind::View => {
                // SAFETY: (`Entry::make_unreachable`) 1. by 1. an entry, whose block is retired once.
                unsafe { Entry::<T>::make_unreachable(Entry::of_garbage(garbage)) };
                size_of::<Entry<T>>()
            }
        }
    }

    /// Lets go of values, and of views of them. Destructors run: if one panics, the others run all the
    /// same, and then the panic goes on.
    pub(super) fn destroy(&self, mut values: Chain) {
        let mut panics = Panics::none();
        let (mut blocks, mut count, mut releases) = (Chain::empty(), 0, 0);
        while let Some(garbage) = values.pop() {
            // SAFETY: alive: it was in the chain.
            if unsafe { &*garbage }.kind() == Kind::View {
                let view = View::of_garbage(garbage);
                // SAFETY: (`Shared::from_raw`) 1. the count that the cell had.
                panics.contain(|| drop(unsafe { Shared::<View<T>>::from_raw(view) }));
                continue;
            }
            releases += 1;
            let retire = |block: *mut Garbage| {
                count += 1;
                // SAFETY: (`Chain::push`) 1. the caller's to retire.
                unsafe { blocks.push(block) };
            };
            // SAFETY: (`Entry::release`) 1. from `Item::remove`, by way of the lists; no reader can hold it.
            panics.contain(|| unsafe { Entry::<T>::release(Entry::of_garbage(garbage), retire) });
        }
        self.releases.fetch_add(releases, edge::statistic());
        if !blocks.is_empty() {
            self.retire(Sort::Memory, blocks, count, count * size_of::<Entry<T>>() as u64);
        }
        panics.resume();
    }

    /// Destroys the values that are due. If a destructor calls this, that call leaves it to this one: no
    /// recursion.
    pub(crate) fn destroy_due(&self) {
        if !self.due.is_empty() {
            unless_destroying(ptr::from_ref(self).addr(), || self.destroy(self.due.take()));
        }
    }

    /// Frees what is retired and nobody holds, without waiting. Not inside a section of this map.
    /// Destructors run.
    pub(crate) fn reclaim(&self) {
        // If there is no memory, the era stays the old one, and removed slots stay.
        let _ = self.eras.follow_fork(true);
        while self.has_many_tombstones(self.enter().tree().entries, 0) && self.compact(usize::MAX) {
        }
        let mut patience = RECLAIM_PATIENCE;
        for _ in 0..RECLAIM_ADVANCES {
            let current = self.eras.current();
            let advanced = self.step(&current, usize::MAX);
            self.destroy_due();
            if self.eras.iter().all(Era::has_no_garbage) {
                break;
            }
            if !advanced {
                patience -= 1;
                if patience == 0 {
                    // What comes later is not to be held back by who is inside now.
                    if current.era.bytes() != 0 {
                        self.eras.begin(&current, true);
                    }
                    break;
                }
            }
        }
        self.free_list.clear();
    }

    /// What is retired and not freed. Wait-free.
    pub(crate) fn backlog(&self) -> Backlog {
        let releases = self.releases.load(edge::statistic());
        let values = self.removals().saturating_sub(releases);
        let mut backlog = Backlog {
            items: values,
            bytes: 0,
            freed: self.freed.load(edge::statistic()) + releases,
            oldest: self.due.since(),
        };
        for era in self.eras.iter() {
            backlog.items += era.items();
            backlog.bytes += era.bytes();
            let oldest = era.oldest_garbage().into_iter().chain(backlog.oldest);
            backlog.oldest = oldest.min();
        }
        backlog
    }

    /// What each era holds that has not drained, oldest first or not. Wait-free.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> {
        let current = self.eras.current().number();
        self.eras.iter().filter_map(move |era| match era.state() {
            State::Active(number) => Some(Held {
                number,
                is_current: number == current,
                items: era.items(),
                bytes: era.bytes(),
                began: era.began.load(edge::statistic()),
            }),
            _ => None,
        })
    }
}
