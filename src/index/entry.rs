#![expect(unsafe_code, reason = "counts the holders of a value that is destroyed in place")]
//! One registration: a value, and who holds it.
//!
//! An entry has two lives, as what an `Arc` points at has. The *value* lives until its last holder lets go:
//! the map (until it is unregistered and no reader can hold it), registrations and views. The
//! *block*, in which the value lies, lives until no version can lead a reader to it, either.
//!
//! ```text
//!                  remove              release                 last holder
//! value:   live ----------> removed ------------> not the map's ----------> destroyed
//!
//!                  omit: by the write that leaves it out         no reader is left
//! block:   in versions -------------------------------> omitted ----------------> unreachable
//! ```
//!
//! The block waits in limbo once for the release, and once for its own end: whichever of *omitted* and
//! *released* comes second retires the block, so that one link is enough for both. Its memory is freed by
//! whichever of *destroyed* and *unreachable* comes second.

use super::limbo::{Garbage, Kind};
use crate::address_range::CodeRange;
use crate::memory::{OutOfMemory, try_box};
use crate::sync::{AtomicUsize, Liveness, dispose, edge};
use core::cell::UnsafeCell;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::{self, NonNull};

/// What a leaf of the index points at for one registered range.
#[repr(C)] // what a lookup reads comes first
pub(crate) struct Entry<T> {
    /// The flags below, and above them the number of holders of the value.
    state: AtomicUsize,
    value: UnsafeCell<ManuallyDrop<T>>,
    garbage: Garbage,
    life: Liveness,
}

/// Lookups pass over it.
const REMOVED: usize = 1;
/// The newest version does not show it any more.
const OMITTED: usize = 2;
/// The map does not hold the value any more.
const RELEASED: usize = 4;
/// No reader can come to the block.
const UNREACHABLE: usize = 8;
/// The value is gone.
const DESTROYED: usize = 16;
/// One holder of the value.
const HOLDER: usize = 32;

/// An entry that is in no map: its one holder is an [`Item`].
const APART: usize = UNREACHABLE | HOLDER;
/// One that is: held by the map and by an item.
const IN_MAP: usize = 2 * HOLDER;

/// An entry's range, and one hold on its value.
pub(crate) struct Item<T> {
    pub(crate) range: CodeRange,
    entry: NonNull<Entry<T>>,
}

// SAFETY: as for `Arc`: an item gives `&T` to any thread (`T: Sync`) and may destroy the value on any
// thread (`T: Send`); the rest is atomic.
unsafe impl<T: Send + Sync> Send for Item<T> {}
// SAFETY: as above: `&Item` can be cloned into an item on another thread, which needs both.
unsafe impl<T: Send + Sync> Sync for Item<T> {}

impl<T> Item<T> {
    /// An entry of its own for `value`; without memory for it, the value comes back.
    pub(crate) fn try_new(range: CodeRange, value: T) -> Result<Self, (OutOfMemory, T)> {
        let entry = Entry {
            state: AtomicUsize::new(APART),
            value: UnsafeCell::new(ManuallyDrop::new(value)),
            garbage: Garbage::new(Kind::Entry, 0, 0),
            life: Liveness::new(),
        };
        match try_box(entry) {
            Ok(entry) => Ok(Self { range, entry: NonNull::from(Box::leak(entry)) }),
            Err(entry) => {
                let bytes = size_of::<Entry<T>>();
                Err((OutOfMemory { bytes }, ManuallyDrop::into_inner(entry.value.into_inner())))
            }
        }
    }

    pub(crate) fn value(&self) -> &T {
        // SAFETY: (`Entry::value`) 1. this item holds it.
        unsafe { self.entry().value() }
    }

    pub(crate) fn as_raw(&self) -> *mut Entry<T> {
        self.entry.as_ptr()
    }

    fn entry(&self) -> &Entry<T> {
        // SAFETY: the value's holder keeps the block.
        unsafe { self.entry.as_ref() }
    }

    /// One more hold on the value of an entry.
    ///
    /// # Safety
    ///
    /// 1. `entry` is an entry of that range, and somebody holds its value during the call.
    pub(crate) unsafe fn hold(range: CodeRange, entry: *mut Entry<T>) -> Self {
        // SAFETY: by 1. alive.
        unsafe { &*entry }.hold();
        // SAFETY: by 1. not null.
        Self { range, entry: unsafe { NonNull::new_unchecked(entry) } }
    }

