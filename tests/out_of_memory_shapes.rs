//! Every allocation fails once, for batches on trees of every shape, for what takes out garbage,
//! and in children of `fork`.
//!
//! The maps are shared by the runs of a test: a refused call must leave a map so that it cannot be
//! told from before.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "fork, and ending children")]

mod refusing;
mod tracked;

use pcmap::{CodeMap, Refused, Registration};
use refusing::{Outcome, each_refusal, live_bytes, on_a_fresh_thread, refusing};
use std::cell::RefCell;
use std::ops::Range;
use tracked::{Tally, Tracked};

type Map<'t> = CodeMap<Tracked<'t>>;

/// Whether it is what a call is refused with that lacks memory.
fn is_out_of_memory(reason: Refused) -> bool {
    matches!(reason, Refused::OutOfMemory { bytes } if bytes != 0)
}

/// Brings a map to where it has no garbage.
fn settle(map: &Map<'_>) {
    map.synchronize();
    assert!(map.reclaim().is_empty());
}

/// A map with `residents` ranges of 0x80 bytes, 0x100 apart, and a batch for it.
struct Shape {
    name: &'static str,
    residents: usize,
    batch: fn() -> Vec<Range<usize>>,
}

const BASE: usize = 0x1000_0000;

fn resident(i: usize) -> Range<usize> {
    BASE + i * 0x100..BASE + i * 0x100 + 0x80
}

/// A range in the gap behind a resident.
fn gap(i: usize) -> Range<usize> {
    resident(i).end..resident(i).end + 0x40
}

const SHAPES: &[Shape] = &[
    Shape { name: "a first batch", residents: 0, batch: || (0..3).map(gap).collect() },
    Shape { name: "one leaf", residents: 12, batch: || [7, 3, 11, 0].map(gap).to_vec() },
    Shape {
        name: "a packed leaf that becomes whole",
        residents: 12,
        batch: || vec![1 << 46..(1 << 46) + 1, gap(2)],
    },
    Shape { name: "a full leaf that is cut", residents: 128, batch: || (0..12).map(gap).collect() },
    Shape {
        name: "a leaf that becomes several",
        residents: 12,
        batch: || (0..500).map(|i| 0x100 + i * 16..0x110 + i * 16).collect(),
    },
    Shape {
        name: "many leaves of two levels",
        residents: 2_000,
        batch: || (0..40).map(|i| gap(i * 50)).collect(),
    },
    Shape {
        name: "three levels",
        residents: 40_000,
        batch: || (0..4).map(|i| gap(i * 9_999)).collect(),
    },
    Shape {
        name: "a cut in three levels",
        residents: 40_000,
        batch: || (0..100).map(|i| 0x100 + i * 16..0x110 + i * 16).collect(),
    },
];

fn id_at(map: &Map<'_>, pc: usize) -> Option<usize> {
    map.lookup(pc, |hit| hit.value().id())
}

fn map_of<'t>(shape: &Shape, tally: &'t Tally) -> Map<'t> {
    let map = CodeMap::new();
    if shape.residents != 0 {
        let residents =
            (0..shape.residents).map(resident).map(|r| (r.clone(), tally.track(r.start)));
        map.register_all(residents).expect("free").into_iter().for_each(Registration::leak);
    }
    map
}

/// All that can be seen of the map: what is registered, and the figures that a refused call may not
/// move.
fn picture(map: &Map<'_>) -> (Vec<usize>, [usize; 3], u64) {
    let view = map.snapshot().expect("memory");
    let stats = map.stats();
    let shown = view.iter().map(|code| code.value().id()).collect();
    (shown, [stats.entries, stats.index_bytes, stats.retired as usize], stats.publications)
}

/// The batch is there, or not, at its first and last bytes and in snapshots.
fn check_batch(map: &Map<'_>, batch: &[Range<usize>], is_there: bool) {
    let view = map.snapshot().expect("memory");
    for range in batch {
        let expected = is_there.then_some(range.start);
        for pc in [range.start, range.end - 1] {
            assert_eq!(id_at(map, pc), expected, "{pc:#x}");
            assert_eq!(view.find(pc).map(|code| code.value().id()), expected, "{pc:#x}");
        }
    }
}

fn items<'t>(batch: &[Range<usize>], tally: &'t Tally) -> Vec<(Range<usize>, Tracked<'t>)> {
    batch.iter().map(|range| (range.clone(), tally.track(range.start))).collect()
}

