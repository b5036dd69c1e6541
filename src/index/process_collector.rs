#![expect(unsafe_code, reason = "defers closures, and follows pointers to the collectors")]
//! From taken to destroyed: one process's collector, and the versions in flight through it.
//!
//! A child of `fork` must not share these with its parent: participants of threads that the fork
//! left behind would stop the collector, and what those threads were destroying would be waited
//! for.

use super::shared::Shared;
use super::stack::Stack;
use super::version::{Raw, Version};
use crate::sync::{
    AtomicPtr, AtomicUsize, Collector, Guard, Liveness, STRETCH, STRETCHES, Statistic, edge,
    filled, fork_generation, unless_destroying,
};
use core::mem::ManuallyDrop;
use core::ptr;

/// Which stretches of the ring were seen empty.
pub(crate) type SeenEmpty = [bool; STRETCHES];

/// How often a child tries to carry on with its parent's collector, and with how many flushes:
/// crossbeam's epoch must advance twice before it runs what was deferred.
const HELP: u64 = 8;
const ADVANCES: usize = 3;

/// The collector of one process.
pub(crate) struct ProcessCollector<T> {
    life: Liveness,
    pub(crate) generation: usize,
    /// Taken out by `ProcessCollectors::finish`.
    pub(crate) collector: ManuallyDrop<Collector>,
    /// Taken out of the chain, and no longer looked at by anybody.
    ready: Stack<T>,
    /// Versions taken out of the chain and not destroyed yet.
    in_flight: [AtomicUsize; STRETCHES],
    /// The same in all, for statistics; their bytes; and when the first of them was displaced,
    /// roughly.
    pub(crate) flying: Statistic,
    pub(crate) flying_bytes: Statistic,
    pub(crate) flying_since: Statistic,
    /// How often a child has tried to carry on with it.
    helped: Statistic,
    /// That of the process this one was forked from, or null.
    previous: *mut ProcessCollector<T>,
}

/// A version among those in flight; leaves their count when dropped.
pub(crate) struct Flight<'a, T> {
    process: &'a ProcessCollector<T>,
    stretch: usize,
    bytes: u64,
}

impl<T> Drop for Flight<'_, T> {
    fn drop(&mut self) {
        self.process.flying.fetch_sub(1, edge::statistic());
        self.process.flying_bytes.fetch_sub(self.bytes, edge::statistic());
        // Ordering [destroyed]: Release; pairs with Acquire in `see_off`.
        //   seen:     the destruction that came before this is complete;
        //   not seen: the count is not zero, and the other thread waits.
        self.process.in_flight[self.stretch].fetch_sub(1, edge::destroyed());
    }
}

/// What was taken off the stack of ready versions; what is left of it goes back.
struct Ready<'a, T> {
    stack: &'a Stack<T>,
    rest: Raw<T>,
}

impl<T> Ready<'_, T> {
    fn next(&mut self) -> Option<Shared<Version<T>>> {
        // SAFETY: (`Stack::unlink`) 1. taken off the stack by this alone; each rest is used once.
        let (version, rest) = unsafe { Stack::unlink(self.rest) }?;
        self.rest = rest;
        Some(version)
    }
}

impl<T> Drop for Ready<'_, T> {
    fn drop(&mut self) {
        while let Some(version) = self.next() {
            // SAFETY: (`Stack::push`) 1. the count comes from `into_raw`.
            unsafe { self.stack.push(version.into_raw()) };
        }
    }
}

impl<T> ProcessCollector<T> {
    fn new(generation: usize, previous: *mut Self) -> Self {
        Self {
            life: Liveness::new(),
            generation,
            collector: ManuallyDrop::new(Collector::new()),
            ready: Stack::new(),
            in_flight: filled!(AtomicUsize::new(0); STRETCHES),
            flying: Statistic::new(0),
            flying_bytes: Statistic::new(0),
            flying_since: Statistic::new(0),
            helped: Statistic::new(0),
            previous,
        }
    }

