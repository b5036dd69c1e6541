//! Many threads at once, on one map.

mod tracked;

use pcmap::{CodeMap, Refused};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use std::thread;
use tracked::{Tally, Tracked};

/// The sizes, in one place: miri and unoptimised builds get less.
#[cfg(miri)]
mod size {
    pub(crate) const WRITES: usize = 12;
    pub(crate) const WAITS: usize = 4;
    pub(crate) const TELLINGS: usize = 8;
    pub(crate) const EXITING: usize = 4;
}
#[cfg(all(debug_assertions, not(miri)))]
mod size {
    pub(crate) const WRITES: usize = 6_000;
    pub(crate) const WAITS: usize = 600;
    pub(crate) const TELLINGS: usize = 8_000;
    pub(crate) const EXITING: usize = 200;
}
#[cfg(not(any(debug_assertions, miri)))]
mod size {
    pub(crate) const WRITES: usize = 60_000;
    pub(crate) const WAITS: usize = 3_000;
    pub(crate) const TELLINGS: usize = 80_000;
    pub(crate) const EXITING: usize = 1_000;
}

type Map<'t> = CodeMap<Tracked<'t>>;

/// Each writer has an arena of slots to itself; a slot's range has one of a few lengths.
const ARENA: usize = 1 << 20;
const SLOT: usize = 1 << 10;
const SLOTS: usize = 48;
/// Behind the writers' arenas: what stays registered all the time, with gaps of the same size.
const STEADY: usize = 64 * ARENA;
const STEADY_SLOTS: usize = 64;

/// An identity that says which range it belongs to.
fn id_of(start: usize, len: usize) -> usize {
    start << 12 | len
}

/// A fast and poor source of numbers: what matters is that threads differ.
struct Dice(usize);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % sides
    }

    fn slot(&mut self, arena: usize) -> (usize, usize) {
        (arena * ARENA + self.roll(SLOTS) * SLOT, 1 + self.roll(SLOT))
    }
}

/// Looks up `pc`; whatever is found must belong there. Says whether something was.
fn check_lookup(map: &Map<'_>, pc: usize) -> bool {
    let found = map.lookup(pc, |hit| {
        let range = hit.range();
        assert!(range.contains(pc), "{pc:#x} found in {range}");
        assert_eq!(range.start() + hit.offset(), pc);
        assert_eq!(hit.value().id(), id_of(range.start(), range.len()), "{pc:#x} in {range}");
    });
    found.is_some()
}

fn write_singly<'t>(map: &Map<'t>, tally: &'t Tally, arena: usize, writes: usize) {
    let mut dice = Dice(arena);
    let mut held = Vec::new();
    let mut done = 0;
    while done < writes {
        let (start, len) = dice.slot(arena);
        match map.register(start..start + len, tally.track(id_of(start, len))) {
            Ok(registration) => {
                assert!(check_lookup(map, start + dice.roll(len)), "just registered");
                held.push(registration);
                done += 1;
            }
            Err(error) => {
                assert_eq!(error.value.id(), id_of(start, len));
                let Refused::Overlap { existing, .. } = error.reason else { panic!("{error}") };
                assert_eq!(existing.start(), start, "each slot has one range");
            }
        }
        if held.len() > SLOTS / 2 {
            let gone = held.swap_remove(dice.roll(held.len()));
            let at = gone.range().start();
            match dice.roll(4) {
                0 => drop(gone),
                1 => assert!(map.unregister(gone.into_key()).is_ok()),
                2 => drop(gone.unregister().is_complete()),
                _ => drop(gone.unregister()),
            }
            assert!(!check_lookup(map, at), "just unregistered");
        }
    }
}

