//! The public API, promise by promise.

use crate::tracked::{Tally, Tracked};
use pcmap::{
    CodeMap, CodeRange, Hit, Neighbours, Pc, RangeError, Refused, RegisterAllError, RegisterError,
    Registered, Registration, RegistrationKey, Remaining, Retirement, Snapshot, WrongMap,
};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

/// Whether nothing was ever written to a map, by its figures. (The epoch may have advanced.)
fn is_unused<T: Send + Sync>(map: &CodeMap<T>) -> bool {
    let mut stats = map.stats();
    stats.epoch = 0;
    stats == CodeMap::<u32>::new().stats()
}

fn range(start: usize, end: usize) -> CodeRange {
    CodeRange::try_from(start..end).expect("in order")
}

/// Reclaims until nothing is left, but not for ever: a lost version should fail a test, not hang it.
fn reclaim_all<T: Send + Sync>(map: &CodeMap<T>) -> Remaining {
    for _ in 0..100 {
        if map.reclaim().is_empty() {
            break;
        }
    }
    map.reclaim()
}

#[test]
fn leaked_code_stays_until_the_map_goes() {
    let tally = Tally::new();
    let map = CodeMap::new();
    map.register(10..20, tally.track(1)).expect("free").leak();
    map.register(20..20, tally.track(2)).expect("empty").leak();
    assert_eq!(tally.dropped(), 1, "the empty one is no entry, so nothing keeps its value");
    map.synchronize();
    assert_eq!(map.lookup(15_usize, |hit| hit.value().id()), Some(1));
    let error = map.register(10..11, tally.track(3)).expect_err("it is still there");
    assert_eq!(
        error.reason,
        Refused::Overlap { requested: range(10, 11), existing: range(10, 20) }
    );
    drop(error);
    assert_eq!(tally.alive(), 1);
    drop(map);
    assert_eq!(tally.alive(), 0);
}

#[test]
fn keys_fit_their_map_only() {
    let tally = Tally::new();
    let (map, other) = (CodeMap::new(), CodeMap::new());
    let key = map.register(10..20, tally.track(1)).expect("free").into_key();
    assert_eq!((key.range(), key.value().id()), (range(10, 20), 1));

    // A map that was never written to, then one that was.
    let WrongMap { key, .. } = other.unregister(key).expect_err("never written to");
    let _held = other.register(10..20, tally.track(2)).expect("free");
    let wrong = other.unregister(key).expect_err("another map's");
    assert_eq!(wrong.to_string(), "the key of 0xa..0x14 belongs to another map");
    assert!(format!("{wrong:?}").contains("0xa..0x14"));
    assert_eq!(other.stats().publications, 1);
    assert!(other.lookup(10_usize, |_| ()).is_some() && map.lookup(10_usize, |_| ()).is_some());

    // The map may move meanwhile: the key borrows nothing.
    let map = Box::new(map);
    map.unregister(wrong.key).expect("its own map").wait();
    assert!(map.lookup(10_usize, |_| ()).is_none());
    assert_eq!(tally.dropped(), 1);
}

#[test]
fn a_dropped_key_leaves_the_code_registered() {
    let tally = Tally::new();
    let map = CodeMap::new();
    drop(map.register(10..20, tally.track(1)).expect("free").into_key());
    map.synchronize();
    assert_eq!(map.lookup(10_usize, |hit| hit.value().id()), Some(1));
    drop(map);
    assert_eq!(tally.alive(), 0);
}

#[test]
fn a_key_may_outlive_its_map() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let key = map.register(10..20, tally.track(1)).expect("free").into_key();
    drop(map);
    assert_eq!((tally.alive(), key.value().id()), (1, 1));
    // A map at the same place is another map all the same.
    let map = CodeMap::new();
    let _held = map.register(10..20, tally.track(2)).expect("free");
    let wrong = map.unregister(key).expect_err("of a map that is gone");
    drop(wrong);
    assert_eq!(tally.dropped(), 1);
}

#[test]
fn empty_ranges_are_no_entries() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let first = map.register(0..0, tally.track(0)).expect("an empty range");
    assert!(is_unused(&map), "an empty range publishes nothing");
    assert!(first.range().is_empty());
    first.unregister().wait();
    assert_eq!(tally.dropped(), 1);

    let _code = map.register(10..20, tally.track(1)).expect("free");
    // The same one several times, inside, at the bounds of, and outside of what is registered.
    let mut empties = Vec::new();
    for at in [10, 15, 15, 15, 20, 5, usize::MAX] {
        empties.push(map.register(at..at, tally.track(at)).expect("an empty range"));
    }
    let batch = [(15..15, tally.track(2)), (30..40, tally.track(3)), (30..30, tally.track(4))];
    let batch = map.register_all(batch).expect("no conflict");
    assert_eq!((map.stats().publications, map.stats().entries), (2, 2));
    for pc in 0..50_usize {
        let expected = match pc {
            10..20 => Some(1),
            30..40 => Some(3),
            _ => None,
        };
        assert_eq!(map.lookup(pc, |hit| hit.value().id()), expected);
    }
    assert_eq!(map.snapshot().expect("memory").range(range(15, 15)).count(), 0);
    empties.pop().expect("one").unregister().wait();
    map.unregister(empties.pop().expect("one").into_key()).expect("this map").wait();
    map.unregister_all(empties).wait();
    assert_eq!(map.stats().publications, 2);
    map.unregister_all(batch).wait();
    assert_eq!((map.stats().publications, map.stats().entries), (2, 1), "none to remove it");
    assert_eq!(map.stats().removed, 1, "the empty ones leave nothing behind");
    assert_eq!(tally.alive(), 1);
}

