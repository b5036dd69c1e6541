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
use refusing::{Outcome, each_refusal, live_bytes, refusing, warm_up};
use std::cell::RefCell;
use std::ops::Range;
use tracked::{Tally, Tracked};

type Map<'t> = CodeMap<Tracked<'t>>;

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
    let view = map.snapshot();
    let stats = map.stats();
    let shown = view.iter().map(|code| code.value().id()).collect();
    (shown, [stats.entries, stats.index_bytes, stats.retired as usize], stats.publications)
}

/// The batch is there, or not, at its first and last bytes and in snapshots.
fn check_batch(map: &Map<'_>, batch: &[Range<usize>], is_there: bool) {
    let view = map.snapshot();
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
    warm_up();
    for shape in SHAPES {
        let tally = Tally::new();
        let shared = map_of(shape, &tally);
        let batch = (shape.batch)();
        each_refusal(&format!("register_all, {}", shape.name), |k, for_good| {
            // A first batch wants a map that was never written to.
            let own = (shape.residents == 0).then(CodeMap::new);
            let map = own.as_ref().unwrap_or(&shared);
            map.synchronize();
            let (before, alive, bytes) = (picture(map), tally.alive(), live_bytes());
            let items = items(&batch, &tally);
            let Outcome { result, asked, refused } =
                refusing(k, for_good, || map.register_all(items));
            let success = match result {
                Ok(code) => {
                    check_batch(map, &batch, true);
                    assert_eq!(map.stats().publications, before.2 + 1);
                    map.unregister_all(code).wait();
                    true
                }
                Err(error) => {
                    assert_eq!(error.reason, Refused::OutOfMemory);
                    let back = error.values.iter().map(Tracked::id);
                    let back: Vec<_> = back.chain(error.rest.map(|(_, v)| v.id())).collect();
                    assert!(back.iter().eq(batch.iter().map(|range| &range.start)));
                    drop(error.values);
                    check_batch(map, &batch, false);
                    false
                }
            };
            map.synchronize();
            assert_eq!(tally.alive(), alive, "what came back or was dropped, and no more");
            let bytes_now = live_bytes();
            if !success {
                let mut after = picture(map);
                if shape.residents == 0 {
                    after.1[1] = 0; // the empty version that every map begins with
                }
                assert!(after == before, "{}: a refused batch left its mark", shape.name);
                // The memory for what a map has from its first write on stays with it.
                assert!(shape.residents == 0 || bytes_now == bytes, "leaked");
            }
            check_batch(map, &batch, false);
            Outcome { result: success, asked, refused }
        });
        drop(shared);
        assert_eq!(tally.alive(), 0);
    }
}

#[test]
fn unregister_all_on_every_shape() {
    warm_up();
    for shape in SHAPES {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let batch = (shape.batch)();
        each_refusal(&format!("unregister_all, {}", shape.name), |k, for_good| {
            let alive = tally.alive();
            let code = map.register_all(items(&batch, &tally)).expect("free");
            map.synchronize();
            let publications = map.stats().publications;
            let outcome = refusing(k, for_good, || {
                map.unregister_all(code);
            });
            check_batch(&map, &batch, false);
            let published = map.stats().publications == publications + 1;
            assert_eq!(map.stats().entries, shape.residents);
            // Whatever way it went, nothing is left of it in the end.
            map.synchronize();
            check_batch(&map, &batch, false);
            assert_eq!((tally.alive(), map.stats().retired), (alive, 0));
            assert_eq!(map.snapshot().len(), shape.residents);
            outcome.map(|_| published)
        });
        drop(map);
        assert_eq!(tally.alive(), 0);
    }
}

