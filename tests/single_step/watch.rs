//! What lookups must say at a boundary: the state before the call or the one after, and never back.

use crate::call::Call;
use crate::site::{Map, Shape};
use crate::tracked::Tracked;
use pcmap::{Reader, Snapshot};
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// An address, and the identity of what is registered there before the call and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) pc: usize,
    pub(crate) before: Option<usize>,
    pub(crate) after: Option<usize>,
}

/// The most addresses of either sort.
const MOST: usize = 16;

/// What holds `pc`, worked out without the crate.
fn expected(shape: Shape, targets: &[Range<usize>], pc: usize) -> Option<usize> {
    let residents = (0..shape.residents()).map(|i| shape.resident(i));
    residents.chain(targets.iter().cloned()).find(|range| range.contains(&pc)).map(|r| r.start)
}

/// Addresses that the call changes, and addresses that it does not.
pub(crate) fn points(call: &Call) -> [Vec<Point>; 2] {
    let (shape, targets) = (call.shape, call.targets());
    let mut pcs = vec![0, usize::MAX, shape.start(0) - 1];
    for target in [0, 1, targets.len() / 2, targets.len() - 1].map(|i| targets.get(i)) {
        pcs.extend(target.iter().flat_map(|t| [t.start - 1, t.start, t.end - 1, t.end]));
    }
    if let Some(last) = shape.residents().checked_sub(1) {
        for resident in [0, shape.middle(), last].map(|i| shape.resident(i)) {
            pcs.extend([resident.start, resident.end - 1, resident.end]);
        }
    }
    pcs.sort_unstable();
    pcs.dedup();
    let [before, after] = call.shows_targets().map(|shown| if shown { &targets[..] } else { &[] });
    let points = pcs.iter().map(|&pc| Point {
        pc,
        before: expected(shape, before, pc),
        after: expected(shape, after, pc),
    });
    let (mut changing, mut constant): (Vec<_>, Vec<_>) =
        points.partition(|point| point.before != point.after);
    changing.truncate(MOST);
    constant.truncate(MOST);
    [changing, constant]
}

/// A reader that is held across boundaries, and what it said first.
struct Held {
    reader: Reader<'static, Tracked<'static>>,
    said: [Option<usize>; MOST],
    since: usize,
}

/// The first answer that was wrong.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "for being printed")]
pub(crate) struct Wrong {
    what: &'static str,
    boundary: usize,
    pc: usize,
    found: Option<usize>,
}

/// Looks at each boundary. Neither allocates nor panics.
pub(crate) struct Watch {
    map: &'static Map,
    changing: Vec<Point>,
    constant: Vec<Point>,
    is_one_publication: bool,
    /// For how many boundaries a reader is held; 0: none is.
    holds_for: usize,
    held: RefCell<Option<Held>>,
    /// A snapshot of another map that is being dropped, and an address that it shows.
    view: Option<(Snapshot<Tracked<'static>>, usize)>,
    /// Which of the changing points were seen after the change, a bit each.
    changed: Cell<u32>,
    changed_at: Cell<usize>,
    lookups: Cell<usize>,
    wrong: Cell<Option<Wrong>>,
}

/// The identity of what holds `pc`, if the rest of what is said about it is right too.
fn id_at(reader: &Reader<'_, Tracked<'_>>, pc: usize) -> Option<usize> {
    let hit = reader.lookup(pc)?;
    let (id, range) = (hit.value().id(), hit.range());
    let right = range.start() == id && range.start() + hit.offset() == pc && pc < range.end();
    Some(if right { id } else { usize::MAX })
}

impl Watch {
    pub(crate) fn new(map: &'static Map, call: &Call, holds_for: usize) -> Self {
        let [changing, constant] = points(call);
        Self {
            map,
            changing,
            constant,
            is_one_publication: call.is_one_publication(),
            holds_for,
            held: RefCell::new(None),
            view: None,
            changed: Cell::new(0),
            changed_at: Cell::new(0),
            lookups: Cell::new(0),
            wrong: Cell::new(None),
        }
    }