#[test]
fn batches_with_nothing_to_publish() {
    let map = CodeMap::<u32>::new();
    assert!(map.register_all(Vec::<(std::ops::Range<usize>, u32)>::new()).expect("").is_empty());
    assert_eq!(map.register_all([(1..1, 1), (1..1, 2)]).expect("empty ranges").len(), 2);
    map.unregister_all([]).wait();
    assert!(is_unused(&map));
}

#[test]
fn a_refused_batch_gives_everything_back_in_order() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let _code = map.register(100..200, tally.track(0)).expect("free");
    let before = map.stats();
    let ids = |values: &[Tracked<'_>]| values.iter().map(Tracked::id).collect::<Vec<_>>();
    let items = |ranges: [(usize, usize); 5]| {
        let tally = &tally;
        ranges.into_iter().zip(1..).map(move |((start, end), id)| (start..end, tally.track(id)))
    };

    // Out of order, with the one in conflict in the middle.
    let batch = items([(300, 310), (0, 10), (150, 160), (20, 30), (210, 220)]);
    let error = map.register_all(batch).expect_err("150..160 is taken");
    assert_eq!(
        error.reason,
        Refused::Overlap { requested: range(150, 160), existing: range(100, 200) }
    );
    assert_eq!((ids(&error.values), error.rest.count()), (vec![1, 2, 3, 4, 5], 0));
    drop(error.values);

    // The same range twice; one inside another.
    let batch = items([(300, 310), (0, 10), (20, 20), (300, 310), (20, 20)]);
    let error = map.register_all(batch).expect_err("twice the same");
    assert_eq!(
        error.reason,
        Refused::Overlap { requested: range(300, 310), existing: range(300, 310) }
    );
    assert_eq!(ids(&error.values), [1, 2, 3, 4, 5]);
    drop(error.values);
    let batch = items([(300, 301), (0, 90), (400, 401), (50, 60), (500, 501)]);
    let error = map.register_all(batch).expect_err("nested");
    let Refused::Overlap { requested, existing } = error.reason else { panic!("{error}") };
    let mut named = [requested, existing];
    named.sort();
    assert_eq!(named, [range(0, 90), range(50, 60)]);
    drop(error);

    // An invalid one in the middle: what follows was never asked for.
    let batch = items([(300, 310), (0, 10), (9, 8), (20, 30), (20, 30)]);
    let error = map.register_all(batch).expect_err("9..8 is no range");
    assert_eq!(error.reason, Refused::InvalidRange(RangeError::Reversed { start: 9, end: 8 }));
    assert_eq!(ids(&error.values), [1, 2, 3]);
    let rest: Vec<_> = error.rest.map(|(range, value)| (range, value.id())).collect();
    assert_eq!(rest, [(20..30, 4), (20..30, 5)]);

    let after = map.stats();
    assert_eq!(
        after.to_string().split(" oldest").next(),
        before.to_string().split(" oldest").next()
    );
    drop(error.values);
    assert_eq!(tally.alive(), 1);
}

#[test]
fn an_iterator_that_panics_changes_nothing() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let items = (0..10).map(|i| {
        assert!(i != 7, "the iterator's own business");
        (i * 10..i * 10 + 5, tally.track(i))
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| map.register_all(items).map(drop)));
    assert!(outcome.is_err());
    assert_eq!((is_unused(&map), tally.alive()), (true, 0));

    let mut held =
        map.register_all((0..5).map(|i| (i * 10..i * 10 + 5, tally.track(i)))).expect("");
    let mut left = 3;
    let some = std::iter::from_fn(|| {
        left -= 1;
        assert!(left != 0, "the iterator's own business");
        held.pop()
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| drop(map.unregister_all(some))));
    assert!(outcome.is_err());
    // What had not been taken from the iterator is registered; what had been is not, and its values
    // wait for others to destroy them.
    assert_eq!(held.len(), 3);
    assert_eq!(map.stats().entries, 3);
    assert!([30, 40_usize].iter().all(|&pc| map.lookup(pc, |_| ()).is_none()));
    map.synchronize();
    assert_eq!(tally.alive(), 3);
    for registration in &held {
        assert!(map.lookup(registration.range().start(), |_| ()).is_some());
    }
    drop(held);
    drop(map);
    assert_eq!(tally.alive(), 0);
}

#[test]
fn unregistering_code_of_several_maps_at_once() {
    let tally = Tally::new();
    let (here, there) = (CodeMap::new(), CodeMap::new());
    let mut all = Vec::new();
    for i in 0..6 {
        let map = if i % 2 == 0 { &here } else { &there };
        all.push(map.register(i * 10..i * 10 + 10, tally.track(i)).expect("free"));
    }
    here.unregister_all(all).wait();
    assert_eq!((here.stats().entries, here.stats().publications), (0, 3));
    assert_eq!((there.stats().entries, there.stats().publications), (0, 3));
    there.synchronize();
    assert_eq!(tally.alive(), 0);
}