    /// Says that a map holds the value, before the entry is published in an era that is not older
    /// than `born`.
    pub(crate) fn enter_map(&self, born: u64) {
        self.entry().garbage.set_born(born);
        // Ordering [statistic]: Relaxed; nobody else has the entry, and [publish] follows.
        self.entry().state.store(IN_MAP, edge::statistic());
    }

    /// Takes that back: the entry was not published.
    pub(crate) fn leave_map(&self) {
        self.entry().state.store(APART, edge::statistic());
    }

    /// Makes the entry invisible for lookups: this is what removes it. If nobody else did, the map's hold
    /// on the value and this one come back, for [`Entry::release`].
    pub(crate) fn remove(self) -> Option<*mut Entry<T>> {
        // Ordering [remove]: Relaxed; an exchange: once that is done, every later lookup on a machine
        // with x86-64's ordering sees it. Elsewhere the caller ends with `publication_barrier`. The flag
        // carries no data: [note_removal] and [put] do.
        let before = self.entry().state.fetch_or(REMOVED, edge::remove());
        (before & REMOVED == 0).then(|| ManuallyDrop::new(self).as_raw())
    }

    /// The value of an entry that is in no map and that nobody else has; `None`: it is not such a one.
    pub(crate) fn into_value(self) -> Option<T> {
        if self.entry().state.load(edge::statistic()) != APART {
            return None;
        }
        let entry = ManuallyDrop::new(self).as_raw();
        // SAFETY: from `Box::leak` in `try_new`, and by its state this is the only pointer to it.
        let entry = unsafe { Box::from_raw(entry) };
        entry.life.end();
        Some(ManuallyDrop::into_inner(entry.value.into_inner()))
    }
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        self.entry().hold();
        Self { ..*self }
    }
}

impl<T> Drop for Item<T> {
    /// Lets go of the value; its destructor runs if this was the last hold.
    fn drop(&mut self) {
        // SAFETY: (`Entry::let_go`) 1. the hold of this item, which is gone.
        unsafe { Entry::let_go(self.as_raw()) };
    }
}

impl<T> Entry<T> {
    /// Whether lookups no longer find the entry.
    ///
    /// Signal-safe: one load.
    #[inline(always)]
    pub(crate) fn is_removed(&self) -> bool {
        self.life.read();
        // Ordering [tombstone]: Relaxed; the flag carries no data with it. A thread that is told by
        // synchronisation that the entry is removed sees it by coherence.
        self.state.load(edge::tombstone()) & REMOVED != 0
    }

    /// The value.
    ///
    /// Signal-safe.
    ///
    /// # Safety
    ///
    /// 1. Somebody holds it as long as it is borrowed: the map does until no reader is left that entered
    ///    before the entry was removed.
    #[inline(always)]
    pub(crate) unsafe fn value(&self) -> &T {
        self.life.read();
        // SAFETY: by 1. it is not destroyed, and nobody ever has a `&mut` to it meanwhile.
        unsafe { &*self.value.get() }
    }

    /// One more hold. The caller has one, or is where the map has one.
    pub(crate) fn hold(&self) {
        // Ordering [count_up]: Relaxed; the value cannot be on its way out, and nothing is published
        // by counting.
        let before = self.state.fetch_add(HOLDER, edge::count_up());
        // As in `Arc`: so many leaked holders could wrap the count, and it is too late for an error.
        if before > usize::MAX / 2 {
            std::process::abort();
        }
    }

    /// Lets go of one hold on the value; the last one destroys it.
    ///
    /// # Safety
    ///
    /// 1. The hold is the caller's.
    pub(crate) unsafe fn let_go(entry: *mut Self) {
        // SAFETY: by 1. alive.
        let state = unsafe { &(*entry).state };
        // Ordering [count_down]: Release; pairs with the fence [count_last] in `destroy`.
        //   not the last: what this thread did with the value is before its destruction.
        if state.fetch_sub(HOLDER, edge::count_down()) / HOLDER == 1 {
            // SAFETY: (`Entry::destroy`) 1. by the count.
            unsafe { Self::destroy(entry) };
        }
    }

