//! Every allocation of every write fails once: an error that changes nothing, or success.
//!
//! The allocator refuses the k-th allocation of the calling thread, or all from the k-th on, and
//! each test goes through every k until one run meets no refusal. Every call is made on a thread that has
//! done nothing before. What needs no memory is given none at all, and must succeed.

mod refusing;
mod tracked;

use pcmap::{CodeMap, CodeRange, Refused, Registration, Stats};
use refusing::{Outcome, each_refusal, live_bytes, on_a_fresh_thread, refusing};
use tracked::{Tally, Tracked};

/// Whether it is what a call is refused with that lacks memory.
fn is_out_of_memory(reason: Refused) -> bool {
    matches!(reason, Refused::OutOfMemory { bytes } if bytes != 0)
}

/// Runs `operation`, which needs no memory, without any, on a thread that has done nothing before.
fn without_memory<R: Send>(operation: impl FnOnce() -> R + Send) -> R {
    on_a_fresh_thread(|| {
        let Outcome { result, asked, .. } = refusing(1, true, operation);
        assert_eq!(asked, 0, "it asked for memory");
        result
    })
}

/// The writes after which garbage is taken out: one in so many.
const WRITES_PER_RECLAIM: u64 = 6;

fn without_age(stats: Stats) -> String {
    let text = stats.to_string();
    text.split(" oldest").next().unwrap_or_default().to_owned()
}

type Map<'t> = CodeMap<Tracked<'t>>;

fn id_at(map: &Map<'_>, pc: usize) -> Option<usize> {
    map.lookup(pc, |hit| hit.value().id())
}

/// A map with three leaked ranges and some that were removed, brought to sequence number `publications`.
fn populated(tally: &Tally, publications: u64) -> Map<'_> {
    let map = CodeMap::new();
    for i in 1..=3 {
        map.register(i * 0x1000..i * 0x1000 + 0x100, tally.track(i)).expect("free").leak();
    }
    while map.stats().publications < publications {
        drop(map.register(0x9000..0x9100, tally.track(9)).expect("free"));
    }
    assert_eq!(map.stats().publications, publications);
    map
}

/// Everything about the map that a refused write must leave as it is.
fn picture(map: &Map<'_>) -> (String, Vec<(CodeRange, usize)>, Vec<Option<usize>>) {
    let view = map.snapshot().expect("memory");
    let rows = view.iter().map(|code| (code.range(), code.value().id())).collect();
    let found = (0..0xa0).map(|page| id_at(map, page * 0x100)).collect();
    (without_age(map.stats()), rows, found)
}

#[test]
fn register_the_first_range() {
    each_refusal("first register", |k, for_good| {
        let tally = Tally::new();
        let before = live_bytes();
        let outcome = {
            let map = CodeMap::new();
            let value = tally.track(7);
            let Outcome { result, asked, refused } =
                on_a_fresh_thread(|| refusing(k, for_good, || map.register(0x5000..0x5100, value)));
            let success = match result {
                Ok(registration) => {
                    assert_eq!(id_at(&map, 0x50ff), Some(7));
                    drop(registration);
                    true
                }
                Err(error) => {
                    assert!(is_out_of_memory(error.reason), "{error}");
                    assert_eq!(error.value.id(), 7);
                    assert_eq!((map.stats().publications, map.stats().entries), (0, 0));
                    assert_eq!(id_at(&map, 0x5000), None);
                    drop(error);
                    assert_eq!(tally.alive(), 0);
                    // And with memory it works.
                    drop(map.register(0x5000..0x5100, tally.track(8)).expect("free"));
                    false
                }
            };
            map.synchronize();
            assert_eq!(tally.alive(), 0);
            assert!(map.reclaim().is_empty());

            Outcome { result: success, asked, refused }
        };
        assert_eq!(live_bytes(), before, "what a first write made is freed");
        outcome
    });
}