    /// Counts a version in, before it is taken.
    pub(crate) fn board(&self, version: &Version<T>) -> Flight<'_, T> {
        if !self.is_flying() {
            self.flying_since.store(version.displaced_at().unwrap_or(0), edge::statistic());
        }
        let flight = self.flight_of(version);
        self.flying.fetch_add(1, edge::statistic());
        self.flying_bytes.fetch_add(flight.bytes, edge::statistic());
        // Ordering [in_flight]: Relaxed; [took], which follows, makes it visible.
        self.in_flight[flight.stretch].fetch_add(1, edge::in_flight());
        flight
    }

    /// The flight of a version that was counted in.
    fn flight_of(&self, version: &Version<T>) -> Flight<'_, T> {
        Flight {
            process: self,
            stretch: (version.sequence / STRETCH) as usize % STRETCHES,
            bytes: version.weight.load(edge::statistic()),
        }
    }

    /// Whether any version is in flight, as far as statistics know.
    pub(crate) fn is_flying(&self) -> bool {
        self.flying.load(edge::statistic()) != 0
    }

    /// Notes which stretches are empty; says whether each was at some time since `seen` was new.
    ///
    /// Versions that left the chain later may be in flight too, so each stretch is waited for only
    /// until it was seen empty once: what left before was not in it then.
    pub(crate) fn see_off(&self, seen: &mut SeenEmpty) -> bool {
        for (seen, in_flight) in seen.iter_mut().zip(&self.in_flight) {
            // Ordering [settled]: Acquire; pairs with Release in `Flight::drop`.
            //   seen: the destruction of every version that was in the stretch is complete.
            *seen |= in_flight.load(edge::settled()) == 0;
        }
        seen.iter().all(|&seen| seen)
    }

    /// Has crossbeam-epoch declare a version ready when no guard that may look at it is left.
    ///
    /// # Safety
    ///
    /// 1. The version was taken out of the chain (or off the stack of those set aside) by the
    ///    caller, with its count, and `flight` is its own.
    /// 2. No reader can hold it.
    /// 3. `guard` is one of this collector's.
    pub(crate) unsafe fn defer(&self, raw: Raw<T>, flight: Flight<'_, T>, guard: &Guard) {
        // It stays in flight until `destroy_ready` has destroyed it.
        let _ = ManuallyDrop::new(flight);
        let declare_ready = move || {
            // SAFETY: (`Stack::push`) 1. its count, by 1. of `defer`.
            unsafe { self.ready.push(raw) };
        };
        // SAFETY: the closure borrows `self`. It runs in a call on this map, which borrows that
        // too, or in `finish`: no participant outlives the call that registered it, so nothing
        // else runs closures. It may run on another thread: it only links one version.
        unsafe { guard.defer_unchecked(declare_ready) };
    }

    /// Destroys what is ready; says whether there was anything. Adds to `destroyed`.
    ///
    /// Values' destructors run here. If one panics, the rest is ready for the next call. If one
    /// calls back, that call leaves what is ready to this one: no recursion.
    pub(crate) fn destroy_ready(&self, destroyed: &Statistic) -> bool {
        if self.ready.top().is_null() {
            return false;
        }
        let destroy_all = || {
            let mut ready = Ready { stack: &self.ready, rest: self.ready.take_all() };
            while let Some(version) = ready.next() {
                // Counts itself out last, and also when a destructor panics.
                let _flight = self.flight_of(&version);
                destroyed.fetch_add(1, edge::statistic());
                drop(version);
            }
        };
        unless_destroying(ptr::from_ref(self).addr(), destroy_all).is_some()
    }
}

/// The collectors of this process and of those it was forked from.
pub(crate) struct ProcessCollectors<T> {
    /// The newest, or null before the first call.
    newest: AtomicPtr<ProcessCollector<T>>,
}

impl<T> ProcessCollectors<T> {
    pub(crate) fn new() -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's, made on first use: installed with one exchange, so that nobody waits for a
    /// thread that stops while it makes it.
    pub(crate) fn current(&self) -> &ProcessCollector<T> {
        let generation = fork_generation();
        loop {
            // Ordering [installed]: Acquire; pairs with Release in the exchange below.
            //   seen: it is whole.
            let newest = self.newest.load(edge::installed());
            // SAFETY: null or from `Box::into_raw` below; freed by `drop` only.
            if let Some(process) = unsafe { newest.as_ref() } {
                process.life.read();
                if process.generation == generation {
                    return process;
                }
            }
            let made = Box::into_raw(Box::new(ProcessCollector::new(generation, newest)));
            // Ordering [install]: Release; pairs with Acquire above.
            //   failed: another thread installed one; this one goes.
            let installed =
                self.newest.compare_exchange(newest, made, edge::install(), edge::lost());
            if installed.is_err() {
                // SAFETY: from `Box::into_raw` above, and handed to nobody.
                let mut made = unsafe { Box::from_raw(made) };
                // SAFETY: taken out once: the box goes at the end of this block.
                unsafe { ManuallyDrop::drop(&mut made.collector) };
            }
        }
    }

    /// Lets the collectors of the processes this one was forked from carry on, if the threads they
    /// wait for are not among those that the fork left behind. Tried a few times: a collector that
    /// waits for such a thread only grows.
    pub(crate) fn help_parents(&self, process: &ProcessCollector<T>, destroyed: &Statistic) {
        let mut parent = process.previous;
        // SAFETY: null or from `Box::into_raw` in `current`; freed by `drop` only.
        while let Some(process) = unsafe { parent.as_ref() } {
            if process.is_flying() && process.helped.fetch_add(1, edge::statistic()) < HELP {
                let participant = process.collector.register();
                (0..ADVANCES).for_each(|_| participant.pin().flush());
                process.destroy_ready(destroyed);
            }
            parent = process.previous;
        }
    }

    /// Destroys what is in flight, through shared access: what collectors carry points here.
    ///
    /// # Safety
    ///
    /// 1. It is called once, and nothing is called after it but `drop`.
    /// 2. No other call on the map is under way.
    pub(crate) unsafe fn finish(&self) {
        let mut process = self.newest.load(edge::installed());
        // SAFETY: null or from `Box::into_raw` in `current`; freed by `drop` only.
        while let Some(this) = unsafe { process.as_ref() } {
            // SAFETY: by 1. it is taken out once. By 2. no participant is left (but for those of
            // threads that a fork left behind, which keep it), so dropping it runs what it carries.
            drop(ManuallyDrop::into_inner(unsafe { ptr::read(&this.collector) }));
            this.ready.clear();
            process = this.previous;
        }
    }
}

impl<T> Drop for ProcessCollectors<T> {
    /// Frees them; `finish` has emptied them.
    fn drop(&mut self) {
        let mut process = self.newest.load(edge::installed());
        while !process.is_null() {
            // SAFETY: from `Box::into_raw` in `current`, freed here only.
            let freed = unsafe { Box::from_raw(process) };
            process = freed.previous;
        }
    }
}