fn write_in_batches<'t>(map: &Map<'t>, tally: &'t Tally, arena: usize, batches: usize) {
    let mut dice = Dice(arena);
    for _ in 0..batches {
        let count = 1 + dice.roll(SLOTS);
        let len = 1 + dice.roll(SLOT);
        let slots = (0..count).map(|slot| arena * ARENA + slot * SLOT);
        let items = slots.map(|at| (at..at + len, tally.track(id_of(at, len))));
        let code = map.register_all(items).expect("this thread's own arena");
        let reader = map.enter();
        let seen = (0..SLOTS).filter(|slot| reader.lookup(arena * ARENA + slot * SLOT).is_some());
        assert_eq!(seen.count(), count, "all of a batch");
        drop(reader);
        drop(map.unregister_all(code));
        let reader = map.enter();
        assert!((0..SLOTS).all(|slot| reader.lookup(arena * ARENA + slot * SLOT).is_none()));
    }
}

/// Looks all over the map until told to stop; gives how often it found something.
fn look_around(map: &Map<'_>, seed: usize, stop: &AtomicBool) -> usize {
    let mut dice = Dice(seed);
    let mut hits = 0;
    while !stop.load(Relaxed) {
        for _ in 0..64 {
            let arena = dice.roll(6);
            hits += usize::from(check_lookup(map, arena * ARENA + dice.roll(SLOTS * SLOT)));
            let slot = dice.roll(STEADY_SLOTS);
            let steady = STEADY + 2 * slot * SLOT;
            assert!(check_lookup(map, steady + dice.roll(SLOT)), "always registered");
            assert!(!check_lookup(map, steady + SLOT + dice.roll(SLOT)), "never registered");
        }
    }
    hits
}

/// Stays inside for long, and looks at the same things again and again.
fn linger(map: &Map<'_>, seed: usize, stop: &AtomicBool) -> usize {
    let mut dice = Dice(seed);
    let mut stays = 0;
    while !stop.load(Relaxed) {
        let reader = map.enter();
        let mut hits = Vec::new();
        for _ in 0..32 {
            let (pc, _) = dice.slot(dice.0 % 6);
            hits.extend(reader.lookup(pc).map(|hit| (hit, false)));
        }
        for _ in 0..20 {
            thread::yield_now();
            for (hit, is_gone) in &mut hits {
                let range = hit.range();
                assert_eq!(hit.value().id(), id_of(range.start(), range.len()));
                // Found again, until it is unregistered; then never again.
                let again = reader.lookup(hit.pc()).map(|hit| hit.range());
                assert!(again.is_none_or(|again| again == range && !*is_gone), "{again:?}");
                *is_gone = again.is_none();
            }
        }
        stays += 1;
    }
    stays
}

/// Keeps a few snapshots of different age, and goes through them.
fn keep_snapshots(map: &Map<'_>, stop: &AtomicBool) -> usize {
    let mut kept = std::collections::VecDeque::new();
    let mut taken = 0;
    let mut last = 0;
    while !stop.load(Relaxed) {
        let view = map.snapshot().expect("memory");
        assert!(view.sequence() >= last, "snapshots go forward");
        last = view.sequence();
        kept.push_back((view.len(), view));
        taken += 1;
        for (len, view) in &kept {
            let mut end = 0;
            let mut seen = 0;
            for code in view.iter() {
                let range = code.range();
                assert!(range.start() >= end, "sorted, and no overlap");
                assert_eq!(code.value().id(), id_of(range.start(), range.len()));
                end = range.end();
                seen += 1;
            }
            assert_eq!(seen, *len);
        }
        if kept.len() > 4 {
            kept.pop_front();
        }
        thread::yield_now();
    }
    taken
}

