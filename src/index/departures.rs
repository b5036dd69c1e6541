#![expect(unsafe_code, reason = "follows pointers to what it installed")]
//! From dismantled to destroyed: one process's versions in flight.
//!
//! A child of `fork` must not share these with its parent: what threads that the fork left behind
//! were destroying would be waited for.

use super::shared::Shared;
use super::stack::Stack;
use super::try_box::try_box;
use super::version::{Raw, Version};
use crate::sync::{
    AtomicPtr, AtomicUsize, Liveness, STRETCH, STRETCHES, Statistic, edge, filled, fork_generation,
    unless_destroying,
};
use core::ptr;

/// Which stretches of the ring were seen empty.
pub(crate) type SeenEmpty = [bool; STRETCHES];

/// The versions that one process has in flight.
pub(crate) struct Departures<T> {
    life: Liveness,
    generation: usize,
    /// Out of the chain, dismantled, and no longer looked at by anybody.
    ready: Stack<T>,
    /// Versions taken out of the chain and not destroyed yet.
    in_flight: [AtomicUsize; STRETCHES],
    /// Those of the process this one was forked from, or null.
    previous: *mut Self,
}

/// A version among those in flight; leaves their count when dropped.
struct Flight<'a> {
    in_flight: &'a AtomicUsize,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Ordering [destroyed]: Release; pairs with Acquire in `see_off`.
        //   seen:     the destruction that came before this is complete;
        //   not seen: the count is not zero, and the other thread waits.
        self.in_flight.fetch_sub(1, edge::destroyed());
    }
}

/// What was destroyed, for statistics.
#[derive(Debug)]
pub(crate) struct Destroyed {
    pub(crate) versions: Statistic,
    pub(crate) bytes: Statistic,
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

/// Destroys one version that is dismantled.
///
/// # Safety
///
/// 1. It was put on a stack as such, and taken off it by the caller.
pub(crate) unsafe fn destroy<T>(version: Shared<Version<T>>) {
    // SAFETY: (`Version::release_entries`) 1. by 1.
    unsafe { version.release_entries() };
    drop(version);
}

impl<T> Departures<T> {
    fn new(generation: usize, previous: *mut Self) -> Self {
        Self {
            life: Liveness::new(),
            generation,
            ready: Stack::new(),
            in_flight: filled!(AtomicUsize::new(0); STRETCHES),
            previous,
        }
    }

    fn in_flight_beside(&self, version: &Version<T>) -> &AtomicUsize {
        &self.in_flight[(version.sequence / STRETCH) as usize % STRETCHES]
    }

    /// Counts a version in, before it is taken.
    pub(crate) fn board(&self, version: &Version<T>) {
        // Ordering [in_flight]: Relaxed; [took], which follows, makes it visible.
        self.in_flight_beside(version).fetch_add(1, edge::in_flight());
    }

    /// Counts a version out that is not destroyed here.
    pub(crate) fn leave(&self, version: &Version<T>) {
        drop(Flight { in_flight: self.in_flight_beside(version) });
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

    /// Puts a version among those to be destroyed.
    ///
    /// # Safety
    ///
    /// 1. It is dismantled and counted in, no reader can hold it, and the chain's count of it is the
    ///    caller's to give away.
    pub(crate) unsafe fn make_ready(&self, raw: Raw<T>) {
        // SAFETY: (`Stack::push`) 1. by 1.
        unsafe { self.ready.push(raw) };
    }

    /// Destroys what is ready.
    ///
    /// Values' destructors run here. If one panics, the rest is ready for the next call. If one
    /// calls back, that call leaves what is ready to this one: no recursion.
    pub(crate) fn destroy_ready(&self, destroyed: &Destroyed) {
        if self.ready.top().is_null() {
            return;
        }
        unless_destroying(ptr::from_ref(self).addr(), || {
            let mut ready = Ready { stack: &self.ready, rest: self.ready.take_all() };
            while let Some(version) = ready.next() {
                // Counts itself out last, and also when a destructor panics.
                let _flight = Flight { in_flight: self.in_flight_beside(&version) };
                destroyed.versions.fetch_add(1, edge::statistic());
                destroyed
                    .bytes
                    .fetch_add(version.weight.load(edge::statistic()), edge::statistic());
                // SAFETY: (`destroy`) 1. off the stack of ready ones.
                unsafe { destroy(version) };
            }
        });
    }
}

/// The departures of this process and of those it was forked from.
pub(crate) struct ProcessDepartures<T> {
    /// The newest, or null before the first call.
    newest: AtomicPtr<Departures<T>>,
}

impl<T> ProcessDepartures<T> {
    pub(crate) fn new() -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's, made on first use: installed with one exchange, so that nobody waits for a
    /// thread that stops while it makes it. `None`: there is no memory.
    pub(crate) fn current(&self) -> Option<&Departures<T>> {
        loop {
            // Ordering [installed]: Acquire; pairs with Release in the exchange below.
            //   seen: it is whole.
            let newest = self.newest.load(edge::installed());
            // Behind that: if a handler forks in between, the exchange fails, or this is the child's.
            let generation = fork_generation();
            // SAFETY: null or from `Box::into_raw` below; freed by `drop` only.
            if let Some(departures) = unsafe { newest.as_ref() } {
                departures.life.read();
                if departures.generation == generation {
                    return Some(departures);
                }
            }
            let made = Box::into_raw(try_box(Departures::new(generation, newest)).ok()?);
            // Ordering [install]: Release; pairs with Acquire above.
            //   failed: another thread installed one; this one goes.
            let installed =
                self.newest.compare_exchange(newest, made, edge::install(), edge::lost());
            if installed.is_err() {
                // SAFETY: from `Box::into_raw` above, and handed to nobody.
                drop(unsafe { Box::from_raw(made) });
            }
        }
    }

    /// Destroys what the processes that this one was forked from had ready.
    pub(crate) fn help_parents(&self, departures: &Departures<T>, destroyed: &Destroyed) {
        let mut parent = departures.previous;
        // SAFETY: null or from `Box::into_raw` in `current`; freed by `drop` only.
        while let Some(departures) = unsafe { parent.as_ref() } {
            departures.destroy_ready(destroyed);
            parent = departures.previous;
        }
    }

    /// Destroys what is in flight, through shared access.
    ///
    /// # Safety
    ///
    /// 1. No other call on the map is under way.
    pub(crate) unsafe fn finish(&self) {
        let mut departures = self.newest.load(edge::installed());
        // SAFETY: null or from `Box::into_raw` in `current`; freed by `drop` only.
        while let Some(this) = unsafe { departures.as_ref() } {
            // SAFETY: (`destroy_all`) 1. what is on the stack of ready ones.
            unsafe { destroy_all(&this.ready) };
            departures = this.previous;
        }
    }
}

/// Destroys the versions on a stack, which nobody else looks at any more.
///
/// # Safety
///
/// 1. All of them are dismantled.
pub(crate) unsafe fn destroy_all<T>(stack: &Stack<T>) {
    let mut all = Ready { stack, rest: stack.take_all() };
    while let Some(version) = all.next() {
        // SAFETY: (`destroy`) 1. by 1.
        unsafe { destroy(version) };
    }
}

impl<T> Drop for ProcessDepartures<T> {
    /// Frees them; `finish` has emptied them.
    fn drop(&mut self) {
        let mut departures = self.newest.load(edge::installed());
        while !departures.is_null() {
            // SAFETY: from `Box::into_raw` in `current`, freed here only.
            let freed = unsafe { Box::from_raw(departures) };
            departures = freed.previous;
        }
    }
}
