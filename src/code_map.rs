//! The map: register, unregister, look up, take out the garbage.

use crate::batch::Batch;
use crate::error::{Refused, RegisterAllError, RegisterError, WrongMap};
use crate::index::address_range::{CodeRange, Pc, RangeError};
use crate::index::entry::Item;
use crate::index::reclamation::Settling;
use crate::index::{Index, MapId, Removal};
use crate::reader::{Hit, Reader};
use crate::registration::{Registration, RegistrationKey, Retirement};
use crate::snapshot::Snapshot;
use crate::stats::{Remaining, Stats};
use crate::sync::{coarse_nanos, const_fn, pause};
use core::fmt;
use core::time::Duration;

/// A concurrent map from address ranges to values, looked up in signal handlers.
///
/// Usable as a `static`, and just as well as a value: maps do not disturb each other, and one that
/// is dropped frees everything at once (but the rest of it, if a value's destructor panics then). A map is a little over 8 KiB (its read counts).
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
    /// **Cost**: O(log n): a copy of one node of each level, 3 to 6 KiB each at most. **Progress**:
    /// lock-free. **Signal-safe**: no (it allocates).
    ///
    /// # Errors
    ///
    /// [`Refused::InvalidRange`], [`Refused::Overlap`] with the range in the way, or
    /// [`Refused::OutOfMemory`]; the value comes back, and nothing has changed.
    ///
    /// # Panics
    ///
    /// None of its own; a value's destructor may, when garbage is taken out (then the new code is
    /// not registered).
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
            Err(value) => return Err(RegisterError { reason: Refused::OutOfMemory, value }),
        };
        self.register_item(item)
            .map_err(|(reason, item)| RegisterError { reason, value: item.take_back() })
    }

    /// Registers an entry that is made already; refused, it comes back.
    pub(crate) fn register_item(
        &self,
        item: Item<T>,
    ) -> Result<Registration<'_, T>, (Refused, Item<T>)> {
        let item = [item];
        // An empty range is no entry, and of no version.
        let empty = item[0].range.is_empty();
        let inserted = if empty { Ok(0) } else { self.index.insert(&item) };
        let [item] = item;
        match inserted {
            Ok(sequence) => {
                let registration = Registration::new(self, item);
                self.tend(sequence);
                Ok(registration)
            }
            Err(refusal) => Err((refusal.into(), item)),
        }
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
    /// they fall to. **Progress**: lock-free. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// As [`CodeMap::register`]; also two ranges of the batch that overlap each other. The values
    /// come back with the rest of the iterator.
    ///
    /// # Panics
    ///
    /// If the iterator does, or a value's destructor when garbage is taken out; then nothing is
    /// registered.
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
            Ok((sequence, mut registrations)) => {
                let items = batch.into_items();
                registrations.extend(items.map(|item| Registration::new(self, item)));
                self.tend(sequence);
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

    /// Unregisters many ranges in one publication.
    ///
    /// Registrations of other maps are unregistered there, one by one.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let code = map.register_all((1..100).map(|i| (i * 64..(i + 1) * 64, i))).unwrap();
    /// map.unregister_all(code).wait();
    /// assert_eq!(map.stats().publications, 2);
    /// assert_eq!(map.stats().entries, 0);
    /// ```
    ///
    /// **Cost**: as [`CodeMap::register_all`]. **Progress**: lock-free. **Errors**:
    /// none: without memory to collect the batch it is taken in parts; without memory for the next
    /// version its ranges become invisible one after another. **Panics**: if the iterator does, or
    /// a value's destructor when garbage is taken out. **Signal-safe**: no.
    pub fn unregister_all<'m, I>(&'m self, registrations: I) -> Retirement<'m, T>
    where
        I: IntoIterator<Item = Registration<'m, T>>,
    {
        /// What was collected; goes even if the iterator panics.
        struct Leaving<'m, T: Send + Sync> {
            map: &'m CodeMap<T>,
            items: Vec<Item<T>>,
            removal: Removal,
        }

        impl<T: Send + Sync> Leaving<'_, T> {
            fn remove(&mut self) {
                let mut items = core::mem::take(&mut self.items);
                self.removal = self.removal.and(self.map.remove_items(&mut items));
            }
        }

        impl<T: Send + Sync> Drop for Leaving<'_, T> {
            fn drop(&mut self) {
                self.remove();
            }
        }

        let mut leaving = Leaving { map: self, items: Vec::new(), removal: Removal::Published(0) };
        for registration in registrations {
            if !core::ptr::eq(registration.map(), self) {
                drop(registration);
            } else if leaving.items.try_reserve(1).is_ok() {
                leaving.items.push(registration.into_item());
            } else {
                leaving.remove();
                let removal = self.remove_items(&mut [registration.into_item()]);
                leaving.removal = leaving.removal.and(removal);
            }
        }
        leaving.remove();
        Retirement::of(self, leaving.removal)
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
    /// table and nine slots: one to three where code is spread evenly. (On machines other than x86-64
    /// a fence, too.)
    /// **Progress**: wait-free, whatever other threads do, wherever they stop. **Errors, panics**:
    /// none but the closure's. **Signal-safe**: yes, on any thread and any stack, also when the
    /// signal interrupted a call on the same map, whatever call that is: no lock, allocation, free,
    /// system call or thread-local, and `errno` is untouched. (The closure has to be, too.)
    #[inline]
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
    /// let view = map.snapshot();
    /// drop(held);
    /// assert_eq!((view.len(), map.snapshot().len()), (1, 0));
    /// ```
    ///
    /// **Cost**: constant, with a reference count. While it is held, each node that is replaced
    /// costs a count per range or node that it shows, once. **Progress**: lock-free. **Errors,
    /// panics**: none (arc-swap aborts without memory for a thread's first use). **Signal-safe**: no.
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot::new(self.index.snapshot())
    }

    /// Destroys what was retired and is held by no reader, without waiting for any; says what is
    /// left.
    ///
    /// Writes do this now and then by themselves. A program that rarely writes calls it when it
    /// has time, on any thread: garbage of every thread is destroyed, also of threads that ended.
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
    /// fork left behind were reading holds back nothing new (see [`CodeMap::synchronize`]). A child
    /// that was forked inside a signal handler returns from that before it starts threads: if the
    /// handler interrupted a call that was taking out garbage, that call has to end first.
    ///
    /// **Cost**: O(what is destroyed), and a look at 64 cache lines a few times. **Progress**:
    /// lock-free. **Errors**: none (where snapshots were taken, arc-swap aborts without memory for a
    /// thread's first use). **Panics**: if a value's destructor does; what else was to be destroyed
    /// is left to the next call. **Signal-safe**: no. While a thread is stopped in the midst of it,
    /// or of a write that takes out garbage, no garbage is taken out. Called from a value's destructor
    /// it leaves what is ready to the call under way.
    pub fn reclaim(&self) -> Remaining {
        self.index.reclaim();
        let backlog = self.index.backlog();
        backlog.map_or_else(Remaining::default, |backlog| Remaining {
            versions: backlog.versions,
            bytes: backlog.bytes,
        })
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
    /// was dropped, unless an owned [`Snapshot`] still shows it (or a thread in the midst of a call
    /// on this map is about to let go of it).
    ///
    /// In a child of `fork`, what readers may hold that entered before the child's first write,
    /// [`CodeMap::reclaim`] or `synchronize` is kept, but not waited for: most of them are threads
    /// that do not exist there, and they cannot be told from those that do. Nor is it waited for
    /// what other threads of the parent were destroying. So a child that goes on
    /// with several threads, or forked inside a section, is to call `reclaim` before it starts
    /// them, and not to wait for what that section holds.
    ///
    /// **Progress**: blocking: it waits for readers to leave and for destructors that run on other
    /// threads (it asks, and sleeps in between). **Errors**: none. **Panics**: if a value's
    /// destructor does. **Signal-safe**: no. Never returns when called inside a read section of
    /// the same map, or in a destructor of one of its values.
    pub fn synchronize(&self) {
        self.wait_for(&mut None);
    }

    /// Figures: entries, publications, garbage and how long it has waited.
    ///
    /// **Cost**: constant; O(n) while code is buried that was unregistered without memory.
    /// **Progress**: lock-free. **Errors, panics**: none.
    /// **Signal-safe**: no.
    pub fn stats(&self) -> Stats {
        let (entries, index_bytes) = self.index.size();
        let figures = Stats {
            entries,
            index_bytes,
            publications: self.index.sequence(),
            epoch: self.index.epoch(),
            ..Stats::default()
        };
        self.index.backlog().map_or(figures, |backlog| Stats {
            retired: backlog.versions,
            retired_bytes: backlog.bytes,
            destroyed: backlog.destroyed,
            oldest_wait: backlog
                .oldest
                .map(|since| Duration::from_nanos(coarse_nanos().saturating_sub(since))),
            ..figures
        })
    }

    pub(crate) fn id(&self) -> MapId {
        self.index.id()
    }

    pub(crate) fn remove(&self, mut item: [Item<T>; 1]) -> Retirement<'_, T> {
        Retirement::of(self, self.remove_items(&mut item))
    }

    /// Takes entries out of the index, those that are in it.
    pub(crate) fn remove_items(&self, items: &mut [Item<T>]) -> Removal {
        // Empty ranges come first, and are no entries.
        items.sort_unstable_by_key(|item| (!item.range.is_empty(), item.range));
        let empty = items.partition_point(|item| item.range.is_empty());
        let removal = match items.get(empty..) {
            Some(items) if !items.is_empty() => self.index.remove(items),
            _ => Removal::Published(0),
        };
        if let Removal::Published(sequence) = removal {
            self.tend(sequence);
        }
        removal
    }

    /// Takes out garbage now and then, after a write whose outcome is in safe hands: a value's
    /// destructor may panic here. Nothing of the kind while a panic is under way already.
    fn tend(&self, sequence: u64) {
        if sequence != 0 && !std::thread::panicking() {
            self.index.tend(sequence);
        }
    }

    /// One step of waiting for a retirement; `None` stands for what is buried and what is retired
    /// now.
    pub(crate) fn has_settled(&self, settling: &mut Option<Settling>) -> bool {
        if settling.is_none() {
            *settling = self.index.tidy().ok().map(Settling::before);
        }
        self.index.reclaim();
        settling.as_mut().is_some_and(|settling| self.index.has_settled(settling))
    }

    pub(crate) fn wait_for(&self, settling: &mut Option<Settling>) {
        const SHORTEST: Duration = Duration::from_micros(20);
        const LONGEST: Duration = Duration::from_millis(2);
        let mut length = SHORTEST;
        while !self.has_settled(settling) {
            pause(length);
            length = (length * 2).min(LONGEST);
        }
    }
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
