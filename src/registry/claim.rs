#![expect(unsafe_code, reason = "an entry of the code map that knows its own block")]
//! Counted registrations: the same thing registered in a code map by several owners.
//!
//! Two engines of one process may register the same mapping, or one engine twice. It is in the map
//! once, and the entry counts its owners. The entry itself is where they meet; there is no other
//! table and no lock.
//!
//! ```text
//!              join: n -> n+1            leave: 1 -> 0             remove
//!   (absent) ------------------> open n ------------------> closed ----------> (absent)
//!        register, n = 1                                      any thread that wants
//!                                                             the place does this
//! ```
//!
//! - *Joining* looks the first address up. An open entry of the same thing: the count goes up by
//!   a compare-and-swap, and never from 0. No entry: a new one is registered, with one owner.
//!   Somebody else's came first: look again.
//! - *Leaving* counts down. Who reaches 0 has closed the entry, for ever, and takes it out.
//! - A joiner that finds a closed entry does not wait for the one who closed it, which may be
//!   stopped at any instruction in between: it takes the entry out itself, and registers anew.
//!   Removal goes by the entry's identity (its address, which nobody reuses while somebody who wants to
//!   remove it holds it): so the stopped thread, going on, finds it removed, and does not touch the
//!   new entry.
//!
//! So joining and leaving are lock-free: a joiner goes round again only if another thread has
//! registered or unregistered something meanwhile.
//!
//! A joiner that succeeded is in the newest version of the map: the entry is taken out only after
//! the count was 0, and it was not when the joiner counted itself in, nor is it until it leaves.
//!
//! # Orderings
//!
//! The count orders nothing, and need not: its changes are in one order, which is all that the
//! sentence above asks for; whoever reaches the entry has seen its publication; and each owner also
//! holds the entry's value, whose last holder comes after all that the others did.

use crate::address_range::CodeRange;
use crate::index::entry::{Entry, Item};
use crate::sync::{AtomicPtr, AtomicUsize, const_fn, edge};
use crate::{CodeMap, Refused};
use core::fmt;

/// What several owners may register, each of them once: the value of such an entry.
pub(crate) trait Counted: Send + Sync + Sized {
    /// Its owners.
    fn owners(&self) -> &Owners<Self>;
}

/// The owners of one registration, and the address by which any of them can take it out.
pub(crate) struct Owners<T> {
    /// Zero is final.
    count: AtomicUsize,
    /// The entry: written once, before anybody else sees it.
    place: AtomicPtr<Entry<T>>,
}

impl<T> Owners<T> {
    const_fn! {
        /// One owner.
        pub(crate) fn one() -> Self {
            Self { count: AtomicUsize::new(1), place: AtomicPtr::new(core::ptr::null_mut()) }
        }
    }

    /// How many there are at the moment. Signal-safe.
    pub(crate) fn count(&self) -> usize {
        // Ordering [owners]: Relaxed; a figure.
        self.count.load(edge::owners())
    }

    /// One more owner, unless there is none any more.
    ///
    /// Lock-free: an exchange fails when another thread joined or left.
    fn join(&self) -> bool {
        // Ordering [owners]: Relaxed; see the head of the file. Overflow cannot come about: each
        // owner takes more memory than one byte.
        self.count
            .fetch_update(edge::owners(), edge::lost(), |owners| {
                (owners != 0).then(|| owners.wrapping_add(1))
            })
            .is_ok()
    }

    /// One owner less; whether that was the last.
    fn leave(&self) -> bool {
        // Ordering [owners]: Relaxed; see the head of the file.
        self.count.fetch_sub(1, edge::owners()) == 1
    }
}

/// One owner's part in the registration of a `T`, in the map that `M` gives; given up when dropped.
pub(crate) struct Claim<T: Counted, M: AsRef<CodeMap<T>>> {
    map: M,
    /// There until the claim is given up.
    item: Option<Item<T>>,
}

/// What is at the first address of a range that is to be registered.
enum Standing<T> {
    Absent,
    /// The thing itself; this owner has been counted.
    Joined(Item<T>),
    /// The thing itself, whose last owner has left.
    Closed(Item<T>),
    /// Something else, in this range.
    Taken(CodeRange),
}

impl<T: Counted, M: AsRef<CodeMap<T>>> Claim<T, M> {
    /// Registers for `range` what `make` gives, with one owner; or joins those who registered the
    /// same already, which `is_same` tells.
    ///
    /// Lock-free; without memory, or if something else is in the way, nothing has changed.
    pub(crate) fn join(
        map: M,
        range: CodeRange,
        is_same: impl Fn(&T) -> bool,
        make: impl Fn() -> T,
    ) -> Result<Self, Refused> {
        let item = Self::item(map.as_ref(), range, is_same, make)?;
        Ok(Self { map, item: Some(item) })
    }

    fn item(
        map: &CodeMap<T>,
        range: CodeRange,
        is_same: impl Fn(&T) -> bool,
        make: impl Fn() -> T,
    ) -> Result<Item<T>, Refused> {
        loop {
            match Standing::of(map, range, &is_same) {
                Standing::Joined(item) => return Ok(item),
                Standing::Taken(existing) => {
                    return Err(Refused::Overlap { requested: range, existing });
                }
                // Who closed it may be stopped: its work is done here, and it will find it done.
                Standing::Closed(item) => {
                    drop(map.remove([item]));
                }
                Standing::Absent => {}
            }
            let item = Item::try_new(range, make()).map_err(|(error, _)| error)?;
            // Ordering [owners]: Relaxed; publication of the entry makes it visible.
            item.value().owners().place.store(item.as_raw(), edge::owners());
            match map.register_item(item) {
                Ok(registration) => return Ok(registration.into_item()),
                // Another thread was faster. With the same, perhaps: look again, where it is found (or removed).
                Err((Refused::Overlap { existing, .. }, _)) if existing == range => {}
                Err((reason, _)) => return Err(reason),
            }
        }
    }

    /// For tests: leaves, and stops before the entry is taken out.
    #[cfg(test)]
    pub(crate) fn leave_and_stop(mut self) -> Option<Item<T>> {
        self.leave()
    }

    /// Gives the claim up. If it was the last one, the entry comes back, closed and still in the map.
    fn leave(&mut self) -> Option<Item<T>> {
        self.item.take().filter(|item| item.value().owners().leave())
    }
}

impl<T: Counted, M: AsRef<CodeMap<T>>> Drop for Claim<T, M> {
    fn drop(&mut self) {
        if let Some(item) = self.leave() {
            drop(self.map.as_ref().remove([item]));
        }
    }
}

impl<T: Counted> Standing<T> {
    fn of(map: &CodeMap<T>, range: CodeRange, is_same: impl Fn(&T) -> bool) -> Self {
        let reader = map.enter();
        let Some(hit) = reader.lookup(range.start()) else { return Self::Absent };
        if !is_same(hit.value()) {
            return Self::Taken(hit.range());
        }
        let owners = hit.value().owners();
        // Ordering [owners]: Relaxed; whoever reaches the entry has seen its publication.
        let place = owners.place.load(edge::owners());
        // SAFETY: (`Item::hold`) 1. noted by `item` before the entry was published, so it is the entry that
        // the value is in; the map holds a value that was found as long as `reader` lives.
        let item = unsafe { Item::hold(hit.range(), place) };
        if owners.join() { Self::Joined(item) } else { Self::Closed(item) }
    }
}

impl<T: Counted, M: AsRef<CodeMap<T>>> fmt::Debug for Claim<T, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.item.as_ref().map(|item| item.range);
        f.debug_struct("Claim").field("range", &range).finish_non_exhaustive()
    }
}
