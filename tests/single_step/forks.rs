#![expect(unsafe_code, reason = "fork, and ending children")]
//! A fork at any instruction of any call, in a handler.
//!
//! Half of the children do their work in the handler, the other half return from it and complete
//! the very call that was interrupted. A child says by its exit status what failed, and an alarm
//! ends one that hangs. Boundaries inside the allocator are passed over.

use crate::allocator;
use crate::call::{CALLS, Call, Operation, Scene};
use crate::children::{end_children_that_panic, leave, status_for};
use crate::is_long;
use crate::site::{Shape, Site};
use crate::tracked::Tally;
use crate::trap::{Boundary, Then, step};
use crate::watch::points;
use std::cell::Cell;

/// Seconds after which a child is taken to hang.
const PATIENCE: libc::c_uint = 60;

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
    let view = map.snapshot().expect("memory");
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

/// How many children did their work in the handler, and how many after the interrupted call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Children {
    pub(crate) in_handler: usize,
    pub(crate) completed: usize,
}

impl Children {
    pub(crate) fn all(self) -> usize {
        self.in_handler + self.completed
    }

    pub(crate) fn and(self, other: Self) -> Self {
        let (in_handler, completed) =
            (self.in_handler + other.in_handler, self.completed + other.completed);
        Self { in_handler, completed }
    }
}

/// Steps through `work` and forks at every `every`-th boundary. Half of the children `live_on` there
/// and end. The other half complete the work: for them the result is `None`, and they are to live on
/// and end. Else it is the number of boundaries and of children.
pub(crate) fn fork_at_every(
    name: &str,
    every: usize,
    live_on: impl Fn(),
    work: impl FnOnce(),
) -> Option<(usize, Children)> {
    end_children_that_panic();
    let children = Cell::new(Children::default());
    let (due, completes) = (Cell::new(false), Cell::new(false));
    let failed = Cell::new(None);
    let visit = |boundary: &Boundary| {
        due.set(due.get() || boundary.number.is_multiple_of(every));
        if !due.get() || boundary.in_allocator || failed.get().is_some() {
            return Then::Step;
        }
        due.set(false);
        let mut so_far = children.get();
        let in_handler = so_far.all().is_multiple_of(2);
        // SAFETY: the child goes on with what glibc keeps usable after a fork (memory allocation:
        // this thread is not inside it), the crate under test, and `_exit`.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no preconditions; its default action ends the child.
            unsafe { libc::alarm(PATIENCE) };
            if in_handler {
                allocator::allow();
                live_on();
                leave(0);
            }
            completes.set(true);
            return Then::Run;
        }
        let status = if pid > 0 { status_of(pid) } else { 255 };
        if status != 0 {
            failed.set(Some((boundary.number, boundary.pc, in_handler, status)));
        }
        *(if in_handler { &mut so_far.in_handler } else { &mut so_far.completed }) += 1;
        children.set(so_far);
        Then::Step
    };
    let ((), steps) = step(&visit, work);
    if completes.get() {
        return None;
    }
    assert_eq!(
        failed.get(),
        None,
        "{name}: boundary, pc, whether in the handler, exit status (a line % 251 + 1, or a signal)"
    );
    Some((steps.boundaries, children.get()))
}

/// Steps through `call` and forks at every so many boundaries.
fn fork_in(call: Call, site: &Site) -> Children {
    // A child of a tall map goes through all of it: that takes a tenth of a second.
    let spacing = call.spacing();
    let every = if call.shape == Shape::Tall && !is_long() { spacing.max(499) } else { spacing };
    let mut scene = Scene::new(call, site);
    let name = call.name();
    let live_on_here = || live_on(site, &call, None, true);
    let Some((boundaries, children)) =
        fork_at_every(&name, every, live_on_here, || scene.perform())
    else {
        // A child, in which the call that was interrupted has ended.
        live_on(site, &call, Some(true), false);
        ensure!(scene.undo().map().reclaim().is_empty());
        leave(0);
    };
    scene.undo();
    println!("{name}: {} forks, at every {every} of {boundaries} boundaries", children.all());
    children
}

/// Forks in all calls on maps that are tall, or are not.
fn fork_in_all(is_tall: bool) {
    let mut total = Children::default();
    let tall = is_tall.then(|| Site::new(Shape::Tall));
    for &call in CALLS {
        if (call.shape == Shape::Tall) != is_tall || call.is_large && !is_long() {
            continue;
        }
        // Removals on tall maps get thousands of children, for reasons that are not understood yet: only in long runs.
        let removes = matches!(call.operation, Operation::Unregister | Operation::UnregisterAll);
        if is_tall && removes && !is_long() {
            continue;
        }
        let children = match &tall {
            Some(tall) => fork_in(call, tall),
            None => {
                let site = Site::new(call.shape);
                let children = fork_in(call, &site);
                site.close();
                children
            }
        };
        total = total.and(children);
    }
    if let Some(tall) = tall {
        tall.close();
    }
    let Children { in_handler, completed } = total;
    println!("{in_handler} children worked in the handler, {completed} completed the call");
    assert!(total.all() > if is_tall { 100 } else { 500 }, "suspiciously few forks");
}

#[test]
fn a_fork_at_any_instruction() {
    fork_in_all(false);
}

#[test]
fn a_fork_at_any_instruction_on_a_tall_tree() {
    fork_in_all(true);
}