/// What is buried is left out by a later call, or stays buried when that has no memory either.
#[test]
fn taking_out_what_is_buried() {
    warm_up();
    type Way = fn(&Map<'_>) -> bool;
    let ways: [(&str, Way); 2] = [
        ("reclaim", |map| map.reclaim().is_empty() && map.stats().publications % 2 == 1),
        ("snapshot and reclaim", |map| {
            let view = map.snapshot();
            let _ = map.reclaim();
            view.find(gap(1).start).is_none() && map.stats().publications % 2 == 1
        }),
    ];
    for (name, way) in ways {
        for shape in &SHAPES[1..6] {
            let batch = (shape.batch)();
            each_refusal(&format!("{name}, buried, {}", shape.name), |k, for_good| {
                let tally = Tally::new();
                let map = map_of(shape, &tally); // one publication
                let code = map.register_all(items(&batch, &tally)).expect("free"); // two
                let outcome = refusing(1, true, || {
                    map.unregister_all(code);
                });
                assert_ne!(outcome.refused, 0, "buried");
                let Outcome { result: tidied, asked, refused } =
                    refusing(k, for_good, || way(&map));
                check_batch(&map, &batch, false);
                assert_eq!(map.stats().entries, shape.residents);
                map.synchronize();
                assert_eq!((tally.alive(), map.stats().retired), (shape.residents, 0));
                check_batch(&map, &batch, false);
                Outcome { result: tidied, asked, refused }
            });
        }
    }
}

/// A retirement asks again when there was no memory; `wait` and `synchronize` ride it out.
#[test]
fn waiting_without_memory() {
    warm_up();
    let shape = &SHAPES[1];
    each_refusal("is_complete", |k, for_good| {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let code = map.register(gap(5), tally.track(5)).expect("free");
        let mut retirement = refusing(1, true, || code.unregister()).result;
        let Outcome { result, asked, refused } =
            refusing(k, for_good, || (0..4).any(|_| retirement.is_complete()));
        assert_eq!(id_at(&map, gap(5).start), None);
        assert!(result || refused != 0, "no reader is inside");
        assert!((0..100).any(|_| retirement.is_complete()));
        assert_eq!(tally.alive(), shape.residents);
        Outcome { result, asked, refused }
    });
    for k in 1..12 {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let code = map.register(gap(5), tally.track(5)).expect("free");
        refusing(k, false, || code.unregister().wait());
        assert_eq!(tally.alive(), shape.residents, "with allocation {k} refused");
        drop(map.register(gap(5), tally.track(5)).expect("free"));
        refusing(k, false, || map.synchronize());
        assert_eq!((tally.alive(), map.stats().retired), (shape.residents, 0));
    }
}

/// What is said to need no memory asks for none.
#[test]
fn calls_that_ask_for_no_memory() {
    warm_up();
    for shape in &SHAPES[1..] {
        let tally = Tally::new();
        let map = map_of(shape, &tally);
        let batch = (shape.batch)();
        let mut code = map.register_all(items(&batch, &tally)).expect("free");
        map.synchronize();
        let view = map.snapshot();
        let mut another = None;
        let calls: [(&str, &mut dyn FnMut()); 7] = [
            ("lookup", &mut || assert!(id_at(&map, batch[0].start).is_some())),
            ("enter", &mut || drop(map.enter())),
            ("snapshot", &mut || another = Some(map.snapshot())),
            ("find", &mut || assert!(view.find(batch[0].start).is_some())),
            ("iter", &mut || assert_eq!(view.iter().count(), shape.residents + batch.len())),
            ("stats", &mut || assert_eq!(map.stats().entries, shape.residents + batch.len())),
            ("leak, into_key", &mut || {
                code.pop().expect("a batch").leak();
                let key = code.pop().expect("of at least two").into_key();
                assert_eq!(key.range().start(), key.value().id());
            }),
        ];
        for (name, call) in calls {
            let outcome = refusing(1, true, call);
            assert_eq!(outcome.asked, 0, "{name}, {}", shape.name);
        }
        map.unregister_all(code);
        let outcome = refusing(1, true, || map.reclaim());
        assert_eq!((outcome.asked, outcome.result.is_empty()), (0, true), "reclaim");
        let outcome = refusing(1, true, move || {
            drop((view, another));
            drop(map);
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

/// A child's first write makes what a process has of its own, besides what every write makes.
#[test]
fn the_first_write_of_a_child() {
    warm_up();
    for (name, is_register) in [("register", true), ("unregister", false)] {
        let tally = Tally::new();
        let map = map_of(&SHAPES[1], &tally);
        let code = RefCell::new(Some(map.register(gap(3), tally.track(3)).expect("free")));
        drop(map.register(gap(4), tally.track(4)).expect("free")); // garbage, to inherit
        each_refusal(&format!("{name} in a child"), |k, for_good| {
            let status = in_child(|| {
                let publications = map.stats().publications;
                let Outcome { result, refused, .. } = refusing(k, for_good, || {
                    if is_register {
                        map.register(gap(7), tally.track(7)).map(Some)
                    } else {
                        drop(code.take());
                        Ok(None)
                    }
                });
                let (there, gone) = if is_register { (7, 99) } else { (99, 3) };
                assert_eq!(id_at(&map, gap(7).start), (result.is_ok() && there == 7).then_some(7));
                assert_eq!(id_at(&map, gap(3).start), (gone != 3).then_some(3));
                assert!((0..12).all(|i| id_at(&map, resident(i).start) == Some(resident(i).start)));
                let written = map.stats().publications != publications;
                drop(result.map_err(|error| assert_eq!(error.reason, Refused::OutOfMemory)));
                // And with memory everything works.
                drop(map.register(gap(8), tally.track(8)).expect("free"));
                drop(code.take());
                map.synchronize();
                let _ = map.reclaim();
                assert_eq!((tally.alive(), map.stats().retired), (12, 0));
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
    }
}

/// The one dependency that aborts: where there is no memory at a thread's first snapshot, it does
/// that, and nothing else.
#[test]
fn a_threads_first_snapshot_without_memory() {
    let aborted = std::thread::spawn(|| {
        let tally = Tally::new();
        let map = map_of(&SHAPES[1], &tally);
        in_child(|| {
            let view = refusing(1, true, || map.snapshot());
            assert_eq!(view.result.len(), 12);
            if view.refused == 0 { NOT_REFUSED } else { RIDDEN_OUT }
        })
    });
    let status = aborted.join().expect("no panic");
    println!(
        "a thread's first snapshot without memory: {status} (-6: aborted; 1: memory of a thread that ended was taken)"
    );
    assert!(status == -libc::SIGABRT || status == NOT_REFUSED, "{status}");
}