/// One register on a map at `publications`, with the `k`-th allocation refused.
fn refuse_a_register(publications: u64, k: usize, for_good: bool) -> Outcome<bool> {
    let tally = Tally::new();
    let map = populated(&tally, publications);
    let before = (picture(&map), tally.alive());
    let value = tally.track(7);
    let Outcome { result, asked, refused } =
        on_a_fresh_thread(|| refusing(k, for_good, || map.register(0x5000..0x5100, value)));
    let success = match result {
        Ok(registration) => {
            assert_eq!(id_at(&map, 0x50ff), Some(7));
            drop(registration);
            true
        }
        Err(error) => {
            assert!(is_out_of_memory(error.reason), "{error}");
            assert_eq!(error.value.id(), 7);
            drop(error);
            assert_eq!((picture(&map), tally.alive()), before);
            drop(map.register(0x5000..0x5100, tally.track(8)).expect("free"));
            false
        }
    };
    assert_eq!(id_at(&map, 0x5000), None);
    map.synchronize();
    assert_eq!(tally.alive(), map.stats().entries);
    assert!(map.reclaim().is_empty());
    Outcome { result: success, asked, refused }
}

#[test]
fn register() {
    each_refusal("register", |k, for_good| refuse_a_register(4, k, for_good));
}

#[test]
fn register_where_garbage_is_taken_out() {
    each_refusal("register with garbage", |k, for_good| {
        refuse_a_register(WRITES_PER_RECLAIM - 1, k, for_good)
    });
}

#[test]
fn register_all() {
    for count in [1, 2, 5, 40] {
        each_refusal(&format!("register_all of {count}"), |k, for_good| {
            let tally = Tally::new();
            let map = populated(&tally, 4);
            let before = (picture(&map), tally.alive());
            let ranges = (0..count).rev().map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, i));
            let items: Vec<_> = ranges.map(|(range, i)| (range, tally.track(100 + i))).collect();
            let ids: Vec<_> = items.iter().map(|(_, value)| value.id()).collect();
            let Outcome { result, asked, refused } =
                on_a_fresh_thread(|| refusing(k, for_good, || map.register_all(items)));
            let success = match result {
                Ok(registrations) => {
                    assert!(registrations.iter().map(|r| r.value().id()).eq(ids));
                    assert_eq!(map.stats().publications, 5);
                    map.unregister_all(registrations).wait();
                    true
                }
                Err(error) => {
                    assert!(is_out_of_memory(error.reason), "{:?}", error.reason);
                    let mut back: Vec<_> = error.values.iter().map(Tracked::id).collect();
                    back.extend(error.rest.map(|(_, value)| value.id()));
                    assert_eq!(back, ids, "everything comes back, in order");
                    drop(error.values);
                    assert_eq!((picture(&map), tally.alive()), before);
                    false
                }
            };
            map.synchronize();
            assert_eq!(tally.alive(), map.stats().entries);
            assert!(map.reclaim().is_empty());
            Outcome { result: success, asked, refused }
        });
    }
}

