//! A registration's life: held, leaked, taken apart, unregistered, and known to be over.

use crate::CodeMap;
use crate::address_range::CodeRange;
use crate::index::MapId;
use crate::index::entry::Item;
use crate::index::retired::Retired;
use core::fmt;
use core::mem::ManuallyDrop;

/// A registered range of code; dropping it unregisters the range.
///
/// From [`CodeMap::register`] and [`CodeMap::register_all`]. Dropping costs what
/// [`Registration::unregister`] costs, cannot fail, and is **not signal-safe**.
///
/// ```
/// let map = pcmap::CodeMap::new();
/// let held = map.register(0x1000..0x2000, "code").unwrap();
/// assert!(map.lookup(0x1000, |_| ()).is_some());
/// drop(held);
/// assert!(map.lookup(0x1000, |_| ()).is_none());
/// ```
#[must_use = "dropping a registration unregisters the code"]
pub struct Registration<'m, T: Send + Sync> {
    map: &'m CodeMap<T>,
    /// Taken out only by methods that consume the registration.
    item: ManuallyDrop<Item<T>>,
}

/// A registration without its map: what [`Registration::into_key`] leaves.
///
/// It borrows nothing, so it can be kept beside the code it belongs to. Dropping it leaves the
/// code registered, as [`Registration::leak`] does.
#[must_use = "dropping a key leaves the code registered for the life of the map"]
pub struct RegistrationKey<T> {
    map: MapId,
    item: Item<T>,
}

/// Code that was unregistered: no new lookup finds it; readers may still hold it.
///
/// It tells when none can any more, so that what lies outside the map (a mapping, say) may go. There are
/// three ways to use it:
///
/// ```
/// let map = pcmap::CodeMap::new();
/// let [a, b, c] = [0x1000, 0x2000, 0x3000].map(|start| map.register(start..start + 8, "code").unwrap());
///
/// // 1. Wait. Then nobody holds the code, and its value was destroyed on this thread.
/// a.unregister().wait();
///
/// // 2. Ask, and go on. The value is destroyed by the call that says that it is complete.
/// let mut retirement = b.unregister();
/// while !retirement.is_complete() {
///     // something else
/// }
///
/// // 3. Do not ask. The value is destroyed later, by a call on the map that may run destructors. Nothing
/// // outside the map may go by this: a reader may still run, or read, what the value stands for.
/// drop(c.unregister());
/// ```
///
/// One that is forgotten (`mem::forget`) keeps the value for good.
#[must_use = "a reader may still hold the code: wait before it is unmapped (or drop this, if nothing is)"]
pub struct Retirement<'m, T: Send + Sync> {
    map: &'m CodeMap<T>,
    retired: Retired,
}

impl<'m, T: Send + Sync> Registration<'m, T> {
    pub(crate) fn new(map: &'m CodeMap<T>, item: Item<T>) -> Self {
        Self { map, item: ManuallyDrop::new(item) }
    }

    /// The registered range: half-open, absolute addresses. An empty one is no entry of the map.
    ///
    /// Constant time; signal-safe.
    pub fn range(&self) -> CodeRange {
        self.item.range
    }

    /// The value registered with the range.
    ///
    /// Constant time; signal-safe.
    pub fn value(&self) -> &T {
        self.item.value()
    }

    /// Unregisters the code; the answer tells when nobody holds it any more.
    ///
    /// When this returns, no new lookup finds the code, on any thread. [`Retirement`] shows what to do with
    /// the answer, and when the value is destroyed. The range is free at once for other code.
    ///
    /// **Cost**: constant: a flag in the entry. One in eight also frees garbage that is due, and destroys values
    /// that were unregistered before: constant for each, and no more of them than were retired. **Progress**: the flag is one store, the rest is lock-free. **Errors**: none; it allocates
    /// nothing and builds nothing. **Panics**: none of its own (a destructor of such a value may).
    /// **Signal-safe**: no.
    pub fn unregister(self) -> Retirement<'m, T> {
        let map = self.map;
        map.remove([self.into_item()])
    }

    /// Leaves the code registered until the map is dropped (for a `static` map: for good).
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// map.register(0x1000..0x2000, "built in").unwrap().leak();
    /// assert!(map.lookup(0x1000, |_| ()).is_some());
    /// ```
    ///
    /// Constant time, wait-free, no errors. Not signal-safe if the range is empty: the value,
    /// which is no entry of the map, is dropped here.
    pub fn leak(self) {
        drop(self.into_item());
    }

    /// Takes the registration apart: the key unregisters the code later, through
    /// [`CodeMap::unregister`], and borrows nothing meanwhile.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let key = map.register(0x1000..0x2000, "code").unwrap().into_key();
    /// assert!(map.lookup(0x1000, |_| ()).is_some());
    /// map.unregister(key).expect("a key of this map");
    /// assert!(map.lookup(0x1000, |_| ()).is_none());
    /// ```
    ///
    /// Constant time, wait-free, no errors, no panics; signal-safe.
    pub fn into_key(self) -> RegistrationKey<T> {
        RegistrationKey { map: self.map.id(), item: self.into_item() }
    }

    /// The map that the code is registered in.
    pub(crate) fn map(&self) -> &'m CodeMap<T> {
        self.map
    }

    pub(crate) fn into_item(self) -> Item<T> {
        let mut this = ManuallyDrop::new(self);
        take_item(&mut this.item)
    }
}

