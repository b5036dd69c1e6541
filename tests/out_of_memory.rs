//! Every allocation of every write fails once: an error that changes nothing, or success.
//!
//! The allocator refuses the k-th allocation of the calling thread, or all from the k-th on, and
//! each test goes through every k until one run meets no refusal. One dependency aborts without
//! memory: arc-swap when a thread takes its first snapshot, so each thread here is warmed up on
//! another map.

mod refusing;
mod tracked;

use pcmap::{CodeMap, CodeRange, Refused, Registration, Stats};
use refusing::{Outcome, each_refusal, live_bytes, refusing, warm_up};
use tracked::{Tally, Tracked};

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

/// A map with three leaked ranges, brought to sequence number `publications`.
fn populated(tally: &Tally, publications: u64) -> Map<'_> {
    let map = CodeMap::new();
    for i in 1..=3 {
        map.register(i * 0x1000..i * 0x1000 + 0x100, tally.track(i)).expect("free").leak();
    }
    while map.stats().publications + 2 <= publications {
        drop(map.register(0x9000..0x9100, tally.track(9)).expect("free"));
    }
    if map.stats().publications < publications {
        map.register(0x9000..0x9100, tally.track(9)).expect("free").leak();
    }
    assert_eq!(map.stats().publications, publications);
    map
}

/// Everything about the map that a refused write must leave as it is.
fn picture(map: &Map<'_>) -> (String, Vec<(CodeRange, usize)>, Vec<Option<usize>>) {
    let view = map.snapshot();
    let rows = view.iter().map(|code| (code.range(), code.value().id())).collect();
    let found = (0..0xa0).map(|page| id_at(map, page * 0x100)).collect();
    (without_age(map.stats()), rows, found)
}