/// Unregisters two of four ranges by `way`, which is given no memory.
fn unregister_without_memory<'t>(
    tally: &'t Tally,
    map: &Map<'t>,
    way: impl FnOnce(&Map<'t>, Vec<Registration<'_, Tracked<'t>>>) + Send,
) {
    let items = (0..4).map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, tally.track(100 + i)));
    let mut stays = map.register_all(items).expect("free");
    let goes = vec![stays.remove(2), stays.remove(0)];
    map.synchronize();
    assert!(map.reclaim().is_empty());
    let (alive, dropped) = (tally.alive(), tally.dropped());
    let before = map.stats();
    let kept = map.snapshot().expect("memory");
    let reader = map.enter();
    let hit = reader.lookup(0x5005_usize).expect("registered");

    without_memory(|| way(map, goes));

    let expected = [None, Some(101), None, Some(103)];
    assert_eq!(map.stats().publications, before.publications, "it builds nothing");
    assert_eq!(map.stats().removed, before.removed + 2);
    let check = |when| {
        for (i, expected) in (0..).zip(expected) {
            let pcs = [0x5000 + i * 16, 0x500f + i * 16];
            assert_eq!(pcs.map(|pc| id_at(map, pc)), [expected; 2], "{when}");
            let view = map.snapshot().expect("memory");
            assert_eq!(
                pcs.map(|pc| view.find(pc).map(|c| c.value().id())),
                [expected; 2],
                "{when}"
            );
        }
        let stats = map.stats();
        assert_eq!(stats.entries, before.entries - 2, "{when}: {stats}");
        assert_eq!(map.snapshot().expect("memory").len(), before.entries - 2, "{when}");
    };
    check("at once");
    // Nobody destroys what a reader holds.
    assert!(!map.reclaim().is_empty());
    assert_eq!((hit.value().id(), tally.dropped()), (100, dropped));
    check("after a reclaim");
    // The same range is free again.
    let again = map.register(0x5000..0x5010, tally.track(200)).expect("free again");
    assert_eq!(id_at(map, 0x5005), Some(200));
    drop(again);
    check("after a registration at the same place");
    drop(reader);
    without_memory(|| map.synchronize());
    assert_eq!(tally.alive(), alive, "the snapshot still shows them");
    drop(kept);
    assert_eq!(tally.alive(), alive - 2, "dropped, and each once");
    without_memory(|| assert!(map.reclaim().is_empty()));
    let stats = map.stats();
    assert_eq!((stats.retired, stats.retired_bytes), (0, 0), "{stats}");
    check("in the end");
    without_memory(|| drop(stays));
    without_memory(|| map.synchronize());
    assert_eq!(tally.alive(), map.stats().entries);
}

#[test]
fn unregister() {
    type Way = for<'m, 't> fn(&'m Map<'t>, Vec<Registration<'m, Tracked<'t>>>);
    let ways: [(&str, Way); 4] = [
        ("unregister", |_, goes| goes.into_iter().for_each(|code| drop(code.unregister()))),
        ("drop", |_, goes| drop(goes)),
        ("unregister by key", |map, goes| {
            for registration in goes {
                assert!(map.unregister(registration.into_key()).is_ok());
            }
        }),
        ("unregister_all", |map, goes| drop(map.unregister_all(goes))),
    ];
    for (name, way) in ways {
        // At each place in the rhythm in which garbage is freed.
        for publications in 4..4 + WRITES_PER_RECLAIM {
            let tally = Tally::new();
            let map = populated(&tally, publications);
            unregister_without_memory(&tally, &map, |map, goes| way(map, goes));
        }
        println!("{name}: no memory asked for");
    }
}

#[test]
fn waiting() {
    let tally = Tally::new();
    let map = populated(&tally, 4);
    map.synchronize();
    let before = tally.alive();
    let register =
        |i: usize| map.register(0x5000 + i * 16..0x5010 + i * 16, tally.track(i)).expect("free");
    for round in 0..50 {
        let [a, b, c, d] = [0, 1, 2, 3].map(register);
        without_memory(|| a.unregister().wait());
        without_memory(|| {
            assert!((0..4).any({
                let mut retirement = b.unregister();
                move |_| retirement.is_complete()
            }))
        });
        without_memory(|| drop(c));
        without_memory(|| map.synchronize());
        let mut retirement = without_memory(|| d.unregister());
        assert!(!format!("{retirement:?}").is_empty());
        without_memory(|| assert!(retirement.is_complete(), "no reader is inside"));
        assert_eq!(tally.alive(), before, "round {round}");
    }
    // What needs memory is to leave out removed ranges: without, they stay, and all else is freed.
    let removed = map.stats().removed;
    assert_ne!(removed, 0);
    let outcome = on_a_fresh_thread(|| refusing(1, true, || map.reclaim()));
    assert!(outcome.refused != 0 && outcome.result.is_empty());
    assert_eq!(map.stats().removed, removed);
    assert!(map.reclaim().is_empty());
    assert_eq!(map.stats().removed, 0);
}

