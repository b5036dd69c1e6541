//! The map: register, unregister, look up, take out the garbage.

use crate::address_range::{CodeRange, Pc, RangeError};
use crate::batch::Batch;
use crate::error::{Refused, RegisterAllError, RegisterError, WrongMap};
use crate::index::entry::Item;
use crate::index::retired::Retired;
use crate::index::slot::Slot;
use crate::index::{Index, MapId};
use crate::memory::OutOfMemory;
use crate::reader::{Hit, Reader};
use crate::registration::{Registration, RegistrationKey, Retirement};
use crate::snapshot::Snapshot;
use crate::stats::{EraStats, Remaining, Stats};
use crate::sync::{coarse_nanos, const_fn, pause};
use core::fmt;
use core::slice;
use core::time::Duration;

/// A concurrent map from address ranges to values, looked up in signal handlers.
///
/// Usable as a `static`, and just as well as a value: maps do not disturb each other, and one that
/// is dropped frees everything at once. A map takes about 19 KiB, most of it
/// read counts. One that is empty, after [`CodeMap::reclaim`], has no
/// other memory, unless several threads stalled at a time: each then costs 8.5 KiB until the map is dropped.
///
/// ```
/// use pcmap::CodeMap;
///
/// static CODE: CodeMap<&str> = CodeMap::new();
///
/// # fn mmap() -> usize { 0x7000_0000 }
/// let text = mmap();
/// let registration = CODE.register(text..text + 0x1000, "module a")?;
/// // In a signal handler, on any thread:
/// let at = CODE.lookup(text + 0x20, |hit| (*hit.value(), hit.offset()));
/// assert_eq!(at, Some(("module a", 0x20)));
/// // Unregister, wait until no handler holds it, and only then unmap.
/// registration.unregister().wait();
/// # Ok::<(), pcmap::RegisterError<&str>>(())
/// ```
pub struct CodeMap<T: Send + Sync> {
    pub(crate) index: Index<T>,
}

impl<T: Send + Sync> CodeMap<T> {
    const_fn! {
        /// An empty map. Constant time, no allocation, no errors, no panics; signal-safe.
        ///
        /// ```
        /// static CODE: pcmap::CodeMap<u32> = pcmap::CodeMap::new();
        /// assert_eq!(CODE.stats().entries, 0);
        /// ```
        pub fn new() -> Self {
            Self { index: Index::new() }
        }
    }

    /// Registers `value` for the addresses of `range`.
    ///
    /// When this returns, every lookup on every thread finds it. The registration unregisters when
    /// dropped. An empty range is accepted and is no entry: no lookup finds it, it overlaps
    /// nothing. Ranges that touch do not overlap.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let low = map.register(0x1000..0x2000, "low").unwrap();
    /// let high = map.register(0x2000..0x3000, "high").unwrap();
    /// assert_eq!(map.lookup(0x1fff, |hit| *hit.value()), Some("low"));
    /// assert_eq!(map.lookup(0x2000, |hit| *hit.value()), Some("high"));
    /// assert_eq!(map.register(0x2fff..0x4000, "over").unwrap_err().value, "over");
    /// assert_eq!(map.register(0x4000..0x3000, "reversed").unwrap_err().value, "reversed");
    /// ```
    ///
    /// **Cost**: O(log n): a copy of one node of each level, 3 to 8 KiB each at most; now and then, of those on
    /// the way to another leaf. **Progress**:
    /// lock-free. **Signal-safe**: no (it allocates).
    ///
    /// # Errors
    ///
    /// [`Refused::InvalidRange`], [`Refused::Overlap`] with the range in the way, or
    /// [`Refused::OutOfMemory`]; the value comes back, and nothing has changed.
    ///
    /// # Panics
    ///
    /// Never: no destructor of a value runs here.
    pub fn register<R>(&self, range: R, value: T) -> Result<Registration<'_, T>, RegisterError<T>>
    where
        R: TryInto<CodeRange>,
        R::Error: Into<RangeError>,
    {
        let range = match range.try_into() {
            Ok(range) => range,
            Err(error) => {
                return Err(RegisterError { reason: Refused::InvalidRange(error.into()), value });
            }
        };
        let item = match Item::try_new(range, value) {
            Ok(item) => item,
            Err((error, value)) => return Err(RegisterError { reason: error.into(), value }),
        };
        self.register_item(item).map_err(|(reason, item)| match item.into_value() {
            Some(value) => RegisterError { reason, value },
            None => unreachable!("what was refused is in no map"),
        })
    }