#[test]
fn a_retirement_is_complete_when_readers_have_left() {
    let (tally, others) = (Tally::new(), Tally::new());
    let map = CodeMap::new();
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let code = map.register(10..20, tally.track(1)).expect("free");
    std::thread::scope(|scope| {
        // Goes when a check fails, so that the reader does not wait for ever.
        let (map, go) = (&map, go);
        scope.spawn(move || {
            let reader = map.enter();
            let hit = reader.lookup(10_usize).expect("registered");
            inside.send(()).expect("the other end waits");
            may_go.recv().expect("the other end says when");
            assert_eq!(hit.value().id(), 1, "alive as long as the reader is inside");
            assert!(reader.lookup(10_usize).is_none(), "unregistered since");
            drop(reader);
            inside.send(()).expect("the other end waits");
        });
        is_inside.recv().expect("the reader enters");
        let mut retirement = code.unregister();
        assert!(map.lookup(10_usize, |_| ()).is_none(), "not for new readers");
        for _ in 0..50 {
            assert!(!retirement.is_complete(), "a reader holds it");
        }
        assert_eq!(tally.dropped(), 0);
        let stats = map.stats();
        assert_eq!((stats.retired, stats.retired_bytes), (1, 0), "a value, and no memory");
        assert_eq!((stats.publications, stats.entries, stats.removed), (1, 0, 1));
        // Registration and lookup go on, far beyond the writes that take out garbage.
        for i in 0..100 {
            drop(map.register(30..40, others.track(i)).expect("free"));
            assert!(!retirement.is_complete(), "a reader holds it");
        }
        assert!((101..=102).contains(&map.stats().publications), "and perhaps one that compacts");
        let _ = map.reclaim();
        assert_eq!(tally.dropped(), 0, "it is in the retirement's hands");
        go.send(()).expect("the reader waits");
        is_inside.recv().expect("the reader leaves");
        let _ = map.reclaim();
        assert_eq!(tally.dropped(), 0, "it is in the retirement's hands");
        assert!(retirement.is_complete());
        assert_eq!(tally.dropped(), 1, "destroyed by the call that said so");
        assert!(retirement.is_complete(), "and it stays so");
        retirement.wait();
        map.synchronize();
        assert_eq!(others.alive(), 0);
    });
    assert!(reclaim_all(&map).is_empty());
    assert_eq!((map.stats().retired, map.stats().retired_bytes), (0, 0));
}

thread_local! {
    /// How many values were destroyed on this thread.
    static DESTROYED_HERE: Cell<usize> = const { Cell::new(0) };
}

/// A value that tells on which thread it is destroyed.
struct Telling;

impl Drop for Telling {
    fn drop(&mut self) {
        DESTROYED_HERE.set(DESTROYED_HERE.get() + 1);
    }
}

fn destroyed_here(call: impl FnOnce()) -> usize {
    let before = DESTROYED_HERE.get();
    call();
    DESTROYED_HERE.get() - before
}

/// Whoever waits destroys the value; whoever does not leaves it to others, but never to a registration.
#[test]
fn who_destroys_a_value() {
    let map = CodeMap::new();
    let register = |i: usize| map.register(i * 10..i * 10 + 10, Telling).expect("free");
    let many = |from: usize| (from..from + 10).map(register).collect::<Vec<_>>();

    assert_eq!(destroyed_here(|| register(1).unregister().wait()), 1);
    assert_eq!(destroyed_here(|| map.unregister_all(many(1)).wait()), 10);
    let asks = destroyed_here(|| {
        let mut retirement = register(1).unregister();
        assert!(retirement.is_complete(), "no reader is inside");
        drop(retirement);
    });
    assert_eq!(asks, 1);
    // Other threads write and reclaim meanwhile: it stays in the hands of whoever has the retirement.
    let retirement = register(1).unregister();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            destroyed_here(|| {
                for i in 100..120 {
                    register(i).leak();
                }
                map.synchronize();
                let _ = map.reclaim();
            })
        });
        assert_eq!(others.join().expect("no panic"), 0);
    });
    assert_eq!(destroyed_here(|| retirement.wait()), 1);

    // Left to others: to this very thread's later calls, if need be.
    for (name, own, call) in [
        ("reclaim", 0, &(|| assert!(reclaim_all(&map).is_empty())) as &dyn Fn()),
        ("synchronize", 0, &|| map.synchronize()),
        ("wait", 40, &|| (0..40).for_each(|_| register(1).unregister().wait())),
        ("unregister", 20, &|| (0..60).for_each(|_| drop(register(1)))),
    ] {
        let code = many(300);
        let reader = map.enter();
        assert_eq!(destroyed_here(|| drop(code)), 0, "{name}: held by the reader");
        drop(reader);
        // Besides what the calls unregister themselves (of which those that do not wait leave some).
        let destroyed = destroyed_here(call);
        assert!(destroyed >= 10 + own, "{name}: {destroyed}");
        map.synchronize();
    }
    let reader = map.enter();
    many(300).into_iter().for_each(drop);
    drop(reader);
    let registers = destroyed_here(|| {
        for i in 1000..1200 {
            register(i).leak();
        }
        let batch = (2000..2100).map(|i| (i * 10..i * 10 + 10, Telling));
        map.register_all(batch).expect("free").into_iter().for_each(Registration::leak);
    });
    assert_eq!(registers, 0, "a registration destroys no value");
    assert_eq!(destroyed_here(|| map.synchronize()), 10);
}

/// Forgetting a retirement keeps its values until the map goes.
#[test]
fn a_retirement_that_is_forgotten() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let code = map.register_all((0..5).map(|i| (i * 10..i * 10 + 10, tally.track(i)))).expect("");
    std::mem::forget(map.unregister_all(code));
    for round in 0..20 {
        // Also when the slots have long left the index: then it is for good.
        drop(map.register(0..100, tally.track(round)).expect("free"));
        map.synchronize();
        assert_eq!((tally.alive(), map.stats().entries), (5, 0));
        assert_eq!(map.stats().retired, 5);
    }
    let _ = map.reclaim();
    drop(map);
    assert_eq!(tally.alive(), 5);
}