#[test]
fn a_large_batch_without_memory_to_collect_it() {
    let tally = Tally::new();
    let map = populated(&tally, 3);
    let before = tally.alive();
    for _ in 0..6 {
        let items = (0..100).map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, tally.track(i)));
        let batch = map.register_all(items).expect("free");
        let publications = map.stats().publications;
        let mut retirement = without_memory(|| map.unregister_all(batch));
        for pc in 0x5000..0x5000 + 1600_usize {
            assert_eq!(id_at(&map, pc), None);
        }
        assert_eq!((map.stats().entries, map.stats().publications), (3, publications));
        assert!(
            (0..100).any(|_| without_memory(|| retirement.is_complete())),
            "no reader is inside"
        );
        assert_eq!(tally.alive(), before);
    }
}

/// Removed ranges that cannot be left out, for want of memory, are left out later.
#[test]
fn compacting() {
    let make = |tally: &'static Tally| {
        let map = populated(tally, 4);
        let items = (0..1000).map(|i| (0x10_0000 + i * 16..0x10_0010 + i * 16, tally.track(i)));
        let mut code = map.register_all(items).expect("free");
        let goes: Vec<_> = code.drain(100..900).collect();
        code.into_iter().for_each(Registration::leak);
        map.unregister_all(goes).wait();
        map
    };
    let tally: &'static Tally = Box::leak(Box::new(Tally::new()));
    let shown = |map: &Map<'_>| {
        let found = (0..1000).filter(|i| id_at(map, 0x10_0000 + i * 16).is_some());
        (found.count(), map.stats().entries, map.snapshot().expect("memory").len())
    };
    for call in ["reclaim", "register"] {
        each_refusal(call, |k, for_good| {
            let map = make(tally);
            let removed = map.stats().removed;
            assert!(removed >= 800);
            let outcome = on_a_fresh_thread(|| {
                refusing(k, for_good, || match call {
                    "reclaim" => {
                        let _ = map.reclaim();
                        true
                    }
                    _ => map.register(0x6000..0x6010, tally.track(6)).is_ok(),
                })
            });
            // With no refusal, most are gone; with one, as many as there was memory for.
            let stats = map.stats();
            if call == "reclaim" && outcome.refused == 0 {
                assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
            }
            assert_eq!(shown(&map), (200, 203, 203), "{call}");
            let _ = map.reclaim();
            let stats = map.stats();
            assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
            assert_eq!(shown(&map), (200, 203, 203), "{call}");
            outcome
        });
    }
    assert_eq!(tally.alive(), 0);
}

/// A snapshot is an error without memory, also the first of a thread.
#[test]
fn snapshot() {
    let tally = Tally::new();
    let map = populated(&tally, 4);
    each_refusal("snapshot", |k, for_good| {
        // One that the map keeps would be given again.
        drop(map.register(0x7000..0x7001, tally.track(7)).expect("free"));
        let before = tally.alive();
        let outcome = on_a_fresh_thread(|| refusing(k, for_good, || map.snapshot()));
        let outcome = outcome.map(|result| match result {
            Ok(view) => {
                assert_eq!(view.len(), map.stats().entries);
                true
            }
            Err(error) => {
                assert_ne!(error.bytes, 0);
                assert_eq!(
                    error.to_string(),
                    format!("out of memory: {} bytes were asked for", error.bytes)
                );
                false
            }
        });
        assert_eq!(outcome.result, outcome.refused == 0, "a snapshot rides nothing out");
        assert_eq!(tally.alive(), before);
        let view = map.snapshot().expect("memory");
        assert_eq!(view.len(), map.stats().entries);
        outcome
    });
    let view = map.snapshot().expect("memory");
    let again = without_memory(|| map.snapshot().expect("what the map keeps"));
    assert_eq!((again.len(), again.sequence()), (view.len(), view.sequence()));
}

