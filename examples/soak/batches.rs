//! Batches of ranges, registered and unregistered by several threads in one map, some of them refused.
//!
//! Each thread has a part of the address space, so it knows what a lookup there must find, while its
//! neighbour's writes go through the same nodes at the border.

use crate::storm::random::Random;
use crate::tally::{Tally, count};
use pcmap::{CodeMap, Refused, Registration};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The batches held by a thread, and ranges of one: two levels of the tree.
const HELD: usize = 24;
const MOST: usize = 300;
/// Bytes of a range, and from one to the next.
const LEN: usize = 0x40;
const APART: usize = 0x60;

pub(crate) type Map = CodeMap<Counted>;

/// A value that is counted while it exists.
#[derive(Debug)]
pub(crate) struct Counted(usize);

static ALIVE: AtomicUsize = AtomicUsize::new(0);

impl Counted {
    pub(crate) fn new(id: usize) -> Self {
        ALIVE.fetch_add(1, Relaxed);
        Self(id)
    }

    /// How many there are.
    pub(crate) fn alive() -> usize {
        ALIVE.load(Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Relaxed);
    }
}

/// A thread's part of the work.
#[derive(Debug)]
pub(crate) struct Writer<'s> {
    map: &'s Map,
    tally: &'s Tally,
    random: Random,
    /// Parts lie interleaved: range `i` of part `p` is number `2 i + p`.
    part: usize,
    /// By place: what is registered there, if anything.
    held: Vec<Vec<Registration<'s, Counted>>>,
}

impl<'s> Writer<'s> {
    pub(crate) fn new(map: &'s Map, tally: &'s Tally, part: usize) -> Self {
        let held = (0..HELD).map(|_| Vec::new()).collect();
        Self { map, tally, random: Random::stream(1000 + part as u64), part, held }
    }

    /// One batch comes or goes.
    pub(crate) fn step(&mut self) {
        let place = self.random.below(HELD);
        if self.held[place].is_empty() {
            self.come(place)
        } else {
            self.go(place)
        }
        if self.random.chance(64) {
            let _ = self.map.reclaim();
        }
    }

    fn start(&self, place: usize, number: usize) -> usize {
        0x10_0000 + ((place * MOST + number) * 2 + self.part) * APART
    }

    fn items(&self, place: usize, len: usize) -> Vec<(std::ops::Range<usize>, Counted)> {
        let starts = (0..len).map(|number| self.start(place, number));
        starts.map(|start| (start..start + LEN, Counted::new(start))).collect()
    }

    fn come(&mut self, place: usize) {
        let len = 1 + self.random.below(MOST);
        let tally = self.tally;
        match self.map.register_all(self.items(place, len)) {
            Ok(code) => {
                tally.check(code.len() == len, || "a batch became shorter".into());
                self.held[place] = code;
                count(&tally.batches);
            }
            Err(error) => tally.check(false, || format!("a batch was refused: {error}")),
        }
        self.look_at(place, true);
        // The same once more is in the way of itself, and comes back.
        match self.map.register_all(self.items(place, len)) {
            Err(error) => {
                let overlap = matches!(error.reason, Refused::Overlap { .. });
                tally.check(overlap && error.values.len() == len, || format!("wrong: {error}"));
                count(&tally.refusals);
            }
            Ok(_) => tally.check(false, || "a batch was accepted twice".into()),
        }
    }

    fn go(&mut self, place: usize) {
        let mut code = std::mem::take(&mut self.held[place]);
        match self.random.below(4) {
            0 => drop(self.map.unregister_all(code)),
            1 => self.map.unregister_all(code).wait(),
            2 => {
                // One after the other, in all ways that there are.
                for (number, code) in code.drain(..).enumerate() {
                    match number % 3 {
                        0 => drop(code),
                        1 => drop(code.unregister()),
                        _ => {
                            let gone = self.map.unregister(code.into_key()).is_ok();
                            self.tally.check(gone, || "a key of this map was refused".into());
                        }
                    }
                }
            }
            _ => drop(code),
        }
        self.look_at(place, false);
    }

    /// The first and the last byte of some ranges, and what lies beside them.
    fn look_at(&mut self, place: usize, there: bool) {
        let len = if there { self.held[place].len() } else { MOST };
        let reader = self.map.enter();
        for _ in 0..8 {
            let number = self.random.below(len.max(1));
            let start = self.start(place, number);
            for (pc, inside) in [(start, true), (start + LEN - 1, true), (start + LEN, false)] {
                let found = reader.lookup(pc).map(|hit| hit.value().0);
                let expected = (there && inside && len > 0).then_some(start);
                self.tally.check(found == expected, || {
                    format!("at {pc:#x} there is {found:x?}, not {expected:x?}")
                });
            }
        }
    }
}
