#![expect(unsafe_code, reason = "links garbage through itself")]
//! Garbage: what was displaced or removed, and waits until no reader can hold it.
//!
//! Nodes, entries and views each carry a [`Garbage`] header. Garbage is linked through
//! that header, so retiring allocates nothing and cannot fail. A [`Chain`] belongs to one thread; a
//! [`Limbo`] list is shared, and is only ever emptied whole (Treiber's stack without a single pop), so
//! an address cannot come back while a thread compares it.

use crate::sync::{AtomicPtr, Statistic, coarse_nanos, const_fn, edge};
use core::ptr;

/// What carries a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    Entry,
    View,
}

/// The header.
#[repr(C)]
pub(crate) struct Garbage {
    /// The next one in the same chain or list.
    next: AtomicPtr<Garbage>,
    /// The number of the era it was born in, and its kind in the lowest two bits.
    origin: Statistic,
    /// While it waits for older eras: the number of the era it was displaced in. Before it is
    /// published: the write that makes it (see `edit`).
    pub(super) mark: Statistic,
}

impl Garbage {
    pub(crate) fn new(kind: Kind, born: u64, mark: u64) -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            origin: Statistic::new(born << 2 | kind as u64),
            mark: Statistic::new(mark),
        }
    }

    /// The era it was born in: no reader that entered in an earlier era can hold it.
    #[inline]
    pub(crate) fn born(&self) -> u64 {
        self.origin.load(edge::statistic()) >> 2
    }

    /// Notes the era, before the garbage-to-be is published.
    pub(crate) fn set_born(&self, born: u64) {
        let kind = self.origin.load(edge::statistic()) & 3;
        self.origin.store(born << 2 | kind, edge::statistic());
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match self.origin.load(edge::statistic()) & 3 {
            0 => Kind::Node,
            1 => Kind::Entry,
            _ => Kind::View,
        }
    }
}

/// Garbage in the hands of one thread.
pub(crate) struct Chain {
    first: *mut Garbage,
    /// Null if it is not known.
    last: *mut Garbage,
}

// SAFETY: what a chain links is nobody else's, and may be freed on any thread: indices, and all that holds
// their chains, ask for `T: Send + Sync`.
unsafe impl Send for Chain {}
// SAFETY: `&Chain` only tells whether it is empty.
unsafe impl Sync for Chain {}

impl Chain {
    pub(crate) const fn empty() -> Self {
        Self { first: ptr::null_mut(), last: ptr::null_mut() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Adds garbage in front.
    ///
    /// # Safety
    ///
    /// 1. It stays alive until the chain gives it back, and is in no other chain or list.
    #[inline]
    pub(crate) unsafe fn push(&mut self, garbage: *mut Garbage) {
        // SAFETY: by 1. alive.
        unsafe { &*garbage }.next.store(self.first, edge::below());
        if self.first.is_null() {
            self.last = garbage;
        }
        self.first = garbage;
    }

    /// Takes the first one out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<*mut Garbage> {
        // SAFETY: null or alive, by `push`.
        let next = unsafe { self.first.as_ref() }?.next.load(edge::below());
        let popped = core::mem::replace(&mut self.first, next);
        if next.is_null() {
            self.last = next;
        }
        Some(popped)
    }

    /// Adds all of another chain.
    pub(crate) fn append(&mut self, other: Self) {
        let Some(last) = other.last() else { return };
        // SAFETY: alive, by `push`.
        unsafe { &*last }.next.store(self.first, edge::below());
        if self.first.is_null() {
            self.last = last;
        }
        self.first = other.first;
    }

    /// Constant time, or O(n) for what was taken off a list.
    #[inline]
    fn last(&self) -> Option<*mut Garbage> {
        if !self.last.is_null() {
            return Some(self.last);
        }
        let mut last = self.first;
        // SAFETY: null or alive, by `push`.
        while let Some(garbage) = unsafe { last.as_ref() } {
            let next = garbage.next.load(edge::below());
            if next.is_null() {
                return Some(last);
            }
            last = next;
        }
        None
    }
}

/// A shared list of garbage.
pub(crate) struct Limbo {
    top: AtomicPtr<Garbage>,
    /// When the oldest of it came, roughly.
    since: Statistic,
}

impl Limbo {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { top: AtomicPtr::new(ptr::null_mut()), since: Statistic::new(0) }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.top.load(edge::lost()).is_null()
    }

    /// Since when there has been garbage, if there is any: nanoseconds of `coarse_nanos`.
    pub(crate) fn since(&self) -> Option<u64> {
        (!self.is_empty()).then(|| self.since.load(edge::statistic()))
    }

    /// Puts a chain on the list. Lock-free.
    #[inline]
    pub(crate) fn push(&self, chain: Chain) {
        let Some(last) = chain.last() else { return };
        let mut top = self.top.load(edge::lost());
        loop {
            if top.is_null() {
                self.since.store(coarse_nanos(), edge::statistic());
            }
            // SAFETY: alive, by `Chain::push`.
            unsafe { &*last }.next.store(top, edge::below());
            // Ordering [put]: Release; pairs with Acquire in `take`.
            //   seen:   the links of the chain are seen, and what this thread did with the garbage
            //           comes before what the other one does;
            //   failed: another thread pushed or took.
            match self.top.compare_exchange(top, chain.first, edge::put(), edge::lost()) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    /// Takes all of it. Wait-free.
    #[inline]
    pub(crate) fn take(&self) -> Chain {
        if self.is_empty() {
            return Chain::empty();
        }
        // Ordering [take]: Acquire; pairs with Release in `push`.
        //   seen: every link, for pushes continue each other's release sequences.
        Chain { first: self.top.swap(ptr::null_mut(), edge::take()), last: ptr::null_mut() }
    }
}