#[test]
fn everything_at_once() {
    let tally = Tally::new();
    let map = Map::new();
    let steady = (0..STEADY_SLOTS).map(|slot| STEADY + 2 * slot * SLOT);
    let steady = steady.map(|at| (at..at + SLOT, tally.track(id_of(at, SLOT))));
    let steady = map.register_all(steady).expect("an empty map");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (map, tally, stop) = (&map, &tally, &stop);
        let readers = [1, 2].map(|seed| scope.spawn(move || look_around(map, seed, stop)));
        let lingering = scope.spawn(move || linger(map, 3, stop));
        let snapshots = scope.spawn(move || keep_snapshots(map, stop));
        let reclaims = scope.spawn(move || {
            let mut calls = 0_usize;
            while !stop.load(Relaxed) {
                let _ = map.reclaim();
                let _ = map.stats();
                calls += 1;
                thread::yield_now();
            }
            calls
        });
        let mut writers = Vec::new();
        for arena in 0..3 {
            let write = move || write_singly(map, tally, arena, size::WRITES);
            writers.push(scope.spawn(write));
        }
        // Two more in the first one's arena: they fight for its slots.
        writers.push(scope.spawn(move || fight_for_slots(map, tally, 3, size::WRITES / 2)));
        writers.push(scope.spawn(move || fight_for_slots(map, tally, 3, size::WRITES / 2)));
        for arena in 4..6 {
            let write = move || write_in_batches(map, tally, arena, size::WRITES / 4);
            writers.push(scope.spawn(write));
        }
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, Relaxed);
        let hits = readers.map(|reader| reader.join().expect("a reader's checks"));
        let stays = lingering.join().expect("a reader's checks");
        let snapshots = snapshots.join().expect("the checks of snapshots");
        let reclaims = reclaims.join().expect("no panic");
        assert!(ended.iter().all(Result::is_ok), "a writer's checks");
        println!("hits {hits:?}, stays {stays}, snapshots {snapshots}, reclaims {reclaims}");
        assert!(hits[0] > 0 && hits[1] > 0);
    });
    println!("{}", map.stats());
    map.synchronize();
    assert_eq!(tally.alive(), STEADY_SLOTS, "values, without another call");
    assert!(map.reclaim().is_empty());
    let stats = map.stats();
    assert_eq!((stats.retired, stats.retired_bytes, stats.eras_held), (0, 0, 0), "{stats}");
    assert_eq!(stats.entries, STEADY_SLOTS);
    assert!(stats.removed <= STEADY_SLOTS / 3, "{stats}");
    assert_eq!(tally.alive(), STEADY_SLOTS);
    drop(steady);
    map.synchronize();
    assert_eq!(tally.alive(), 0);
    println!("{} values dropped, each once; {}", tally.dropped(), map.stats());
}

/// Registers in slots that another thread uses too: refusals name a range that was there.
fn fight_for_slots<'t>(map: &Map<'t>, tally: &'t Tally, arena: usize, writes: usize) {
    let mut dice = Dice(writes);
    let mut held = Vec::new();
    for _ in 0..writes {
        let (start, len) = dice.slot(arena);
        match map.register(start..start + len, tally.track(id_of(start, len))) {
            Ok(registration) => held.push(registration),
            Err(error) => {
                assert_eq!(error.value.id(), id_of(start, len));
                let Refused::Overlap { existing, .. } = error.reason else { panic!("{error}") };
                assert_eq!(existing.start(), start);
            }
        }
        for registration in &held {
            assert!(check_lookup(map, registration.range().start()), "mine, and registered");
        }
        if held.len() > SLOTS / 3 {
            drop(held.swap_remove(dice.roll(held.len())));
        }
    }
}