#[test]
fn a_retirement_without_memory_knows_its_readers() {
    let tally = Tally::new();
    let map = populated(&tally, 3);
    let code = map.register(0x5000..0x5100, tally.track(7)).expect("free");
    let dropped = tally.dropped();
    let reader = map.enter();
    let hit = reader.lookup(0x5000_usize).expect("registered");
    let mut retirement = without_memory(|| code.unregister());
    assert!(reader.lookup(0x5000_usize).is_none(), "no new lookup, in no version");
    for _ in 0..20 {
        assert!(!without_memory(|| retirement.is_complete()));
    }
    assert_eq!(hit.value().id(), 7);
    drop(reader);
    assert!((0..100).any(|_| without_memory(|| retirement.is_complete())));
    assert_eq!(tally.dropped(), dropped + 1);
    retirement.wait();
}

#[test]
fn errors_other_than_memory_are_still_told_when_memory_is_short() {
    let tally = Tally::new();
    let map = populated(&tally, 3);
    each_refusal("conflict", |k, for_good| {
        let value = tally.track(7);
        let register = || map.register(0x1080..0x1180, value);
        refusing(k, for_good, register).map(|result| {
            let error = result.expect_err("0x1000..0x1100 is taken");
            assert_eq!(error.value.id(), 7);
            let overlap = matches!(error.reason, Refused::Overlap { .. });
            assert!(overlap || is_out_of_memory(error.reason));
            overlap
        })
    });
    let mut registration = None;
    let value = tally.track(7);
    let outcome = refusing(1, true, || registration = map.register(5..5, value).ok());
    assert_eq!((registration.is_none(), outcome.refused), (true, 1), "even an empty one is held");
}

#[test]
fn nothing_is_left_when_a_map_goes() {
    let before = live_bytes();
    let mut peak = 0;
    for pending in [0, 1, 15, 16, 17, 100] {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        let reader = map.enter();
        for i in 0..pending {
            let batch = (0..10).map(|j| (0x5000 + j * 16..0x5000 + j * 16 + 16, tally.track(i)));
            let mut batch = map.register_all(batch).expect("free");
            let one = batch.pop().expect("ten");
            assert!(map.unregister(one.into_key()).is_ok());
            drop(map.unregister_all(batch));
            refusing(1, true, || drop(map.register(0x100..0x101, tally.track(i))));
        }
        assert!(map.register(0x1000..0x1001, tally.track(1)).is_err());
        drop(reader);
        if pending % 2 == 1 {
            let _ = map.reclaim();
        }
        let view = map.snapshot().expect("memory");
        peak = peak.max(live_bytes() - before);
        drop(map);
        drop(view);
        assert_eq!(tally.alive(), 0);
        assert_eq!(live_bytes(), before, "with {pending} rounds of garbage");
    }
    println!("{peak} bytes at the most, and none afterwards");
    assert!(peak > 0);
}

/// The write that leaves removed ranges out, whatever else it does.
#[test]
fn a_write_that_compacts_leaves_nothing_behind() {
    let before = live_bytes();
    {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        for round in 0..10 {
            let code = map.register(0x5000..0x5100, tally.track(7)).expect("free");
            let other = map.register(0x6000..0x6100, tally.track(8)).expect("free");
            drop(code);
            assert_eq!(id_at(&map, 0x5000), None);
            if round % 2 == 0 {
                drop(other);
                let _ = map.reclaim(); // this compacts
            } else {
                drop(map.register(0x5080..0x5180, tally.track(9)).expect("free")); // or this
            }
            map.synchronize();
        }
        map.synchronize();
        assert_eq!(tally.alive(), map.stats().entries);
    }
    assert_eq!(live_bytes(), before);
}

#[test]
fn retired_bytes_are_what_is_freed() {
    let tally = Tally::new();
    let map = populated(&tally, 4);
    map.synchronize();
    let reader = map.enter();
    for i in 0..20 {
        drop(map.register(0x5000..0x5100, tally.track(i)).expect("free"));
    }
    let retired = map.stats().retired_bytes;
    let before = live_bytes();
    drop(reader);
    map.synchronize();
    let freed = before - live_bytes();
    println!("{retired} bytes were said to wait, {freed} were freed");
    // An entry that was left out counts when its value is let go of: that comes first here.
    const ENTRIES: isize = 20 * 64;
    assert!((retired as isize..=retired as isize + ENTRIES).contains(&freed));
}