#[test]
fn register_all_on_every_shape() {
    for shape in SHAPES {
        let tally = Tally::new();
        let shared = map_of(shape, &tally);
        let batch = (shape.batch)();
        each_refusal(&format!("register_all, {}", shape.name), |k, for_good| {
            // A first batch wants a map that was never written to.
            let own = (shape.residents == 0).then(CodeMap::new);
            let map = own.as_ref().unwrap_or(&shared);
            settle(map);
            let (before, alive, bytes) = (picture(map), tally.alive(), live_bytes());
            let items = items(&batch, &tally);
            let Outcome { result, asked, refused } =
                on_a_fresh_thread(|| refusing(k, for_good, || map.register_all(items)));
            let success = match result {
                Ok(code) => {
                    check_batch(map, &batch, true);
                    assert!((before.2 + 1..before.2 + 3).contains(&map.stats().publications));
                    map.unregister_all(code).wait();
                    true
                }
                Err(error) => {
                    assert!(is_out_of_memory(error.reason), "{:?}", error.reason);
                    let back = error.values.iter().map(Tracked::id);
                    let back: Vec<_> = back.chain(error.rest.map(|(_, v)| v.id())).collect();
                    assert!(back.iter().eq(batch.iter().map(|range| &range.start)));
                    drop(error.values);
                    check_batch(map, &batch, false);
                    false
                }
            };
            settle(map);
            assert_eq!(tally.alive(), alive, "what came back or was dropped, and no more");
            let bytes_now = live_bytes();
            if !success {
                let after = picture(map);
                assert!(after == before, "{}: a refused batch left its mark", shape.name);
                assert_eq!(bytes_now, bytes, "leaked");
            }
            check_batch(map, &batch, false);
            Outcome { result: success, asked, refused }
        });
        drop(shared);
        assert_eq!(tally.alive(), 0);
    }
}

/// Unregistering and waiting need no memory, whatever the shape of the tree.
#[test]
fn unregister_all_on_every_shape() {
    for shape in SHAPES {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let batch = (shape.batch)();
        for way in 0..4 {
            let alive = tally.alive();
            let code = map.register_all(items(&batch, &tally)).expect("free");
            settle(&map);
            let before = map.stats();
            let outcome = on_a_fresh_thread(|| {
                refusing(1, true, || match way {
                    0 => map.unregister_all(code).wait(),
                    1 => drop(map.unregister_all(code)),
                    2 => code.into_iter().for_each(|code| code.unregister().wait()),
                    _ => {
                        drop(code);
                        map.synchronize();
                    }
                })
            });
            assert_eq!(outcome.asked, 0, "{}", shape.name);
            check_batch(&map, &batch, false);
            let stats = map.stats();
            assert_eq!((stats.entries, stats.publications), (shape.residents, before.publications));
            assert_eq!(stats.removed, before.removed + batch.len());
            if way != 1 {
                assert_eq!(tally.alive(), alive, "waited for");
            }
            // Whatever way it went, nothing is left of it in the end.
            settle(&map);
            check_batch(&map, &batch, false);
            assert_eq!(tally.alive(), alive);
            let stats = map.stats();
            assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
            assert_eq!(map.snapshot().expect("memory").len(), shape.residents);
        }
        drop(map);
        assert_eq!(tally.alive(), 0);
    }
}

/// Removed ranges are left out by a later call, or stay when that has no memory either: lookups and
/// snapshots cannot tell.
#[test]
fn leaving_out_what_is_removed() {
    for call in ["reclaim", "register"] {
        for shape in &SHAPES[1..6] {
            let batch = (shape.batch)();
            let residents: Vec<_> = (0..shape.residents).map(resident).collect();
            each_refusal(&format!("{call}, removed ranges, {}", shape.name), |k, for_good| {
                let tally = Tally::new();
                let map = Map::new();
                let code = map.register_all(items(&batch, &tally)).expect("free");
                let mut more = map.register_all(items(&residents, &tally)).expect("free");
                let some = more.drain(residents.len() / 4..).chain(code);
                drop(map.unregister_all(some));
                let removed = map.stats().removed;
                let outcome = on_a_fresh_thread(|| {
                    refusing(k, for_good, || match call {
                        "reclaim" => map.reclaim().is_empty(),
                        _ => match map.register(0x10..0x20, tally.track(0x10)) {
                            Ok(code) => {
                                code.leak();
                                true
                            }
                            Err(error) => {
                                assert!(is_out_of_memory(error.reason), "{error}");
                                false
                            }
                        },
                    })
                });
                let check = || {
                    check_batch(&map, &batch, false);
                    let (stay, go) = residents.split_at(residents.len() / 4);
                    check_batch(&map, stay, true);
                    check_batch(&map, go, false);
                };
                check();
                assert!(map.stats().removed <= removed);
                settle(&map);
                check();
                let stats = map.stats();
                assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
                outcome
            });
        }
    }
}