/// What a thread is told, by a mere number, must be what its next lookup says.
#[test]
fn whoever_is_told_finds_it() {
    const AT: usize = 0x1000;
    let tally = Tally::new();
    let map = Map::new();
    // Odd: registered with this value; even: not registered. Relaxed, as a racy program has it.
    let told = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let look = || {
            let mut checked = [0_usize; 2];
            while !stop.load(Relaxed) {
                let before = told.load(Relaxed);
                let found = map.lookup(AT, |hit| hit.value().id());
                fence(SeqCst);
                // The writer says "even" after unregistering and "odd" after registering; between
                // two equal numbers the state may have moved on by one step, not yet told.
                let after = told.load(Relaxed);
                if before % 2 == 1 && after == before {
                    assert!(found == Some(before) || found.is_none());
                } else if before.is_multiple_of(2) && after == before {
                    assert!(found.is_none() || found == Some(before + 1));
                }
                if let Some(found) = found {
                    assert!(found >= before, "{found} was unregistered when {before} was told");
                }
                checked[before % 2] += 1;
            }
            checked
        };
        let _end = StopAtEnd(&stop);
        let readers = [scope.spawn(look), scope.spawn(look)];
        for telling in 0..size::TELLINGS {
            let id = 2 * telling + 1;
            let code = map.register(AT..AT + 1, tally.track(id)).expect("free");
            told.store(id, Relaxed);
            drop(code);
            told.store(id + 1, Relaxed);
        }
        stop.store(true, Relaxed);
        let checked = readers.map(|reader| reader.join().expect("a reader's checks"));
        println!("lookups after being told (absent, present): {checked:?}");
    });
    map.synchronize();
    assert_eq!(tally.alive(), 0);
}

/// Present for as long as one number is told: a lookup in that time finds it.
#[test]
fn nothing_present_is_ever_missed() {
    let tally = Tally::new();
    let map = Map::new();
    let slots: Vec<_> = (0..SLOTS).map(|slot| (slot * SLOT, AtomicUsize::new(0))).collect();
    let stop = AtomicBool::new(false);
    let misses = thread::scope(|scope| {
        let look = || {
            let mut dice = Dice(7);
            let mut checked = 0_usize;
            while !stop.load(Relaxed) {
                let (at, generation) = &slots[dice.roll(SLOTS)];
                // Odd while registered, set after registering and taken back before unregistering.
                let before = generation.load(SeqCst);
                let found = check_lookup(&map, *at);
                if before % 2 == 1 && generation.load(SeqCst) == before {
                    assert!(found, "{at:#x} is registered");
                    checked += 1;
                }
            }
            checked
        };
        let readers = [scope.spawn(look), scope.spawn(look)];
        let mut writers = Vec::new();
        for half in slots.chunks(SLOTS / 2) {
            let (map, tally) = (&map, &tally);
            writers.push(scope.spawn(move || {
                let mut dice = Dice(half.len());
                for _ in 0..size::WRITES / 4 {
                    let (at, generation) = &half[dice.roll(half.len())];
                    let code = map.register(*at..at + 9, tally.track(id_of(*at, 9))).expect("mine");
                    generation.fetch_add(1, SeqCst);
                    for _ in 0..dice.roll(4) {
                        thread::yield_now();
                    }
                    generation.fetch_add(1, SeqCst);
                    drop(code);
                }
            }));
        }
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        readers.map(|reader| reader.join().expect("a reader's checks"))
    });
    println!("lookups of what was certainly present: {misses:?}");
    map.synchronize();
    assert_eq!(tally.alive(), 0);
}

/// Beside threads that only look, waiting means that the value is gone.
#[test]
fn what_is_waited_for_is_dropped() {
    let tally = Tally::new();
    let stop = AtomicBool::new(false);
    let map = Map::new();
    let (map, stop) = (&map, &stop);
    thread::scope(|scope| {
        let _end = StopAtEnd(stop);
        let looking = [1, 2].map(|_| {
            scope.spawn(move || {
                let mut hits = 0_usize;
                while !stop.load(Relaxed) {
                    let reader = map.enter();
                    if let Some(hit) = reader.lookup(3_usize) {
                        thread::yield_now();
                        assert_eq!(hit.value().id(), id_of(0, 9));
                        hits += 1;
                    }
                }
                hits
            })
        });
        for round in 0..size::WAITS {
            let code = map.register(0..9, tally.track(id_of(0, 9))).expect("mine");
            // Meanwhile others find it, and perhaps stop in the middle of looking.
            thread::yield_now();
            wait_in_turn(map, code, round);
            assert_eq!(tally.alive(), 0, "round {round}");
        }
        stop.store(true, Relaxed);
        let hits = looking.map(|thread| thread.join().expect("a reader's checks"));
        println!("{} waits beside {hits:?} hits", size::WAITS);
    });
}

