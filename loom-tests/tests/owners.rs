#![expect(unsafe_code, reason = "shares a value that loom watches")]
//! Owners of one registration that come and go at once.

use crate::claim::{Claim, Counted, Owners};
use crate::code_map::CodeMap;
use crate::model::{Drops, Value, check, range};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is registered: its life is watched, and its owners are counted.
struct Thing {
    value: Value,
    owners: Owners<Self>,
    alive: std::sync::Arc<AtomicUsize>,
}

impl Drop for Thing {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

// SAFETY: loom runs a model on one thread, and reports what would be a data race.
unsafe impl Send for Thing {}
// SAFETY: as above.
unsafe impl Sync for Thing {}

impl Counted for Thing {
    fn owners(&self) -> &Owners<Self> {
        &self.owners
    }
}

/// The map, as an engine has it.
#[derive(Clone)]
struct Map {
    map: Arc<CodeMap<Thing>>,
    /// How many things there are, registered or not.
    alive: std::sync::Arc<AtomicUsize>,
}

impl AsRef<CodeMap<Thing>> for Map {
    fn as_ref(&self) -> &CodeMap<Thing> {
        &self.map
    }
}

const START: usize = 0x10;

impl Map {
    fn new() -> Self {
        Self { map: Arc::new(CodeMap::new()), alive: std::sync::Arc::default() }
    }

    /// One more owner of the same thing.
    fn join(&self) -> Claim<Thing, Self> {
        let range = range(START);
        let is_same = |thing: &Thing| {
            thing.value.assert_of(range);
            true
        };
        let make = || {
            self.alive.fetch_add(1, Ordering::Relaxed);
            // One that is refused may be dropped while another is: each has a trace of its own.
            let value = Value::of(range, &Drops::new());
            Thing { value, owners: Owners::one(), alive: self.alive.clone() }
        };
        Claim::join(self.clone(), range, is_same, make).expect("memory, and nothing in the way")
    }

    /// How many owners a lookup finds; reads what it found, as long as it may.
    fn owners(&self) -> Option<usize> {
        self.map.lookup(START + 1, |hit| {
            hit.value().value.assert_of(range(START));
            let owners = hit.value().owners.count();
            hit.value().value.assert_of(range(START));
            owners
        })
    }

    /// Nothing is registered, and all that ever was is destroyed, once.
    fn assert_empty(&self) {
        assert_eq!((self.owners(), self.map.stats().entries), (None, 0));
        self.map.synchronize();
        // (What was destroyed may have left its block behind.)
        let _ = self.map.reclaim();
        assert_eq!((self.alive.load(Ordering::Relaxed), self.map.stats().retired), (0, 0));
    }
}

/// Each finds it from when it has joined until it leaves, whatever the other does.
#[test]
pub(crate) fn owners_that_join_and_leave_at_once() {
    check("owners_that_join_and_leave_at_once", Some(2), || {
        let map = Map::new();
        let work = |map: &Map| {
            let claim = map.join();
            let owners = map.owners().expect("who registered it finds it");
            assert!((1..=2).contains(&owners), "{owners} owners of two");
            drop(claim);
        };
        let other = thread::spawn({
            let map = map.clone();
            move || work(&map)
        });
        work(&map);
        other.join().unwrap();
        map.assert_empty();
    });
}

/// The last owner leaves while another joins: it is found as long as that one stays, with one entry
/// or with two, one after the other.
#[test]
pub(crate) fn a_last_owner_against_a_joiner() {
    check("a_last_owner_against_a_joiner", Some(3), || {
        let map = Map::new();
        let first = map.join();
        let joiner = thread::spawn({
            let map = map.clone();
            move || {
                let claim = map.join();
                assert!(map.owners().expect("who joined finds it") >= 1);
                claim
            }
        });
        drop(first);
        let claim = joiner.join().unwrap();
        assert_eq!(map.owners(), Some(1), "the first has left, the second stays");
        drop(claim);
        map.assert_empty();
    });
}

/// A lookup beside the last owner that leaves and one that joins: what it finds is alive as long as it
/// looks at it, whichever entry that is.
#[test]
pub(crate) fn a_lookup_against_owners_that_come_and_go() {
    check("a_lookup_against_owners_that_come_and_go", Some(1), || {
        let map = Map::new();
        let first = map.join();
        let joiner = thread::spawn({
            let map = map.clone();
            move || drop(map.join())
        });
        let reader = thread::spawn({
            let map = map.clone();
            move || {
                let _ = map.owners();
            }
        });
        drop(first);
        joiner.join().unwrap();
        reader.join().unwrap();
        map.assert_empty();
    });
}

/// While one owner stays, lookups find the thing, whatever others do.
#[test]
fn a_lookup_while_one_owner_stays() {
    check("a_lookup_while_one_owner_stays", Some(2), || {
        let map = Map::new();
        let kept = map.join();
        let other = thread::spawn({
            let map = map.clone();
            move || drop(map.join())
        });
        let reader = thread::spawn({
            let map = map.clone();
            move || {
                let owners = map.owners().expect("one owner was there throughout");
                assert!((1..=2).contains(&owners), "{owners} owners of two");
            }
        });
        other.join().unwrap();
        reader.join().unwrap();
        assert_eq!((map.owners(), map.map.stats().publications), (Some(1), 1));
        drop(kept);
        map.assert_empty();
    });
}

/// The last owner stops for good between its two steps, and another thread joins meanwhile.
#[test]
fn a_last_owner_that_stops_between_its_steps() {
    check("a_last_owner_that_stops_between_its_steps", Some(3), || {
        let map = Map::new();
        let stopped = map.join().leave_and_stop().expect("the last owner");
        let joiner = thread::spawn({
            let map = map.clone();
            move || {
                let claim = map.join();
                assert_eq!(map.owners(), Some(1));
                claim
            }
        });
        // It goes on, at any moment, and does the other's no harm.
        drop(map.map.remove([stopped]));
        let claim = joiner.join().unwrap();
        assert_eq!(map.owners(), Some(1));
        drop(claim);
        map.assert_empty();
    });
}