#[test]
fn waiting_ends_when_the_reader_leaves() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let left = AtomicBool::new(false);
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    let code = map.register(10..20, tally.track(1)).expect("free");
    let more =
        map.register_all((3..9).map(|i| (i * 10..i * 10 + 1, tally.track(i)))).expect("free");
    std::thread::scope(|scope| {
        let (map, left) = (&map, &left);
        scope.spawn(move || {
            let reader = map.enter();
            inside.send(()).expect("the other end waits");
            may_go.recv().expect("the other end says when");
            std::thread::sleep(Duration::from_millis(20));
            left.store(true, SeqCst);
            drop(reader);
        });
        is_inside.recv().expect("the reader enters");
        let one = code.unregister();
        let many = map.unregister_all(more);
        scope.spawn(|| {
            one.wait();
            assert!(left.load(SeqCst), "waited for the reader");
        });
        scope.spawn(|| {
            many.wait();
            assert!(left.load(SeqCst), "waited for the reader");
        });
        go.send(()).expect("the reader waits");
        map.synchronize();
        assert!(left.load(SeqCst), "waited for the reader");
    });
    assert_eq!(tally.alive(), 0);
}

#[test]
fn writes_inside_a_read_section_of_the_same_thread() {
    let (tally, later) = (Tally::new(), Tally::new());
    let map = CodeMap::new();
    let held = map.register(10..20, tally.track(1)).expect("free");
    let reader = map.enter();
    let hit = reader.lookup(10_usize).expect("registered");
    drop(held);
    assert!(reader.lookup(10_usize).is_none(), "unregistered since");
    for i in 0..100 {
        drop(map.register(30..40, later.track(i)).expect("free"));
        assert!(reader.lookup(30_usize).is_none(), "registered since");
        assert!(!map.reclaim().is_empty());
    }
    assert_eq!((hit.value().id(), tally.dropped()), (1, 0), "retired under this reader");
    assert_eq!(later.alive(), 1, "only what was registered before the first reclaim may be held");
    drop(reader);
    assert!(map.reclaim().is_empty());
    assert_eq!((tally.alive(), later.alive()), (0, 0));
}

#[test]
fn a_forgotten_reader_holds_back_garbage_and_nothing_else() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let code = map.register(10..20, tally.track(0)).expect("free");
    std::mem::forget(map.enter());
    drop(code);
    for i in 0..200 {
        drop(map.register(30..40, tally.track(i)).expect("free"));
    }
    let remaining = map.reclaim();
    assert!(!remaining.is_empty() && remaining.bytes != 0);
    assert!(map.stats().publications >= 201);
    assert_eq!((map.stats().eras, map.stats().eras_held), (2, 1), "the reclaim began an era");
    // What comes from now on goes.
    for i in 0..200 {
        drop(map.register(30..40, tally.track(i)).expect("free"));
    }
    let later = map.reclaim();
    assert!(later.items <= remaining.items + 4, "{remaining:?}, {later:?}");
    assert!(later.bytes <= remaining.bytes + 1024, "{remaining:?}, {later:?}");
    drop(map);
    assert_eq!(tally.alive(), 0, "the map's end is the end of it");
}

/// One that entered before there was anything holds nothing.
#[test]
fn a_reader_that_is_forgotten_in_an_empty_map() {
    let tally = Tally::new();
    let map = CodeMap::new();
    std::mem::forget(map.enter());
    for i in 0..200 {
        drop(map.register(30..40, tally.track(i)).expect("free"));
    }
    assert!(reclaim_all(&map).is_empty());
    assert_eq!((tally.alive(), map.stats().eras_held), (0, 1));
}