    /// Registers an entry that is made already; refused, it comes back.
    pub(crate) fn register_item(
        &self,
        item: Item<T>,
    ) -> Result<Registration<'_, T>, (Refused, Item<T>)> {
        // An empty range is no entry, and of no version.
        if !item.range.is_empty() {
            let slot = [Slot::of_item(&item)];
            if let Err(refusal) = self.index.insert(slice::from_ref(&item), &slot) {
                return Err((refusal.into(), item));
            }
        }
        Ok(Registration::new(self, item))
    }

    /// Registers many ranges in one publication: all of them, or none.
    ///
    /// The ranges may come in any order; the registrations come in that order too.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let functions = (0..1000).map(|i| (0x1000 + i * 64..0x1000 + (i + 1) * 64, i));
    /// let registrations = map.register_all(functions).unwrap();
    /// assert_eq!(map.lookup(0x1000 + 64 * 500 + 7, |hit| (*hit.value(), hit.offset())), Some((500, 7)));
    /// assert_eq!(map.stats().publications, 1);
    ///
    /// let error = map.register_all([(0x100..0x200, 1), (0x0..0x101, 2)]).unwrap_err();
    /// assert_eq!(error.values, [1, 2]);
    /// ```
    ///
    /// **Cost**: O(k log k + k log n) for k ranges and n entries, in one pass over the nodes that
    /// they fall to. **Progress**: lock-free; when another write comes first, what was built is kept and the
    /// other change is made to it. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// As [`CodeMap::register`]; also two ranges of the batch that overlap each other. The values
    /// come back with the rest of the iterator.
    ///
    /// # Panics
    ///
    /// If the iterator does; then nothing is registered.
    pub fn register_all<R, I>(
        &self,
        items: I,
    ) -> Result<Vec<Registration<'_, T>>, RegisterAllError<T, I::IntoIter>>
    where
        I: IntoIterator<Item = (R, T)>,
        R: TryInto<CodeRange>,
        R::Error: Into<RangeError>,
    {
        let mut rest = items.into_iter();
        let mut batch = Batch::new();
        match batch.fill(&mut rest).and_then(|()| batch.insert_into(&self.index)) {
            Ok(mut registrations) => {
                let items = batch.into_items();
                registrations.extend(items.map(|item| Registration::new(self, item)));
                Ok(registrations)
            }
            Err(reason) => Err(RegisterAllError { reason, values: batch.into_values(), rest }),
        }
    }

    /// Unregisters what [`Registration::into_key`] took apart; costs and promises what
    /// [`Registration::unregister`] does.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let key = map.register(0x1000..0x2000, "code").unwrap().into_key();
    /// let elsewhere = pcmap::CodeMap::new();
    /// let key = elsewhere.unregister(key).unwrap_err().key;
    /// map.unregister(key).expect("a key of this map").wait();
    /// ```
    ///
    /// # Errors
    ///
    /// [`WrongMap`] with the key, if it is of another map; nothing has changed. (An empty range is
    /// no entry of any map, and its key is good for all.)
    pub fn unregister(&self, key: RegistrationKey<T>) -> Result<Retirement<'_, T>, WrongMap<T>> {
        let item = key.item_of(self.id()).map_err(|key| WrongMap { key })?;
        Ok(self.remove([item]))
    }

    /// Unregisters many ranges, one after another.
    ///
    /// Each disappears for all lookups at once, but not all of them at the same moment: a lookup may find
    /// one when it does not find another any more. (Registering a batch is all or nothing.)
    /// Registrations of other maps are unregistered there.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let code = map.register_all((1..100).map(|i| (i * 64..(i + 1) * 64, i))).unwrap();
    /// map.unregister_all(code).wait();
    /// assert_eq!(map.stats().entries, 0);
    /// ```
    ///
    /// **Cost**: constant for each, as [`Registration::unregister`]. **Progress**: lock-free. **Errors**: none; it
    /// allocates nothing.
    /// **Panics**: if the iterator does, or a value's destructor: now and then values are destroyed that
    /// were unregistered before. **Signal-safe**: no.
    pub fn unregister_all<'m, I>(&'m self, registrations: I) -> Retirement<'m, T>
    where
        I: IntoIterator<Item = Registration<'m, T>>,
    {
        let mut retirement = Retirement::new(self);
        for registration in registrations {
            if core::ptr::eq(registration.map(), self) {
                self.index.remove(registration.into_item(), retirement.retired());
            }
        }
        self.tend();
        retirement
    }

    /// Looks up the code that contains `pc`, and gives what it finds to `found`.
    ///
    /// `None`: no registered range contains `pc`. What the closure is given is alive until it
    /// returns, and can be borrowed no longer. Several lookups that belong together are better
    /// made through [`CodeMap::enter`].
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let _held = map.register(0x1000..0x2000, [7_u8; 3]).unwrap();
    /// assert_eq!(map.lookup(0x1234, |hit| hit.value().len()), Some(3));
    /// assert_eq!(map.lookup(0x2000, |hit| hit.value().len()), None);
    /// ```
    ///
    /// **Cost**: two atomic additions, and in each of 1 + ⌊log₆₄ n⌋ levels at most a byte of a
    /// table and thirteen slots: one or two where code is spread evenly, eight where it is not. (On
    /// machines other than x86-64 a fence, too.)
    /// **Progress**: wait-free, whatever other threads do, wherever they stop. **Errors, panics**:
    /// none but the closure's. **Signal-safe**: yes, on any thread and any stack, also when the
    /// signal interrupted a call on the same map, whatever call that is: no lock, allocation, free,
    /// system call or thread-local, and `errno` is untouched. (The closure has to be, too.)
    #[cfg_attr(debug_assertions, inline)] // as `Reader::lookup`
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn lookup<R>(&self, pc: impl Into<Pc>, found: impl FnOnce(Hit<'_, T>) -> R) -> Option<R> {
        self.enter().lookup(pc).map(found)
    }

    /// Enters a read section for several lookups: a stack walk.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let _held = map.register(0x1000..0x2000, "code").unwrap();
    /// let reader = map.enter();
    /// let names: Vec<_> =
    ///     [0x1004, 0x1f00].iter().filter_map(|&pc| reader.lookup(pc)).map(|hit| *hit.value()).collect();
    /// assert_eq!(names, ["code", "code"]);
    /// ```
    ///
    /// **Cost**: an atomic addition (and a fence, on machines other than x86-64); another addition
    /// when the reader is dropped.
    /// **Progress**: wait-free. **Errors, panics**: none. **Signal-safe**: yes, as
    /// [`CodeMap::lookup`].
    #[inline]
    pub fn enter(&self) -> Reader<'_, T> {
        Reader::new(self.index.enter())
    }

    /// An owned view of the map as it is now.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let held = map.register(0x1000..0x2000, "code").unwrap();
    /// let view = map.snapshot()?;
    /// drop(held);
    /// assert_eq!((view.len(), map.snapshot()?.len()), (1, 0));
    /// # Ok::<(), pcmap::OutOfMemory>(())
    /// ```
    ///
    /// What is unregistered while it is taken may be in it or not, each range on its own.
    ///
    /// **Cost**: O(n) for the first who asks after a change, constant for the next: a copy of all ranges,
    /// with a count for each value. **Progress**: lock-free. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn snapshot(&self) -> Result<Snapshot<T>, OutOfMemory> {
        let view = self.index.view()?;
        let (publications, removals) = match &view {
            Some(view) => view.made_of,
            None => (self.index.sequence(), self.index.removals()),
        };
        Ok(Snapshot::new(view, publications + removals))
    }

    /// Frees what was retired and is held by no reader, without waiting for any; says what is left.
    ///
    /// Registering and unregistering do this now and then by themselves. A program that rarely does
    /// calls it when it has time, on any thread: garbage of every thread is freed, also of threads that
    /// ended. If more than a quarter of all ranges in the index are removed ones, so many are left out first that
    /// no more than a quarter are.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// drop(map.register(0x1000..0x2000, "code").unwrap());
    /// let reader = map.enter();
    /// assert!(!map.reclaim().is_empty());
    /// drop(reader);
    /// assert!(map.reclaim().is_empty());
    /// ```
    ///
    /// A child of `fork` calls this before it starts threads: from then on what threads that the
    /// fork left behind were reading holds back nothing new (see [`CodeMap::synchronize`]).
    ///
    /// **Cost**: O(what is freed), and a look at 64 cache lines a few times. **Progress**: lock-free.
    /// **Errors**: none. **Panics**: if a value's destructor does, when all that are due have run.
    /// **Signal-safe**: no. Called from a value's destructor it leaves other values to the call under way.
    pub fn reclaim(&self) -> Remaining {
        self.index.reclaim();
        let backlog = self.index.backlog();
        Remaining { items: backlog.items, bytes: backlog.bytes }
    }

    /// Waits until everything retired before the call is destroyed.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let value = std::sync::Arc::new("code");
    /// drop(map.register(0x1000..0x2000, value.clone()).unwrap());
    /// map.synchronize();
    /// assert_eq!(std::sync::Arc::strong_count(&value), 1);
    /// ```
    ///
    /// So when it returns no reader holds what was unregistered before, and every value of that
    /// was dropped, unless an owned [`Snapshot`] still shows it, a [`Retirement`] or a thread in the middle of
    /// a call on this map has it in its hands.
    ///
    /// In a child of `fork`, what readers may hold that entered before the child's first write,
    /// [`CodeMap::reclaim`] or `synchronize` is kept, but not waited for: most of them are threads
    /// that do not exist there, and they cannot be told from those that do. So a child that goes on
    /// with several threads, or forked inside a section, is to call `reclaim` before it starts
    /// them, and not to wait for what that section holds.
    ///
    /// **Progress**: blocking: it waits for readers to leave (it asks, and sleeps in between); it needs no
    /// memory. **Errors**: none. **Panics**: if a value's destructor does. **Signal-safe**: no. Never returns
    /// when called inside a read section of the same map.
    pub fn synchronize(&self) {
        self.index.destroy_due();
        // Twice: entries are garbage only when their values are destroyed.
        for _ in 0..2 {
            let mut retirement = Retirement::new(self);
            *retirement.retired() = self.index.adopt();
            retirement.wait();
        }
    }

    /// Figures: entries, publications, garbage and how long it has waited.
    ///
    /// **Cost**: constant; a few loads for each thread that ever stalled. **Progress**: wait-free.
    /// **Errors, panics**: none. **Signal-safe**: no.
    pub fn stats(&self) -> Stats {
        let (entries, removed, index_bytes) = self.index.size();
        let backlog = self.index.backlog();
        let current = self.index.eras.current();
        Stats {
            entries,
            index_bytes,
            removed,
            publications: self.index.sequence(),
            retired: backlog.items,
            retired_bytes: backlog.bytes,
            destroyed: backlog.freed,
            epoch: current.era.epoch(),
            eras: current.number(),
            eras_held: self.index.held().filter(|era| !era.is_current).count(),
            oldest_wait: backlog.oldest.map(age),
        }
    }

    /// The eras that have not drained: the current one, and those that a reader holds who stays inside.
    ///
    /// In no order. See [`Stats`]; `docs/DESIGN.md` tells what an era is.
    ///
    /// ```
    /// let map = pcmap::CodeMap::<u32>::new();
    /// assert_eq!(map.eras().filter(|era| !era.is_current).count(), 0);
    /// ```
    ///
    /// **Cost**: constant a step. **Progress**: wait-free. **Errors, panics**: none. **Signal-safe**: no.
    pub fn eras(&self) -> impl Iterator<Item = EraStats> {
        self.index.held().map(|era| EraStats {
            number: era.number,
            is_current: era.is_current,
            retired: era.items,
            retired_bytes: era.bytes,
            age: (era.began != 0).then(|| age(era.began)),
        })
    }

    pub(crate) fn id(&self) -> MapId {
        self.index.id()
    }

    /// Takes entries out that are in the map; one with an empty range is not.
    pub(crate) fn remove(&self, items: impl IntoIterator<Item = Item<T>>) -> Retirement<'_, T> {
        let mut retirement = Retirement::new(self);
        for item in items {
            self.index.remove(item, retirement.retired());
        }
        self.tend();
        retirement
    }

    /// Frees garbage now and then, and destroys values that are due. Nothing of the kind while a panic is
    /// under way already.
    fn tend(&self) {
        if !std::thread::panicking() {
            self.index.tend(self.index.removals(), false);
            self.index.destroy_due();
        }
    }

    /// One step of waiting for what was retired; the value's destructor runs here, and others.
    pub(crate) fn is_complete(&self, retired: &mut Retired, insists: bool) -> bool {
        let complete = self.index.try_complete(retired, insists);
        self.index.tend(0, false);
        self.index.destroy_due();
        complete
    }

    pub(crate) fn wait_for(&self, retired: &mut Retired) {
        const SHORTEST: Duration = Duration::from_micros(20);
        const LONGEST: Duration = Duration::from_millis(2);
        let mut length = SHORTEST;
        let mut insists = false;
        while !self.is_complete(retired, insists) {
            pause(length);
            length = (length * 2).min(LONGEST);
            insists = true;
        }
    }
}

/// How long ago something was: by nanoseconds of `coarse_nanos`.
fn age(since: u64) -> Duration {
    Duration::from_nanos(coarse_nanos().saturating_sub(since))
}

impl<T: Send + Sync> Default for CodeMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync> fmt::Debug for CodeMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMap").field("stats", &self.stats()).finish()
    }
}