    /// Gives up what [`Item::remove`] returned. `retire` gets the block, if it is to be retired: it was
    /// omitted before. Destructors may run.
    ///
    /// # Safety
    ///
    /// 1. `remove` returned `entry`, to be released once; no reader can hold it that found it live.
    pub(crate) unsafe fn release(entry: *mut Self, retire: impl FnOnce(*mut Garbage)) {
        /// Retires the block also when a destructor panics.
        struct Retire<F: FnOnce(*mut Garbage)>(Option<F>, *mut Garbage);

        impl<F: FnOnce(*mut Garbage)> Drop for Retire<F> {
            fn drop(&mut self) {
                if let Some(retire) = self.0.take() {
                    retire(self.1);
                }
            }
        }

        // SAFETY: by 1. alive.
        let state = unsafe { &(*entry).state };
        // Ordering [release]: AcqRel; pairs with [omit]: of the two, the second retires the block, and
        // what the first did with the link, or with the versions, comes before.
        let before = state.fetch_sub(2 * HOLDER - RELEASED, edge::release());
        let is_omitted = before & OMITTED != 0;
        let _retire = Retire(is_omitted.then_some(retire), Self::garbage(entry));
        if before / HOLDER == 2 {
            // SAFETY: (`Entry::destroy`) 1. by the count.
            unsafe { Self::destroy(entry) };
        }
    }

    /// Notes that the newest version lacks the entry; says whether its block is the caller's to retire.
    pub(crate) fn omit(&self) -> bool {
        // Ordering [omit]: AcqRel; pairs with [release].
        self.state.fetch_or(OMITTED, edge::omit()) & RELEASED != 0
    }

    /// Frees the block that no reader can come to, now or when the value is destroyed.
    ///
    /// # Safety
    ///
    /// 1. No reader can come to it; this is said once.
    pub(crate) unsafe fn make_unreachable(entry: *mut Self) {
        // SAFETY: by 1. it is not freed before this is said.
        let state = unsafe { &(*entry).state };
        // Ordering [end_block]: AcqRel; pairs with itself in `destroy`: of the two, the second frees.
        if state.fetch_or(UNREACHABLE, edge::end_block()) & DESTROYED != 0 {
            // SAFETY: (`Entry::free`) 1. the second of the two.
            unsafe { Self::free(entry) };
        }
    }

    /// Destroys the value.
    ///
    /// # Safety
    ///
    /// 1. The last hold is gone, and was the caller's.
    unsafe fn destroy(entry: *mut Self) {
        /// Goes on also when the destructor panics.
        struct Destroyed<T>(*mut Entry<T>);

        impl<T> Drop for Destroyed<T> {
            fn drop(&mut self) {
                // SAFETY: the block waits for this.
                let state = unsafe { &(*self.0).state };
                // Ordering [end_block]: AcqRel; as in `make_unreachable`.
                if state.fetch_or(DESTROYED, edge::end_block()) & UNREACHABLE != 0 {
                    // SAFETY: (`Entry::free`) 1. the second of the two.
                    unsafe { Entry::free(self.0) };
                }
            }
        }

        // Ordering [count_last]: Acquire; pairs with [count_down] and [release].
        //   the last: what every other holder did comes before the destruction.
        edge::count_last();
        let _destroyed = Destroyed(entry);
        // SAFETY: by 1. alive, until `_destroyed` goes.
        let value = unsafe { &(*entry).value }.get();
        // SAFETY: by 1. nobody has the value any more.
        let value = unsafe { &mut *value };
        // SAFETY: by 1. this happens once.
        unsafe { ManuallyDrop::drop(value) };
    }

    /// # Safety
    ///
    /// 1. Nobody has it any more.
    unsafe fn free(entry: *mut Self) {
        // SAFETY: from `Box::leak` in `try_new`; by 1. the only pointer to it.
        let block = unsafe { Box::from_raw(entry) };
        block.life.end();
        dispose(block);
    }

    /// Whether the map still holds the value of an entry that is in its last version.
    ///
    /// For a map that goes: an entry that was removed is released by the thread that removed it, unless that was
    /// forgotten.
    pub(crate) fn is_released(&self) -> bool {
        self.state.load(edge::statistic()) & RELEASED != 0
    }

    /// Its header.
    pub(crate) fn garbage(entry: *mut Self) -> *mut Garbage {
        entry.wrapping_byte_add(offset_of!(Self, garbage)).cast()
    }

    /// The entry of a header of kind [`Kind::Entry`].
    pub(crate) fn of_garbage(garbage: *mut Garbage) -> *mut Self {
        garbage.wrapping_byte_sub(offset_of!(Self, garbage)).cast()
    }

    /// Whether two pointers are to the same entry.
    pub(crate) fn is_same(one: *const Self, other: *const Self) -> bool {
        ptr::eq(one, other)
    }
}