#[test]
fn stats_tell_what_is_there_and_what_waits() {
    let map = CodeMap::new();
    let stats = map.stats();
    assert_eq!((stats.entries, stats.removed, stats.index_bytes, stats.publications), (0, 0, 0, 0));
    assert_eq!((stats.retired, stats.retired_bytes, stats.destroyed), (0, 0, 0));
    assert_eq!((stats.eras, stats.eras_held, stats.oldest_wait), (1, 0, None));
    assert_eq!(map.reclaim(), Remaining::default());
    map.synchronize();
    assert!(is_unused(&map));

    let item = |i: usize| (i * 10..i * 10 + 10, i);
    let mut held = map.register_all((0..4).map(item)).expect("free");
    held.extend(map.register_all([item(4)]).expect("free"));
    let stats = map.stats();
    assert_eq!((stats.entries, stats.removed, stats.publications), (5, 0, 2));
    assert_eq!(stats.retired, 1, "the first leaf");
    assert!(stats.retired_bytes != 0 && stats.oldest_wait.is_some());
    map.synchronize();
    let stats = map.stats();
    assert_eq!((stats.retired, stats.retired_bytes, stats.destroyed), (0, 0, 1));
    assert_eq!(stats.oldest_wait, None);
    assert!(stats.epoch >= 3, "three advances before anything is destroyed: {stats}");

    let reader = map.enter();
    drop(held);
    assert!(map.stats().epoch <= stats.epoch + 1, "the reader keeps the epoch");
    // The clock that is read at every write is coarse: it may be ten milliseconds behind.
    std::thread::sleep(Duration::from_millis(23));
    let stats = map.stats();
    assert_eq!((stats.entries, stats.removed, stats.publications), (0, 5, 2));
    assert_eq!((stats.retired, stats.retired_bytes), (5, 0), "values, which own their memory");
    let waited = stats.oldest_wait.expect("garbage waits");
    assert!(waited >= Duration::from_millis(3), "unregistered before the sleep: {waited:?}");
    assert!(map.stats().oldest_wait >= Some(waited), "it only gets older");
    // The first of these leaves the removed ranges out.
    let remaining = map.reclaim();
    assert_eq!((map.reclaim(), map.stats().removed), (remaining, 0));
    assert_eq!(remaining.items, 5 + 1, "the values, and the leaf");
    assert!(remaining.bytes != 0);
    let stats = map.stats();
    assert_eq!((stats.eras, stats.eras_held), (2, 1), "the reader holds an era");
    let mut eras: Vec<_> = map.eras().collect();
    eras.sort_by_key(|era| era.number);
    assert_eq!(eras.iter().map(|era| era.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(eras.iter().map(|era| era.is_current).collect::<Vec<_>>(), [false, true]);
    assert_eq!((eras[0].retired, eras[0].retired_bytes), (1, remaining.bytes));
    assert_eq!((eras[1].retired, eras[1].retired_bytes), (0, 0));
    assert!(eras[0].age.is_none() && eras[1].age.is_some());
    drop(reader);
    assert!(map.reclaim().is_empty());
    let stats = map.stats();
    assert_eq!((stats.retired, stats.retired_bytes, stats.oldest_wait), (0, 0, None));
    assert_eq!((stats.index_bytes, stats.eras_held), (0, 0), "nothing is left of it");
    // Two leaves, and the entries' values and blocks.
    assert_eq!(stats.destroyed, 2 + 5 + 5);
    println!("{stats}");
}

/// Removed ranges leave the index by and by, also when nobody reclaims.
#[test]
fn removed_ranges_are_left_out() {
    let many = if cfg!(miri) { 300 } else { 3_000 };
    let map = CodeMap::new();
    let code = map.register_all((0..many).map(|i| (i * 16..i * 16 + 16, i))).expect("free");
    let full = map.stats();
    let (mut most, mut kept) = (0, Vec::new());
    for (i, code) in code.into_iter().enumerate() {
        if i % 8 == 0 {
            kept.push(code);
            continue;
        }
        let before = map.stats();
        drop(code);
        let after = map.stats();
        assert_eq!(after.publications, before.publications, "unregistering publishes nothing");
        assert_eq!(after.entries, before.entries - 1);
        assert_eq!(after.removed, before.removed + 1);
        // A registration elsewhere for every other one.
        if i % 2 == 0 {
            let at = 0x1000_0000 + i;
            map.register(at..at + 1, i).expect("free").leak();
            let stats = map.stats();
            most = most.max(stats.removed * 100 / (stats.removed + stats.entries));
        }
    }
    let stats = map.stats();
    println!("{most} percent were removed ones at the most; {stats}");
    assert!(most <= 30, "about a quarter of all");
    assert!(kept.iter().all(|code| map.lookup(code.range().start(), |_| ()).is_some()));
    drop(kept);
    assert!(reclaim_all(&map).is_empty());
    let stats = map.stats();
    assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
    assert!(stats.index_bytes < full.index_bytes, "{stats}");
}

#[test]
fn what_is_printed() {
    let map = CodeMap::new();
    let code = map.register(0x1000..0x1800, 'a').expect("free");
    let more = map.register(0x2000..0x2010, 'b').expect("free");
    assert_eq!(format!("{code:?}"), "Registration { range: 0x1000..0x1800, value: 'a' }");
    let view = map.snapshot().expect("memory");
    assert_eq!(view.to_string(), "0x1000-0x1800 2 KiB\n0x2000-0x2010 16 B\n");
    assert_eq!(format!("{view:?}"), "{0x1000..0x1800: 'a', 0x2000..0x2010: 'b'}");
    assert_eq!(format!("{:?}", view.find(0x1000_usize).expect("there")), "0x1000..0x1800: 'a'");
    let around = format!("{:?}", view.neighbours(0x1900_usize));
    assert_eq!(
        around,
        "Neighbours { below: Some(0x1000..0x1800: 'a'), at: None, above: Some(0x2000..0x2010: 'b') }"
    );
    let hit = map.lookup(0x1004_usize, |hit| format!("{hit:?}")).expect("there");
    assert_eq!(hit, "Hit { pc: Pc(0x1004), range: 0x1000..0x1800, value: 'a' }");
    assert_eq!(format!("{:?}", map.enter()), "Reader { entries: 2, .. }");
    assert!(format!("{map:?}").starts_with("CodeMap { stats: Stats { entries: 2, "));
    let stats = map.stats().to_string();
    assert!(stats.starts_with("entries=2 index_bytes="), "{stats}");
    assert!(stats.contains(" removed=0 publications=2 retired=1 retired_bytes="), "{stats}");
    assert!(stats.contains(" eras=1 eras_held=0"), "{stats}");
    assert!(stats.contains(" oldest_wait_ms="), "{stats}");

    let key = more.into_key();
    assert_eq!(format!("{key:?}"), "RegistrationKey { range: 0x2000..0x2010, .. }");
    let mut retirement = map.unregister(key).expect("its own map");
    assert_eq!(format!("{retirement:?}"), "Retirement { is_complete: false, .. }");
    assert!(retirement.is_complete(), "no reader is inside");
    assert_eq!(format!("{retirement:?}"), "Retirement { is_complete: true, .. }");
    retirement.wait();
    map.synchronize();
    assert!(!map.stats().to_string().contains("oldest_wait_ms"));

    let error = map.register(0x17ff..0x1801, 'c').expect_err("taken");
    let text = "0x17ff..0x1801 overlaps 0x1000..0x1800, which is registered already";
    assert_eq!(error.to_string(), text);
    assert!(format!("{error:?}").starts_with("RegisterError { reason: Overlap"));
    let reversed = std::ops::Range { start: 2, end: 1 };
    let error = map.register(reversed.clone(), 'c').expect_err("reversed");
    assert_eq!(error.to_string(), "the range 0x2..0x1 ends before it starts");
    let error = map.register_all([(reversed, 'c')]).expect_err("reversed");
    assert_eq!(error.to_string(), "the range 0x2..0x1 ends before it starts");
    assert!(format!("{error:?}").contains("values: 1"), "{error:?}");
    let error = CodeRange::from_start_len(usize::MAX - 1, 3).expect_err("wraps");
    let text =
        format!("a range of 0x3 bytes at {:#x} wraps around the address space", usize::MAX - 1);
    assert_eq!(error.to_string(), text);
    let refused = Refused::OutOfMemory { bytes: 64 };
    assert_eq!(refused.to_string(), "out of memory: 64 bytes were asked for");
}

#[test]
fn pointers_are_addresses_too() {
    let text = [0_u8; 64];
    let map = CodeMap::new();
    let code = map.register(text.as_ptr_range(), "text").expect("free");
    assert_eq!(code.range().len(), 64);
    let found = map.lookup(&raw const text[63], |hit| (*hit.value(), hit.offset()));
    assert_eq!(found, Some(("text", 63)));
    assert!(map.lookup(text.as_ptr_range().end, |_| ()).is_none());
}

#[test]
fn maps_do_not_disturb_each_other() {
    let tally = Tally::new();
    let (stuck, free) = (CodeMap::new(), CodeMap::new());
    let code = stuck.register(10..20, tally.track(1)).expect("free");
    let same = free.register(10..20, tally.track(2)).expect("another map");
    let reader = stuck.enter();
    let hit = reader.lookup(10_usize).expect("registered");
    drop(code.unregister());
    same.unregister().wait();
    assert_eq!((tally.dropped(), free.stats().retired), (1, 0));
    assert_eq!(hit.value().id(), 1);
    free.synchronize();
    for i in 0..100 {
        drop(free.register(10..20, tally.track(i)).expect("free"));
    }
    free.synchronize();
    assert_eq!(tally.alive(), 1);
    assert!(reclaim_all(&free).is_empty());
    assert_ne!(stuck.stats().retired, 0);
}

#[test]
fn a_map_that_goes_takes_its_garbage_along() {
    let tally = Tally::new();
    for pending in [0, 1, 7, 15, 16, 40, 200] {
        let map = CodeMap::new();
        map.register(0..10, tally.track(0)).expect("free").leak();
        for i in 0..pending {
            drop(map.register(10..20, tally.track(i)).expect("free"));
        }
        drop(map);
        assert_eq!(tally.alive(), 0, "{pending} registrations before the drop");
    }
    drop(CodeMap::<Tracked<'_>>::new());
    println!("{} values, all dropped", tally.dropped());
}

/// The last owner of many values, one of whose destructors panics.
#[test]
fn a_snapshot_drops_the_rest_when_a_destructor_panics() {
    struct Panics {
        _alive: std::sync::Arc<()>,
        panics: bool,
    }
    impl Drop for Panics {
        fn drop(&mut self) {
            assert!(!self.panics, "this destructor panics");
        }
    }
    let alive = std::sync::Arc::new(());
    let map = CodeMap::new();
    let value = |i| Panics { _alive: alive.clone(), panics: i == 50 };
    let values = (0..300).map(|i| (i * 16..i * 16 + 16, value(i)));
    let code = map.register_all(values).expect("free");
    let view = map.snapshot().expect("memory");
    map.unregister_all(code).wait();
    drop(map);
    assert_eq!(std::sync::Arc::strong_count(&alive), 301, "the snapshot still shows them");
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(view)));
    assert!(dropped.is_err());
    assert_eq!(std::sync::Arc::strong_count(&alive), 1, "all the others, and its own fields");
}

#[test]
fn a_snapshot_outlives_its_map() {
    let tally = Tally::new();
    let map = CodeMap::new();
    map.register(0..10, tally.track(1)).expect("free").leak();
    drop(map.register(10..20, tally.track(2)).expect("free"));
    let held = map.register(20..30, tally.track(3)).expect("free");
    let view = map.snapshot().expect("memory");
    let copy = view.clone();
    held.unregister().wait();
    drop(map.register(30..40, tally.track(4)).expect("free"));
    drop(map);
    assert_eq!(tally.alive(), 2, "those that the snapshot shows");
    let ids: Vec<_> = view.iter().map(|code| code.value().id()).collect();
    assert_eq!(ids, [1, 3]);
    drop(view);
    assert_eq!(tally.alive(), 2);
    std::thread::scope(|scope| scope.spawn(|| drop(copy)).join().expect("no panic"));
    assert_eq!(tally.alive(), 0, "and they die with it");
}

#[test]
fn a_snapshot_holds_back_no_other_version() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let held = map.register(0..10, tally.track(1)).expect("free");
    let view = map.snapshot().expect("memory");
    held.unregister().wait();
    for i in 0..50 {
        drop(map.register(10..20, tally.track(i)).expect("free"));
    }
    map.synchronize();
    assert_eq!(tally.alive(), 1);
    assert!(reclaim_all(&map).is_empty(), "the map has let go of it");
    assert_eq!(view.find(5_usize).map(|code| code.value().id()), Some(1));
    assert_eq!(view.sequence(), 1);
    // 51 were registered, and all unregistered; then they were left out.
    assert!(map.snapshot().expect("memory").sequence() >= 102);
}