#[expect(unsafe_code, reason = "moves a field out of a value that has a destructor")]
fn take_item<T>(item: &mut ManuallyDrop<Item<T>>) -> Item<T> {
    // SAFETY: both callers have the registration for the last time: `into_item` forgets it, and
    // `drop` is its destructor.
    unsafe { ManuallyDrop::take(item) }
}

impl<T: Send + Sync> Drop for Registration<'_, T> {
    fn drop(&mut self) {
        drop(self.map.remove([take_item(&mut self.item)]));
    }
}

impl<T> RegistrationKey<T> {
    /// The registered range: half-open, absolute addresses.
    ///
    /// Constant time; signal-safe.
    pub fn range(&self) -> CodeRange {
        self.item.range
    }

    /// The value registered with the range.
    ///
    /// Constant time; signal-safe.
    pub fn value(&self) -> &T {
        self.item.value()
    }

    pub(crate) fn item_of(self, map: MapId) -> Result<Item<T>, Self> {
        // An empty range is no entry of any map, and may come from one that has no identity yet.
        if self.map == map || self.item.range.is_empty() { Ok(self.item) } else { Err(self) }
    }
}

impl<'m, T: Send + Sync> Retirement<'m, T> {
    /// Of nothing yet.
    pub(crate) const fn new(map: &'m CodeMap<T>) -> Self {
        Self { map, retired: Retired::nothing() }
    }

    pub(crate) fn retired(&mut self) -> &mut Retired {
        &mut self.retired
    }

    /// Whether no reader can hold the code any more. Then the map has let go of its value: it is
    /// destroyed, unless an owned [`Snapshot`](crate::Snapshot) that shows it keeps it alive. (So does the
    /// vector of an earlier snapshot that is garbage already, until that is freed.)
    ///
    /// Asking again and again gets there once readers have left; it advances the epoch, as
    /// [`CodeMap::reclaim`] does. (In a child of `fork`, [`CodeMap::synchronize`] tells of an exception.)
    ///
    /// **Cost**: a look at 64 cache lines a few times, and O(what is freed). **Progress**: lock-free; needs no
    /// memory. **Panics**: if a value's destructor does. **Signal-safe**: no. A read section of the same map on
    /// this thread keeps the answer at `false`.
    pub fn is_complete(&mut self) -> bool {
        self.map.is_complete(&mut self.retired, false)
    }

    /// Waits until nobody can hold the code any more, and its value is destroyed.
    ///
    /// **Progress**: blocking (it asks, and sleeps in between); needs no memory. **Panics**: if a value's
    /// destructor does. **Signal-safe**: no. Never returns inside a read section of the same map.
    pub fn wait(mut self) {
        self.map.wait_for(&mut self.retired);
    }
}

impl<T: Send + Sync> Drop for Retirement<'_, T> {
    fn drop(&mut self) {
        self.map.index.leave_to_others(&mut self.retired);
    }
}

impl<T: Send + Sync + fmt::Debug> fmt::Debug for Registration<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("range", &self.range())
            .field("value", self.value())
            .finish()
    }
}

impl<T> fmt::Debug for RegistrationKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationKey").field("range", &self.range()).finish_non_exhaustive()
    }
}

impl<T: Send + Sync> fmt::Debug for Retirement<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_complete = self.retired.is_empty();
        f.debug_struct("Retirement").field("is_complete", &is_complete).finish_non_exhaustive()
    }
}
