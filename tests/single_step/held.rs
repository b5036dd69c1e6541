//! A thread held at any instruction of any call, for a while or for ever: the others go on.
//!
//! Boundaries inside the allocator are passed over: a thread that is stopped there may have the
//! allocator's own lock.

use crate::call::{CALLS, Call, Operation, Scene};
use crate::futex::{Count, stop_for_ever};
use crate::is_long;
use crate::site::{Shape, Site};
use crate::trap::{Boundary, Then, step};
use crate::watch::{Point, points};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// What others do while the call stands still: each to be completed. The state before the call or
/// the one after is what they see, which is given: whether it is the one after.
fn go_on(site: &Site, call: &Call, [changing, constant]: &[Vec<Point>; 2], write: bool) -> bool {
    let map = site.map();
    let id_at = |pc| map.lookup(pc, |hit| hit.value().id());
    for point in constant {
        assert_eq!(id_at(point.pc), point.before, "at {:#x}", point.pc);
    }
    let mut after = 0;
    for point in changing {
        let found = id_at(point.pc);
        assert!(found == point.before || found == point.after, "at {:#x}", point.pc);
        after += usize::from(found == point.after);
    }
    if call.is_one_publication() {
        assert!(after == 0 || after == changing.len(), "{after} of {}", changing.len());
    }
    if write {
        let place = call.shape.rivals_gap(call.shape.middle());
        let (first, last) = (place.start, place.end - 1);
        let code = site.register(place.clone());
        assert_eq!((id_at(first), id_at(last)), (Some(first), Some(first)));
        assert_eq!(id_at(last + 1), None);
        drop(code.unregister());
        assert_eq!(id_at(first), None);
    } else if call.shape.residents() != 0 {
        // A write that is refused takes nothing from the one under way.
        let taken = call.shape.resident(call.shape.middle());
        let value = site.tally.track(1);
        assert!(map.register(taken.start..taken.start + 1, value).is_err());
    }
    let _ = map.reclaim();
    after != 0
}

/// Says where a thread hung, and ends the process: nothing else can be done about it.
fn give_up(name: &str, number: usize) -> ! {
    eprintln!("{name}: held at boundary {number}, and another thread hangs");
    std::process::abort();
}

/// Steps through `work`; at the boundaries that `when` picks (or, with `once`, at the first of them)
/// it is held, and another thread makes `go_on` meanwhile, which says whether it saw the state after
/// the work. Gives the boundaries and the holds.
pub(crate) fn hold_while(
    name: &str,
    when: impl Fn(usize) -> bool,
    once: bool,
    go_on: impl Fn() -> bool + Sync,
    work: impl FnOnce(),
) -> (usize, usize) {
    let (asked, done) = (Count::default(), Count::default());
    let (over, was_after) = (AtomicBool::new(false), AtomicBool::new(false));
    let (holds, due) = (Cell::new(0), Cell::new(false));
    let ((), steps) = thread::scope(|scope| {
        scope.spawn(|| {
            /// Counts as done however it ends, so that the other thread is not left waiting.
            struct Done<'a>(&'a Count);
            impl Drop for Done<'_> {
                fn drop(&mut self) {
                    self.0.raise();
                }
            }
            for round in 0.. {
                // The other thread's call takes as long as it takes.
                while !asked.wait_above(round) {}
                if over.load(SeqCst) {
                    break;
                }
                let _done = Done(&done);
                let after = go_on();
                assert!(after || !was_after.load(SeqCst), "back again");
                was_after.store(after, SeqCst);
            }
        });
        let visit = |boundary: &Boundary| {
            due.set(due.get() || when(boundary.number));
            if !due.get() || boundary.in_allocator {
                return Then::Step;
            }
            due.set(false);
            holds.set(holds.get() + 1);
            asked.raise();
            if !done.wait_above(asked.get() - 1) {
                give_up(name, boundary.number);
            }
            if once { Then::Run } else { Then::Step }
        };
        let result = step(&visit, work);
        over.store(true, SeqCst);
        asked.raise();
        result
    });
    (steps.boundaries, holds.get())
}

/// Holds `call`, as [`hold_while`] says; `write`: the other thread writes what takes something from
/// the call.
fn hold(
    call: Call,
    site: &Site,
    write: bool,
    when: impl Fn(usize) -> bool,
    once: bool,
) -> (usize, usize) {
    let (points, name) = (points(&call), call.name());
    let mut scene = Scene::new(call, site);
    let go_on = || go_on(site, &call, &points, write);
    let counts = hold_while(&name, when, once, go_on, || scene.perform());
    let after = call.shows_targets()[1];
    for target in call.targets() {
        let found = site.map().lookup(target.start, |hit| hit.value().id());
        assert_eq!(found, after.then_some(target.start), "{name}");
    }
    scene.undo();
    counts
}