/// The map keeps the last snapshot's view; what is waited for goes all the same.
#[test]
fn a_view_that_the_map_keeps_keeps_no_value() {
    let tally = Tally::new();
    let map = CodeMap::new();
    for round in 0..20 {
        let register = |i: usize| map.register(i * 10..i * 10 + 10, tally.track(i)).expect("free");
        let [a, b, c] = [1, 2, 3].map(register);
        drop(map.snapshot().expect("memory"));
        let left = tally.alive() - 3;
        drop(a.unregister());
        b.unregister().wait();
        // (What was unregistered before has put the view where other garbage is.)
        let _ = map.reclaim();
        assert!(tally.alive() - left <= 2, "round {round}: the one that was waited for");
        let mut retirement = c.unregister();
        assert!(retirement.is_complete(), "no reader is inside");
        assert!(tally.alive() - left <= 1, "round {round}: the one that is complete");
        map.synchronize();
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn what_may_go_to_other_threads() {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    type Value = String;
    send::<CodeMap<Value>>();
    sync::<CodeMap<Value>>();
    send::<Registration<'_, Value>>();
    sync::<Registration<'_, Value>>();
    send::<RegistrationKey<Value>>();
    sync::<RegistrationKey<Value>>();
    send::<Retirement<'_, Value>>();
    sync::<Retirement<'_, Value>>();
    send::<Snapshot<Value>>();
    sync::<Snapshot<Value>>();
    send::<Registered<'_, Value>>();
    send::<Neighbours<'_, Value>>();
    send::<Hit<'_, Value>>();
    send::<RegisterError<Value>>();
    send::<RegisterAllError<Value, std::vec::IntoIter<Value>>>();
    send::<WrongMap<Value>>();
    send::<Pc>();

    // And they work there: a registration made here is unregistered elsewhere.
    let tally = Tally::new();
    let map = CodeMap::new();
    let code = map.register(10..20, tally.track(1)).expect("free");
    std::thread::scope(|scope| {
        let retirement = scope.spawn(|| code.unregister()).join().expect("no panic");
        scope.spawn(|| retirement.wait());
    });
    assert_eq!(tally.alive(), 0);
}

/// A value that uses the map while it is destroyed.
struct Meddler {
    generations: usize,
}

static MEDDLED: CodeMap<Meddler> = CodeMap::new();
static MEDDLERS_DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Meddler {
    fn drop(&mut self) {
        MEDDLERS_DROPPED.fetch_add(1, SeqCst);
        assert_eq!(MEDDLED.lookup(5_usize, |hit| hit.value().generations), Some(0));
        let _ = MEDDLED.reclaim();
        let view = MEDDLED.snapshot().expect("memory");
        assert_eq!(view.find(5_usize).map(|code| code.value().generations), Some(0));
        if let Some(generations) = self.generations.checked_sub(1) {
            let at = 100 + generations;
            let heirs =
                [(at..at + 1, Meddler { generations }), (at..at, Meddler { generations: 0 })];
            match MEDDLED.register_all(heirs) {
                Ok(registrations) => drop(registrations),
                Err(error) => drop(error.values),
            }
        }
        let _ = MEDDLED.stats();
    }
}

/// It returns at once, frees nothing that the reader may hold, and tells how much that is.
#[test]
fn reclaiming_inside_a_reader() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let code = map.register(10..20, tally.track(1)).expect("free");
    assert!(reclaim_all(&map).is_empty());
    let reader = map.enter();
    let hit = reader.lookup(15_usize).expect("registered");
    drop(code);
    let before = map.stats();
    for _ in 0..10 {
        let left = map.reclaim();
        assert!(!left.is_empty() && left.bytes != 0, "{left:?}");
        assert_eq!((left.items, left.bytes), (map.stats().retired, map.stats().retired_bytes));
        assert_eq!((hit.value().id(), tally.dropped()), (1, 0));
    }
    assert!(before.retired >= 1);
    drop(reader);
    assert!(reclaim_all(&map).is_empty());
    assert_eq!(tally.dropped(), 1);
}

#[test]
fn a_destructor_may_use_the_map() {
    const GENERATIONS: usize = if cfg!(miri) { 3 } else { 12 };
    const ROUNDS: usize = if cfg!(miri) { 8 } else { 40 };
    MEDDLED.register(0..10, Meddler { generations: 0 }).expect("free").leak();
    for _ in 0..ROUNDS {
        let meddler = Meddler { generations: GENERATIONS };
        drop(MEDDLED.register(1000..1001, meddler).expect("free"));
    }
    MEDDLED.synchronize();
    for _ in 0..GENERATIONS * 2 {
        let _ = MEDDLED.reclaim();
    }
    let stats = MEDDLED.stats();
    println!("{} values destroyed by one another; {stats}", MEDDLERS_DROPPED.load(SeqCst));
    assert_eq!((stats.retired, stats.entries), (0, 1));
    assert_eq!(MEDDLERS_DROPPED.load(SeqCst), ROUNDS * (2 * GENERATIONS + 1));
}

/// A value whose destructor panics, once, if it is armed.
struct Bomb<'t> {
    armed: bool,
    value: Tracked<'t>,
}

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        let explodes = self.armed && !std::thread::panicking();
        assert!(!explodes, "bomb {}", self.value.id());
    }
}