/// What is said to need no memory asks for none, on a thread that has done nothing before.
#[test]
fn calls_that_ask_for_no_memory() {
    for shape in &SHAPES[1..] {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let batch = (shape.batch)();
        let mut code = map.register_all(items(&batch, &tally)).expect("free");
        settle(&map);
        let view = map.snapshot().expect("memory");
        let mut another = None;
        let calls: [(&str, &mut (dyn FnMut() + Send)); 9] = [
            ("lookup", &mut || assert!(id_at(&map, batch[0].start).is_some())),
            ("enter", &mut || drop(map.enter())),
            ("snapshot, again", &mut || another = Some(map.snapshot().expect("no memory needed"))),
            ("find", &mut || assert!(view.find(batch[0].start).is_some())),
            ("iter", &mut || assert_eq!(view.iter().count(), shape.residents + batch.len())),
            ("stats", &mut || assert_eq!(map.stats().entries, shape.residents + batch.len())),
            ("eras", &mut || assert_eq!(map.eras().count(), 1)),
            ("synchronize", &mut || map.synchronize()),
            ("leak, into_key", &mut || {
                code.pop().expect("a batch").leak();
                let key = code.pop().expect("of at least two").into_key();
                assert_eq!(key.range().start(), key.value().id());
            }),
        ];
        for (name, call) in calls {
            let outcome = on_a_fresh_thread(|| refusing(1, true, call));
            assert_eq!(outcome.asked, 0, "{name}, {}", shape.name);
        }
        drop(map.unregister_all(code));
        let outcome = on_a_fresh_thread(|| {
            refusing(1, true, move || {
                drop((view, another));
                drop(map);
            })
        });
        assert_eq!(outcome.asked, 0, "dropping snapshots and the map");
        assert_eq!(tally.alive(), 0);
    }
}

/// Ends a child, running nothing of the harness.
fn leave(status: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Runs `work` in a child of `fork`; its exit status, or the signal that ended it, negated.
fn in_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child goes on with what glibc keeps usable after a fork (memory allocation), the
    // crate under test, and `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: no preconditions; its default action ends a child that hangs.
        unsafe { libc::alarm(60) };
        // A panic must not unwind into the harness, of which this process has but one thread.
        std::panic::set_hook(Box::new(|_| leave(PANICKED)));
        leave(work());
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place, and `pid` is our child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

const PANICKED: i32 = 99;
const NOT_REFUSED: i32 = 1;
const RIDDEN_OUT: i32 = 2;
const REPORTED: i32 = 3;

/// A child's first write may need an era of its own, besides what every write makes.
#[test]
fn the_first_write_of_a_child() {
    let tally = Tally::new();
    // With no reader lost, and with so many that there is no era object left for another.
    for lost in [0, 1, 2, 6] {
        let map = map_of(&SHAPES[1], &tally);
        drop(map.register(gap(4), tally.track(4)).expect("free")); // garbage, to inherit
        for _ in 0..lost {
            std::mem::forget(map.enter());
            drop(map.register(gap(4), tally.track(4)).expect("free"));
            let _ = map.reclaim();
        }
        let code = RefCell::new(Some(map.register(gap(3), tally.track(3)).expect("free")));
        each_refusal(&format!("register in a child, {lost} readers lost"), |k, for_good| {
            let status = in_child(|| {
                let publications = map.stats().publications;
                let Outcome { result, refused, .. } =
                    refusing(k, for_good, || map.register(gap(7), tally.track(7)));
                assert_eq!(id_at(&map, gap(7).start), result.is_ok().then_some(7));
                assert_eq!(id_at(&map, gap(3).start), Some(3));
                assert!((0..12).all(|i| id_at(&map, resident(i).start) == Some(resident(i).start)));
                let written = map.stats().publications != publications;
                assert_eq!(written, result.is_ok());
                drop(result.map_err(|error| assert!(is_out_of_memory(error.reason), "{error}")));
                // And with memory everything works.
                let dropped = tally.dropped();
                map.register(gap(8), tally.track(8)).expect("free").unregister().wait();
                assert!(tally.dropped() > dropped);
                drop(code.take());
                let _ = map.reclaim();
                match (refused, written) {
                    (0, _) => NOT_REFUSED,
                    (_, true) => RIDDEN_OUT,
                    (_, false) => REPORTED,
                }
            });
            assert!((NOT_REFUSED..=REPORTED).contains(&status), "a child failed: {status}");
            let refused = usize::from(status != NOT_REFUSED);
            Outcome { result: status != REPORTED, asked: 0, refused }
        });
        // Unregistering needs none, in a child as elsewhere.
        let status = in_child(|| {
            let code = code.take().expect("registered");
            let dropped = tally.dropped();
            // (Where readers are lost, an era for the child may want memory; it does without.)
            refusing(1, true, || code.unregister().wait());
            assert!(tally.dropped() > dropped);
            assert_eq!(id_at(&map, gap(3).start), None);
            if lost == 0 {
                assert_eq!(refusing(1, true, || map.synchronize()).asked, 0);
            }
            RIDDEN_OUT
        });
        assert_eq!(status, RIDDEN_OUT);
    }
}

/// A thread's first snapshot is an error where there is no memory, like any other.
#[test]
fn a_threads_first_snapshot_without_memory() {
    let tally = Tally::new();
    let map = map_of(&SHAPES[1], &tally);
    let outcome = on_a_fresh_thread(|| refusing(1, true, || map.snapshot()));
    let outcome = outcome.map(|result| result.map(|view| view.len()));
    let error = outcome.result.expect_err("there is no memory");
    assert_eq!(outcome.refused, 1);
    assert_ne!(error.bytes, 0);
    assert_eq!(map.snapshot().expect("memory").len(), 12);
}