/// Starts a thread that sets a scene, makes its call, and stops for ever at boundary `at`. Returns
/// when it stands there; whether it does, and did not come to the end before.
pub(crate) fn stop_at<S>(
    at: usize,
    set: impl FnOnce() -> S + Send + 'static,
    perform: impl FnOnce(&mut S) + Send + 'static,
) -> bool {
    const STACK: usize = 1 << 20;
    let stands: &'static Count = Box::leak(Box::default());
    let ended: &'static AtomicBool = Box::leak(Box::default());
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || {
        let mut scene = set();
        let visit = |boundary: &Boundary| {
            if boundary.number < at || boundary.in_allocator {
                return Then::Step;
            }
            stands.raise();
            stop_for_ever()
        };
        step(&visit, || perform(&mut scene));
        ended.store(true, SeqCst);
        stands.raise();
        std::mem::forget(scene);
    });
    let thread = thread.expect("a thread");
    while !stands.wait_above(0) {
        assert!(!thread.is_finished(), "it panicked");
    }
    !ended.load(SeqCst)
}

/// Runs `one` for every call, on a map of its shape.
fn for_all(one: impl Fn(Call, &Site)) {
    let tall = Site::new(Shape::Tall);
    for &call in CALLS {
        if call.shape == Shape::Tall {
            one(call, &tall);
        } else {
            let site = Site::new(call.shape);
            one(call, &site);
            site.close();
        }
    }
    tall.close();
}

/// Held again and again during one call, while another thread does what takes nothing from it:
/// lookups, refused writes, taking out garbage.
#[test]
fn a_call_held_again_and_again() {
    let totals = Cell::new(0);
    for_all(|call, site| {
        if call.is_large && !is_long() {
            return;
        }
        let every = call.spacing();
        let when = |number: usize| number.is_multiple_of(every);
        let (boundaries, holds) = hold(call, site, false, when, false);
        println!("{}: held {holds} times, every {every} of {boundaries} boundaries", call.name());
        totals.set(totals.get() + holds);
    });
    println!("held {} times in all", totals.get());
    assert!(totals.get() > 1000, "suspiciously few holds");
}

/// In the long version each call is made so many times, each time stepped through to another boundary:
/// without optimisation that takes a minute or more for some.
pub(crate) const LONG_RUNS: usize = if cfg!(debug_assertions) { 30 } else { 200 };
/// And so many threads are stopped in it: they stay, so there cannot be any number of them.
pub(crate) const LONG_STOPS: usize = if cfg!(debug_assertions) { 30 } else { 60 };

/// Held once in each of many runs, while another thread registers, looks up, unregisters and
/// reclaims: the call that was held has to begin anew, if its moment had not come.
#[test]
fn a_call_held_while_others_write() {
    let runs = if is_long() { LONG_RUNS } else { 3 };
    let totals = Cell::new(0);
    let tall = Site::new(Shape::Tall);
    for &call in CALLS {
        if call.is_large && !is_long() {
            continue;
        }
        let own = |call: &Call| (call.shape != Shape::Tall).then(|| Site::new(call.shape));
        let once = |at: usize| {
            let site = own(&call);
            let when = |number| number == at;
            let counts = hold(call, site.as_ref().unwrap_or(&tall), true, when, true);
            if let Some(site) = site {
                site.close();
            }
            counts
        };
        // How many boundaries there are.
        let (boundaries, _) = once(usize::MAX);
        let every = (boundaries / runs).max(1);
        let holds: usize = (1..=boundaries).step_by(every).map(|at| once(at).1).sum();
        println!("{}: held once at every {every} of {boundaries} boundaries", call.name());
        totals.set(totals.get() + holds);
    }
    tall.close();
    println!("held {} times in all", totals.get());
    assert!(totals.get() > 100, "suspiciously few holds");
}

/// Threads stop for ever, several in the midst of the same call on the same map, and are still
/// there when the test ends (and the process, too): every other thread goes on.
#[test]
fn threads_that_stop_for_ever() {
    let stops = if is_long() { LONG_STOPS } else { 3 };
    let mut total = 0;
    for &call in CALLS {
        // Two threads cannot both register the same.
        let shared = matches!(
            call.operation,
            Operation::RegisterRefused
                | Operation::Reclaim
                | Operation::Synchronize
                | Operation::Enter
                | Operation::Lookup
                | Operation::Snapshot
                | Operation::Stats
        );
        if call.shape == Shape::Tall || call.is_large {
            continue;
        }
        let new_site = || -> &'static Site { Box::leak(Box::new(Site::new(call.shape))) };
        let mut site = new_site();
        let (boundaries, _) = hold(call, site, true, |_| false, false);
        let mut stopped = 0;
        for at in (1..boundaries).step_by((boundaries / stops).max(1)) {
            if !shared {
                site = new_site();
            }
            stopped += usize::from(stop_at(at, move || Scene::new(call, site), Scene::perform));
            // This thread, and one that comes later.
            let go_on = move || go_on(site, &call, &points(&call), true);
            let before = go_on();
            let other = thread::spawn(go_on).join().expect("no panic");
            assert!(other || !before, "back again");
            drop(site.map().snapshot().expect("memory"));
        }
        println!("{}: {stopped} threads stopped for ever", call.name());
        total += stopped;
    }
    println!("{total} threads are stopped");
    assert!(total > 60, "suspiciously few");
}