#[test]
fn register_the_first_range() {
    warm_up();
    each_refusal("first register", |k, for_good| {
        let tally = Tally::new();
        let before = live_bytes();
        let outcome = {
            let map = CodeMap::new();
            let value = tally.track(7);
            let Outcome { result, asked, refused } =
                refusing(k, for_good, || map.register(0x5000..0x5100, value));
            let success = match result {
                Ok(registration) => {
                    assert_eq!(id_at(&map, 0x50ff), Some(7));
                    drop(registration);
                    true
                }
                Err(error) => {
                    assert_eq!((error.reason, error.value.id()), (Refused::OutOfMemory, 7));
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
            assert_eq!((tally.alive(), map.stats().retired), (0, 0));

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
        refusing(k, for_good, || map.register(0x5000..0x5100, value));
    let success = match result {
        Ok(registration) => {
            assert_eq!(id_at(&map, 0x50ff), Some(7));
            drop(registration);
            true
        }
        Err(error) => {
            assert_eq!((error.reason, error.value.id()), (Refused::OutOfMemory, 7));
            drop(error);
            assert_eq!((picture(&map), tally.alive()), before);
            drop(map.register(0x5000..0x5100, tally.track(8)).expect("free"));
            false
        }
    };
    assert_eq!(id_at(&map, 0x5000), None);
    map.synchronize();
    assert_eq!((tally.alive(), map.stats().retired), (map.stats().entries, 0));
    Outcome { result: success, asked, refused }
}

#[test]
fn register() {
    warm_up();
    each_refusal("register", |k, for_good| refuse_a_register(4, k, for_good));
}

#[test]
fn register_where_garbage_is_taken_out() {
    warm_up();
    each_refusal("register with garbage", |k, for_good| {
        refuse_a_register(WRITES_PER_RECLAIM - 1, k, for_good)
    });
}

#[test]
fn register_all() {
    warm_up();
    for count in [1, 2, 5, 40] {
        each_refusal(&format!("register_all of {count}"), |k, for_good| {
            let tally = Tally::new();
            let map = populated(&tally, 4);
            let before = (picture(&map), tally.alive());
            let ranges = (0..count).rev().map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, i));
            let items: Vec<_> = ranges.map(|(range, i)| (range, tally.track(100 + i))).collect();
            let ids: Vec<_> = items.iter().map(|(_, value)| value.id()).collect();
            let Outcome { result, asked, refused } =
                refusing(k, for_good, || map.register_all(items));
            let success = match result {
                Ok(registrations) => {
                    assert!(registrations.iter().map(|r| r.value().id()).eq(ids));
                    assert_eq!(map.stats().publications, 5);
                    map.unregister_all(registrations).wait();
                    true
                }
                Err(error) => {
                    assert_eq!(error.reason, Refused::OutOfMemory);
                    let mut back: Vec<_> = error.values.iter().map(Tracked::id).collect();
                    back.extend(error.rest.map(|(_, value)| value.id()));
                    assert_eq!(back, ids, "everything comes back, in order");
                    drop(error.values);
                    assert_eq!((picture(&map), tally.alive()), before);
                    false
                }
            };
            map.synchronize();
            assert_eq!((tally.alive(), map.stats().retired), (map.stats().entries, 0));
            Outcome { result: success, asked, refused }
        });
    }
}

/// Unregisters two of four ranges by `way` with the `k`-th allocation refused; success if it was
/// done by a publication.
fn refuse_an_unregister<'t>(
    tally: &'t Tally,
    map: &Map<'t>,
    k: usize,
    for_good: bool,
    way: impl FnOnce(&Map<'t>, Vec<Registration<'_, Tracked<'t>>>),
) -> Outcome<bool> {
    let items = (0..4).map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, tally.track(100 + i)));
    let mut stays = map.register_all(items).expect("free");
    let goes = vec![stays.remove(2), stays.remove(0)];
    map.synchronize();
    let (alive, dropped) = (tally.alive(), tally.dropped());
    let before = map.stats();
    let kept = map.snapshot();
    let reader = map.enter();
    let hit = reader.lookup(0x5005_usize).expect("registered");

    let outcome = refusing(k, for_good, || way(map, goes));

    let expected = [None, Some(101), None, Some(103)];
    let published = map.stats().publications != before.publications;
    let check = |when| {
        for (i, expected) in (0..).zip(expected) {
            let pcs = [0x5000 + i * 16, 0x500f + i * 16];
            assert_eq!(pcs.map(|pc| id_at(map, pc)), [expected; 2], "{when}");
            let view = map.snapshot();
            assert_eq!(
                pcs.map(|pc| view.find(pc).map(|c| c.value().id())),
                [expected; 2],
                "{when}"
            );
        }
        let stats = map.stats();
        assert_eq!(stats.entries, before.entries - 2, "{when}: {stats}");
        assert_eq!(map.snapshot().len(), before.entries - 2, "{when}");
    };
    check("at once");
    // Nobody destroys what a reader holds, whichever way it went.
    assert!(!map.reclaim().is_empty());
    assert_eq!((hit.value().id(), tally.dropped()), (100, dropped));
    check("after a reclaim");
    // The same range is free again.
    let again = map.register(0x5000..0x5010, tally.track(200)).expect("free again");
    assert_eq!(id_at(map, 0x5005), Some(200));
    drop(again);
    check("after a registration at the same place");
    drop(reader);
    map.synchronize();
    assert_eq!(tally.alive(), alive, "the snapshot still shows them");
    drop(kept);
    assert_eq!(tally.alive(), alive - 2, "dropped, and each once");
    let stats = map.stats();
    assert_eq!((stats.retired, stats.retired_bytes), (0, 0), "{stats}");
    check("in the end");
    drop(stays);
    map.synchronize();
    assert_eq!(tally.alive(), map.stats().entries);
    outcome.map(|_| published)
}

#[test]
fn unregister() {
    warm_up();
    each_refusal("unregister", |k, for_good| {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        refuse_an_unregister(&tally, &map, k, for_good, |_, goes| {
            goes.into_iter().for_each(|registration| {
                registration.unregister();
            });
        })
    });
    each_refusal("drop", |k, for_good| {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        refuse_an_unregister(&tally, &map, k, for_good, |_, goes| drop(goes))
    });
    each_refusal("unregister by key", |k, for_good| {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        refuse_an_unregister(&tally, &map, k, for_good, |map, goes| {
            for registration in goes {
                assert!(map.unregister(registration.into_key()).is_ok());
            }
        })
    });
}

#[test]
fn unregister_all() {
    warm_up();
    each_refusal("unregister_all", |k, for_good| {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        refuse_an_unregister(&tally, &map, k, for_good, |map, goes| {
            map.unregister_all(goes);
        })
    });
}

#[test]
fn unregister_where_garbage_is_taken_out() {
    warm_up();
    each_refusal("unregister_all with garbage", |k, for_good| {
        let tally = Tally::new();
        // One publication before it for the batch of four.
        let map = populated(&tally, WRITES_PER_RECLAIM - 2);
        refuse_an_unregister(&tally, &map, k, for_good, |map, goes| {
            map.unregister_all(goes);
        })
    });
}

#[test]
fn a_large_batch_without_memory_to_collect_it() {
    warm_up();
    let tally = Tally::new();
    let map = populated(&tally, 3);
    let before = tally.alive();
    // From none at all to some: the batch is taken in parts. (Without memory for a version nothing
    // is published, so no garbage is taken out either.)
    for k in 1..6 {
        let items = (0..100).map(|i| (0x5000 + i * 16..0x5000 + i * 16 + 16, tally.track(i)));
        let batch = map.register_all(items).expect("free");
        let outcome = refusing(k, true, || map.unregister_all(batch));
        assert_ne!(outcome.refused, 0);
        for pc in 0x5000..0x5000 + 1600_usize {
            assert_eq!(id_at(&map, pc), None);
        }
        assert_eq!(map.stats().entries, 3);
        let mut retirement = outcome.result;
        assert!(!format!("{retirement:?}").is_empty());
        assert!((0..100).any(|_| retirement.is_complete()), "no reader is inside");
        map.synchronize();
        assert_eq!(tally.alive(), before);
    }
}

#[test]
fn a_retirement_of_buried_code_knows_its_readers() {
    warm_up();
    let tally = Tally::new();
    let map = populated(&tally, 3);
    let code = map.register(0x5000..0x5100, tally.track(7)).expect("free");
    let reader = map.enter();
    let hit = reader.lookup(0x5000_usize).expect("registered");
    let outcome = refusing(1, true, || code.unregister());
    assert_ne!(outcome.refused, 0);
    let mut retirement = outcome.result;
    assert!(reader.lookup(0x5000_usize).is_none(), "no new lookup, in no version");
    for _ in 0..20 {
        assert!(!retirement.is_complete());
    }
    assert_eq!(hit.value().id(), 7);
    drop(reader);
    assert!((0..100).any(|_| retirement.is_complete()));
    assert_eq!(tally.dropped(), 1);
    retirement.wait();
}

#[test]
fn errors_other_than_memory_are_still_told_when_memory_is_short() {
    warm_up();
    let tally = Tally::new();
    let map = populated(&tally, 3);
    each_refusal("conflict", |k, for_good| {
        let value = tally.track(7);
        let register = || map.register(0x1080..0x1180, value);
        refusing(k, for_good, register).map(|result| {
            let error = result.expect_err("0x1000..0x1100 is taken");
            assert_eq!(error.value.id(), 7);
            let overlap = matches!(error.reason, Refused::Overlap { .. });
            assert!(overlap || error.reason == Refused::OutOfMemory);
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
    warm_up();
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
            map.unregister_all(batch);
            refusing(1, true, || drop(map.register(0x100..0x101, tally.track(i))));
        }
        assert!(map.register(0x1000..0x1001, tally.track(1)).is_err());
        drop(reader);
        if pending % 2 == 1 {
            let _ = map.reclaim();
        }
        let view = map.snapshot();
        peak = peak.max(live_bytes() - before);
        drop(map);
        drop(view);
        assert_eq!(tally.alive(), 0);
        assert_eq!(live_bytes(), before, "with {pending} rounds of garbage");
    }
    println!("{peak} bytes at the most, and none afterwards");
    assert!(peak > 0);
}

/// The write that leaves buried code out, whatever else it does.
#[test]
fn a_write_that_tidies_leaves_nothing_behind() {
    warm_up();
    let before = live_bytes();
    {
        let tally = Tally::new();
        let map = populated(&tally, 4);
        for round in 0..10 {
            let code = map.register(0x5000..0x5100, tally.track(7)).expect("free");
            let other = map.register(0x6000..0x6100, tally.track(8)).expect("free");
            let outcome = refusing(1, true, || drop(code));
            assert_ne!(outcome.refused, 0, "buried");
            assert_eq!(id_at(&map, 0x5000), None);
            if round % 2 == 0 {
                drop(other); // this tidies
            } else {
                drop(map.register(0x5080..0x5180, tally.track(9)).expect("free")); // or this
            }
            map.synchronize();
            assert_eq!(tally.alive(), map.stats().entries);
        }
    }
    assert_eq!(live_bytes(), before);
}

#[test]
fn retired_bytes_are_what_is_freed() {
    warm_up();
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
    assert_eq!(freed, retired as isize);
}