    /// Also looks at a snapshot of a map that is being dropped.
    pub(crate) fn viewing(self, view: Option<(Snapshot<Tracked<'static>>, usize)>) -> Self {
        Self { view, ..self }
    }

    /// Compares at boundary `number`. Signal-safe.
    pub(crate) fn look(&self, number: usize) {
        let wrong = |what, pc, found| {
            if self.wrong.get().is_none() {
                self.wrong.set(Some(Wrong { what, boundary: number, pc, found }));
            }
        };
        let reader = self.map.enter();
        let mut changed = 0;
        for (i, point) in self.changing.iter().enumerate() {
            let found = id_at(&reader, point.pc);
            if found == point.after {
                changed |= 1 << i;
            } else if found != point.before {
                wrong("neither the state before nor the one after", point.pc, found);
            }
        }
        let all = (1_u32 << self.changing.len()) - 1;
        if self.is_one_publication && changed != 0 && changed != all {
            wrong("a batch half done", 0, Some(changed as usize));
        }
        if changed & self.changed.get() != self.changed.get() {
            wrong("back again", 0, Some(changed as usize));
        }
        if changed != 0 && self.changed_at.get() == 0 {
            self.changed_at.set(number);
        }
        self.changed.set(changed);
        // Some of those that do not change, in turn.
        for step in 0..2 {
            let Some(point) = self.constant.get((number * 2 + step) % self.constant.len().max(1))
            else {
                break;
            };
            let found = id_at(&reader, point.pc);
            if found != point.before {
                wrong("what the call does not touch", point.pc, found);
            }
        }
        drop(reader);
        // A reader of its own for each, too: nothing comes between.
        if let Some(point) = self.changing.get(number % self.changing.len().max(1)) {
            let found = self.map.lookup(point.pc, |hit| hit.value().id());
            let now = changed & 1 << (number % self.changing.len()) != 0;
            if found != if now { point.after } else { point.before } {
                wrong("another answer at the same boundary", point.pc, found);
            }
        }
        if let Some((view, pc)) = &self.view {
            let found = view.find(*pc).map(|code| code.value().id());
            if found != Some(*pc) {
                wrong("a snapshot of the map that goes", *pc, found);
            }
        }
        self.lookups.set(self.lookups.get() + self.changing.len() + 3);
        if self.holds_for != 0 {
            self.look_through_held(number, &wrong);
        }
    }

    /// Takes a reader now and then, and sees that it goes on saying what it said first, without what has
    /// been unregistered since.
    fn look_through_held(&self, number: usize, wrong: &dyn Fn(&'static str, usize, Option<usize>)) {
        let Ok(mut place) = self.held.try_borrow_mut() else { return };
        let is_over = |held: &Held| number >= held.since + self.holds_for;
        if let Some(held) = place.as_mut() {
            let all = is_over(held);
            for (i, point) in self.changing.iter().enumerate() {
                if all || i == number % self.changing.len() {
                    let found = id_at(&held.reader, point.pc);
                    let is_gone = found.is_none() && point.after.is_none();
                    if is_gone {
                        held.said[i] = None; // and does not come back
                    }
                    if found != held.said[i] {
                        wrong("a reader that was held changed its mind", point.pc, found);
                    }
                }
            }
        }
        if place.as_ref().is_none_or(is_over) {
            // The next one enters before this one leaves: there is always one inside.
            let reader = self.map.enter();
            let mut said = [None; MOST];
            for (said, point) in said.iter_mut().zip(&self.changing) {
                *said = id_at(&reader, point.pc);
            }
            *place = Some(Held { reader, said, since: number });
        }
    }

    /// After the call: what was seen, if all of it was right.
    pub(crate) fn close(self) -> Seen {
        drop(self.held.take());
        let reader = self.map.enter();
        for point in self.changing.iter().chain(&self.constant) {
            assert_eq!(id_at(&reader, point.pc), point.after, "after the call, at {:#x}", point.pc);
        }
        Seen {
            changed_at: self.changed_at.get(),
            lookups: self.lookups.get(),
            wrong: self.wrong.get(),
        }
    }
}

/// What a [`Watch`] saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The first boundary at which the state after the call was seen; 0: none.
    pub(crate) changed_at: usize,
    pub(crate) lookups: usize,
    pub(crate) wrong: Option<Wrong>,
}