/// Of `code` pieces that become garbage together, those in `armed` panic in their destructors.
fn explode(code: usize, armed: &[usize], spread_over_versions: bool) {
    let tally = Tally::new();
    let map = CodeMap::new();
    let bomb = |i: usize| Bomb { armed: armed.contains(&i), value: tally.track(i) };
    let mut held = Vec::new();
    for i in 0..code {
        held.push(map.register(i * 10..i * 10 + 10, bomb(i)).expect("free"));
    }
    let reader = map.enter();
    if spread_over_versions {
        held.into_iter().for_each(drop);
    } else {
        drop(map.unregister_all(held));
    }
    assert_eq!(tally.dropped(), 0, "the reader keeps all of it");
    drop(reader);

    let mut panics = 0;
    for _ in 0..100 {
        panics += usize::from(catch_unwind(AssertUnwindSafe(|| map.reclaim())).is_err());
    }
    println!("{code} pieces of code, {} bombs: {panics} panics", armed.len());
    assert!(panics >= 1 && panics <= armed.len());
    assert_eq!(tally.alive(), 0, "a panic must not cost the destruction of other values");
    let stats = map.stats();
    assert_eq!((stats.retired, stats.oldest_wait), (0, None), "{stats}");

    // The map goes on as if nothing had happened.
    let code = map.register(10..20, bomb(usize::MAX)).expect("free");
    assert!(map.lookup(15_usize, |_| ()).is_some());
    let mut retirement = code.unregister();
    let complete = (0..100).any(|_| retirement.is_complete());
    assert!(complete, "no reader is inside");
    assert_eq!(tally.alive(), 0);
    map.synchronize();
}

