#![expect(unsafe_code, reason = "fork, and ending children")]
//! A fork at any instruction of any call, in a handler.
//!
//! Half of the children do their work in the handler, the other half return from it and complete
//! the very call that was interrupted. A child says by its exit status what failed, and an alarm
//! ends one that hangs. Boundaries inside the allocator are passed over.

use crate::allocator;
use crate::call::{CALLS, Call, Scene};
use crate::is_long;
use crate::site::{Shape, Site, warm_up};
use crate::tracked::Tally;
use crate::trap::{Boundary, Then, step};
use crate::watch::points;
use std::cell::Cell;

/// Seconds after which a child is taken to hang.
const PATIENCE: libc::c_uint = 60;

/// Ends a child, running nothing of the harness.
fn leave(status: u32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status as i32) }
}

/// The exit status that stands for a failed check on a line: one byte, and not zero.
const fn status_for(line: u32) -> u32 {
    line % 251 + 1
}

/// A check in a child: where it stands becomes the exit status.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            leave(status_for(line!()));
        }
    };
}

/// A child registers, looks up, unregisters and synchronizes. `in_call`: it is in the midst of the
/// interrupted call, which may have garbage in hand.
fn live_on(site: &Site, call: &Call, is_after: Option<bool>, in_call: bool) {
    let map = site.map();
    let id_at = |pc| map.lookup(pc, |hit| hit.value().id());
    let [changing, constant] = points(call);
    ensure!(constant.iter().all(|point| id_at(point.pc) == point.before));
    let seen = changing.iter().filter(|point| id_at(point.pc) == point.after).count();
    let unseen = changing.iter().filter(|point| id_at(point.pc) == point.before).count();
    ensure!(seen + unseen == changing.len());
    ensure!(!call.is_one_publication() || seen == 0 || unseen == 0);
    ensure!(is_after.is_none_or(|after| if after { unseen == 0 } else { seen == 0 }));

    let own: &'static Tally = Box::leak(Box::new(Tally::new()));
    let place = call.shape.rivals_gap(call.shape.middle());
    for round in 0..3 {
        let Ok(code) = map.register(place.clone(), own.track(round)) else {
            leave(status_for(line!()))
        };
        ensure!(id_at(place.start) == Some(round));
        ensure!(id_at(place.end).is_none());
        if round == 1 {
            code.unregister().wait();
        } else {
            drop(code);
        }
        ensure!(id_at(place.start).is_none());
    }
    map.synchronize();
    let view = map.snapshot();
    ensure!(
        constant.iter().all(|point| view.find(point.pc).map(|c| c.value().id()) == point.before)
    );
    ensure!(constant.iter().all(|point| id_at(point.pc) == point.before));
    drop(view);
    ensure!(in_call || own.alive() == 0);
}

/// What became of a child.
fn status_of(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is a valid place, and `pid` is our child; async-signal-safe.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {}
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Steps through `call` and forks at every `every`-th boundary. Gives boundaries and forks.
fn fork_every(call: Call, site: &Site, every: usize) -> (usize, [usize; 2]) {
    let mut scene = Scene::new(call, site);
    let forks = Cell::new([0, 0]);
    let due = Cell::new(false);
    let failed = Cell::new(None);
    let completes = Cell::new(false);
    let visit = |boundary: &Boundary| {
        due.set(due.get() || boundary.number.is_multiple_of(every));
        if !due.get() || boundary.in_allocator || failed.get().is_some() {
            return Then::Step;
        }
        due.set(false);
        let mut counts = forks.get();
        let kind = (counts[0] + counts[1]) % 2;
        // SAFETY: the child goes on with what glibc keeps usable after a fork (memory allocation:
        // this thread is not inside it), the crate under test, and `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no preconditions; its default action ends the child.
            unsafe { libc::alarm(PATIENCE) };
            // A panic must not unwind into the harness, of which this process has but one thread.
            std::panic::set_hook(Box::new(|_| leave(254)));
            if kind == 0 {
                allocator::allow();
                live_on(site, &call, None, true);
                leave(0);
            }
            completes.set(true);
            return Then::Run;
        }
        let status = if pid > 0 { status_of(pid) } else { 255 };
        if status != 0 {
            failed.set(Some((boundary.number, boundary.pc, kind, status)));
        }
        counts[kind] += 1;
        forks.set(counts);
        Then::Step
    };
    let ((), steps) = step(&visit, || scene.perform());
    if completes.get() {
        // In a child: the call that was interrupted has ended.
        live_on(site, &call, Some(true), false);
        ensure!(scene.undo().map().stats().retired == 0);
        leave(0);
    }
    scene.undo();
    assert_eq!(
        failed.get(),
        None,
        "{}: boundary, pc, kind of child, exit status (a line % 251 + 1, or a signal)",
        call.name()
    );
    (steps.boundaries, forks.get())
}

#[test]
fn a_fork_at_any_instruction() {
    warm_up();
    let mut total = [0, 0];
    for &call in CALLS {
        if call.shape == Shape::Tall || call.is_large && !is_long() {
            continue;
        }
        let site = Site::new(call.shape);
        let every = call.spacing();
        let (boundaries, forks) = fork_every(call, &site, every);
        site.close();
        let [inside, completed] = forks;
        println!(
            "{}: {} forks, at every {every} of {boundaries} boundaries",
            call.name(),
            inside + completed
        );
        total = [total[0] + inside, total[1] + completed];
    }
    let [inside, completed] = total;
    println!("{inside} children worked in the handler, {completed} completed the call");
    assert!(inside + completed > 500, "suspiciously few forks");
}