/// Unregisters and waits, in one of three ways.
fn wait_in_turn<'t>(map: &Map<'t>, code: pcmap::Registration<'_, Tracked<'t>>, round: usize) {
    let mut retirement = code.unregister();
    match round % 3 {
        0 => retirement.wait(),
        1 => {
            drop(retirement);
            map.synchronize();
        }
        _ => {
            while !retirement.is_complete() {
                thread::yield_now();
            }
        }
    }
}

/// Beside threads that write, what was waited for is gone at once. If it was left to others, one of them
/// may be about to let go of it: it is gone when their calls of that moment are over.
#[test]
fn what_is_waited_for_is_dropped_when_calls_under_way_end() {
    let (tally, others) = (Tally::new(), Tally::new());
    let stop = AtomicBool::new(false);
    let map = Map::new();
    let (map, others, stop) = (&map, &others, &stop);
    let writes = [const { AtomicUsize::new(0) }; 3];
    let mut late = 0_usize;
    thread::scope(|scope| {
        let _end = StopAtEnd(stop);
        for (arena, writes) in (1..).zip(&writes) {
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let at = arena * ARENA + writes.load(Relaxed) % SLOTS * SLOT;
                    drop(map.register(at..at + 9, others.track(id_of(at, 9))).expect("mine"));
                    writes.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..size::WAITS {
            let code = map.register(0..9, tally.track(id_of(0, 9))).expect("mine");
            // Meanwhile others write, and perhaps stop in the middle with a table that shows it.
            thread::yield_now();
            wait_in_turn(map, code, round);
            if tally.alive() == 0 {
                continue;
            }
            assert_eq!(round % 3, 1, "in the hands of who waited");
            late += 1;
            // Each writer ends what it was doing (the count may be behind by one).
            let then = writes.each_ref().map(|count| count.load(SeqCst));
            while writes.iter().zip(then).any(|(count, then)| count.load(SeqCst) < then + 2) {
                thread::yield_now();
            }
            assert_eq!(tally.alive(), 0, "round {round}");
        }
    });
    println!("{} waits beside {writes:?} writes; {late} times a moment later", size::WAITS);
}

/// Stops the other threads of a test however it ends, so that a failed check does not hang.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Threads that write once and end leave nothing behind that another cannot destroy.
#[test]
fn threads_that_end_leave_nothing() {
    let tally = Tally::new();
    let map = Map::new();
    for round in 0..size::EXITING {
        thread::scope(|scope| {
            let write = || {
                let at = round * SLOT;
                drop(map.register(at..at + 9, tally.track(id_of(at, 9))).expect("mine"));
            };
            scope.spawn(write).join().expect("no panic");
        });
        assert!(map.reclaim().is_empty(), "round {round}: {}", map.stats());
        assert_eq!(tally.alive(), 0, "round {round}");
    }
    println!("{} threads came and went", size::EXITING);
}

/// The first writes of many threads meet: one of them makes what all of them use.
#[test]
fn the_first_write_is_contended() {
    let tally = Tally::new();
    for _ in 0..size::EXITING {
        let map = Map::new();
        let ready = std::sync::Barrier::new(4);
        thread::scope(|scope| {
            for arena in 0..4 {
                let (map, tally, ready) = (&map, &tally, &ready);
                scope.spawn(move || {
                    ready.wait();
                    let at = arena * ARENA;
                    let code = map.register(at..at + 9, tally.track(id_of(at, 9))).expect("mine");
                    assert!(check_lookup(map, at));
                    code.leak();
                });
            }
        });
        assert_eq!((map.stats().entries, map.stats().publications), (4, 4));
        assert_eq!(map.snapshot().expect("memory").len(), 4);
    }
    assert_eq!(tally.alive(), 0);
}