#[test]
fn a_destructor_that_panics_alone() {
    explode(1, &[0], true);
}

#[test]
fn a_destructor_that_panics_among_others_of_its_version() {
    explode(6, &[2], false);
}

#[test]
fn a_destructor_that_panics_among_other_versions() {
    explode(6, &[2], true);
}

#[test]
fn several_destructors_that_panic() {
    let code = if cfg!(miri) { 20 } else { 150 };
    explode(code, &[0, code / 2, code / 2 + 1, code - 1], true);
}

/// A value whose destructor panics each time.
struct Mine<'t>(#[expect(dead_code, reason = "counts itself")] Tracked<'t>);

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("mine"));
    }
}

/// Every call that destroys values runs all destructors that are due, and lets the first panic go on.
#[test]
fn every_destructor_panics() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let lay = |from: usize| {
        let ranges = (from..from + 20).map(|i| (i * 10..i * 10 + 10, Mine(tally.track(i))));
        map.register_all(ranges).expect("free")
    };
    let panics = |call: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(call)).is_err();
    assert!(panics(&mut || map.unregister_all(lay(0)).wait()));
    assert_eq!(tally.alive(), 0, "all of them, one after another");
    let mut retirement = Some(map.unregister_all(lay(0)));
    assert!(panics(&mut || {
        retirement.as_mut().expect("one").is_complete();
    }));
    assert_eq!(tally.alive(), 0);
    let complete = retirement.take().is_some_and(|mut retirement| retirement.is_complete());
    assert!(complete, "it was complete when its values were gone");
    let late: [(&str, &dyn Fn()); 3] = [
        ("reclaim", &|| assert!(map.reclaim().is_empty())),
        ("synchronize", &|| map.synchronize()),
        ("waiting for another", &|| {
            let other = map.register(9_000..9_010, Mine(tally.track(9))).expect("free");
            other.unregister().wait();
        }),
    ];
    for (name, call) in late {
        let reader = map.enter();
        drop(map.unregister_all(lay(0)));
        drop(reader);
        // A registration neither runs destructors nor panics.
        let register = |i: usize| map.register(i * 10..i * 10 + 1, Mine(tally.track(i)));
        let mut kept: Vec<_> = (100..140).map(|i| register(i).expect("free")).collect();
        assert_eq!(tally.alive(), 20 + 40, "{name}");
        assert!(panics(&mut || call()), "{name}");
        while panics(&mut || map.synchronize()) {}
        assert_eq!(tally.alive(), 40, "{name}");
        assert!(panics(&mut || map.unregister_all(kept.drain(..)).wait()), "{name}");
        assert_eq!(tally.alive(), 0, "{name}");
    }
}

#[test]
fn a_reversed_search_for_code_near_the_ends() {
    let map = CodeMap::new();
    let whole = map.register(0..usize::MAX, 'x').expect("everything");
    assert_eq!(map.lookup(0_usize, |hit| hit.offset()), Some(0));
    assert_eq!(map.lookup(usize::MAX - 1, |hit| hit.offset()), Some(usize::MAX - 1));
    assert!(map.lookup(usize::MAX, |_| ()).is_none());
    let at = usize::MAX;
    assert!(map.register(at..at, 'e').is_ok(), "an empty range at the very end");
    assert!(map.register(at - 1..at, 'e').is_err());
    drop(whole);
    assert!(reclaim_all(&map).is_empty());
    let ends = map.register_all([(0..1, 'a'), (at - 1..at, 'z')]).expect("free");
    assert_eq!(map.lookup(0_usize, |hit| *hit.value()), Some('a'));
    assert_eq!(map.lookup(1_usize, |hit| *hit.value()), None);
    assert_eq!(map.lookup(at - 2, |hit| *hit.value()), None);
    assert_eq!(map.lookup(at - 1, |hit| *hit.value()), Some('z'));
    drop(ends);
}

#[test]
fn tables_of_every_small_size() {
    let tally = Tally::new();
    let sizes = if cfg!(miri) { 12 } else { 70_usize };
    for size in 0..sizes {
        let map = CodeMap::new();
        let code = map.register_all((0..size).map(|i| (i * 4 + 1..i * 4 + 4, tally.track(i))));
        let code = code.expect("free");
        for pc in 0..size * 4 + 4 {
            let expected = (pc % 4 != 0 && pc / 4 < size).then(|| (pc / 4, pc % 4 - 1));
            assert_eq!(map.lookup(pc, |hit| (hit.value().id(), hit.offset())), expected);
        }
        // Gone from the middle outwards.
        let mut code = code;
        while !code.is_empty() {
            let gone = code.remove(code.len() / 2);
            let at = gone.range().start();
            drop(gone);
            assert!(map.lookup(at, |_| ()).is_none());
        }
    }
    assert_eq!(tally.alive(), 0);
}

#[test]
fn writes_take_out_garbage_by_themselves() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let many = if cfg!(miri) { 400 } else { 20_000 };
    let ranges = (0..many).map(|i| (i * 16..i * 16 + 16, tally.track(i)));
    let code = map.register_all(ranges).expect("free");
    let (mut most, mut most_bytes) = (0, 0);
    for i in 0..400 {
        let at = 0x1000_0000 + i;
        drop(map.register(at..at + 1, tally.track(at)).expect("free"));
        most = most.max(map.stats().retired);
        most_bytes = most_bytes.max(map.stats().retired_bytes);
    }
    println!("{most} pieces of garbage, {most_bytes} bytes at the most; {}", map.stats());
    assert!(most <= 150 && most_bytes < 200_000);
    let before = tally.dropped();
    map.unregister_all(code).wait();
    assert!(tally.dropped() >= before + many);
    map.synchronize();
    assert_eq!(tally.alive(), 0);
}
