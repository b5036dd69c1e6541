//! What lookups must say about code: the states it goes through, in turn, and never back.

use super::code::{Pages, Wrong, first_byte, owners_of, runs_still};
use pcmap::registry::ResidentCode;
use pcmap::{CodeMap, Reader};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Code that the call is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The number of its region; it may be one that the call allocates.
    pub(crate) region: usize,
    pub(crate) id: u8,
    /// What lookups say: not there, or how many owners.
    pub(crate) states: &'static [Option<usize>],
}

/// The most targets.
pub(crate) const MOST: usize = 8;

/// For each target, which of its states was seen.
pub(crate) type Positions = [usize; MOST];

/// What there is to see around a call. All of its methods are signal-safe.
pub(crate) struct Sight {
    pub(crate) map: &'static CodeMap<ResidentCode>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) targets: Vec<Target>,
    /// Code that the call does not touch, and where it starts.
    pub(crate) neighbours: Vec<(u8, usize)>,
    pub(crate) is_one_publication: bool,
    /// Whether what is found is called, too.
    pub(crate) runs: bool,
    /// The first byte of the last target, before the call and after it, if that is what changes.
    pub(crate) byte: Option<[u8; 2]>,
}

impl Sight {
    /// Looks all targets up, none of which may be in a state before that in `from`.
    pub(crate) fn look(
        &self,
        reader: &Reader<'_, ResidentCode>,
        from: &Positions,
    ) -> Result<Positions, Wrong> {
        let mut seen = *from;
        let (mut present, mut absent) = (false, false);
        for (target, seen) in self.targets.iter().zip(&mut seen) {
            let found = match self.pages.start(target.region) {
                Some(start) => owners_of(reader, start, target.id, self.runs)?,
                None => None, // its address is known to nobody
            };
            let rest = target.states.iter().skip(*seen);
            match rest.clone().position(|state| *state == found) {
                Some(further) => *seen += further,
                None if target.states.contains(&found) => return Err("back again"),
                None => return Err("neither the state before nor the one after"),
            }
            if target.states[0].is_some() != target.states[target.states.len() - 1].is_some() {
                present |= found.is_some();
                absent |= found.is_none();
            }
        }
        if self.is_one_publication && present && absent {
            return Err("half done");
        }
        Ok(seen)
    }

    /// Looks up code that the call does not touch, two pieces of it that `number` tells, and where
    /// no code is.
    pub(crate) fn look_around(
        &self,
        reader: &Reader<'_, ResidentCode>,
        number: usize,
    ) -> Result<(), Wrong> {
        for step in 0..2_usize {
            let turn = (number * 2 + step) % self.neighbours.len().max(1);
            let Some(&(id, start)) = self.neighbours.get(turn) else { break };
            if owners_of(reader, start, id, true)? != Some(1) {
                return Err("what the call does not touch");
            }
        }
        if reader.lookup(0).is_some() || reader.lookup(usize::MAX).is_some() {
            return Err("code where there is none");
        }
        Ok(())
    }

    /// The position of the byte that changes, which may not go back.
    fn look_at_byte(&self, from: usize) -> Result<usize, Wrong> {
        let (Some(states), Some(target)) = (self.byte, self.targets.last()) else { return Ok(0) };
        let Some(start) = self.pages.start(target.region) else { return Err("no region") };
        let byte = first_byte(start);
        let at = states.iter().skip(from).position(|state| *state == byte);
        at.map(|at| from + at).ok_or("the bytes are neither as before nor as after, or back again")
    }

    /// Where all is at the end.
    pub(crate) fn last(&self) -> Positions {
        let mut last = [0; MOST];
        for (last, target) in last.iter_mut().zip(&self.targets) {
            *last = target.states.len() - 1;
        }
        last
    }

    /// Whether the code that appears or disappears does so at all.
    pub(crate) fn is_after(&self, seen: &Positions) -> bool {
        let changes = |(target, seen): (&Target, &usize)| {
            target.states[0].is_some() != target.states[*seen].is_some()
        };
        self.targets.iter().zip(seen).any(changes)
    }

    fn has_change(&self) -> bool {
        self.byte.is_some() || self.targets.iter().any(|target| target.states.len() > 1)
    }
}

/// Looks at each boundary. Neither allocates nor panics.
pub(crate) struct Watch {
    sight: Sight,
    /// For how many boundaries a reader is held; 0: none is.
    holds_for: usize,
    held: RefCell<Option<Held>>,
    seen: Cell<Positions>,
    byte: Cell<usize>,
    changed_at: Cell<usize>,
    looks: Cell<usize>,
    wrong: Cell<Option<(Wrong, usize)>>,
}

/// A reader that is held, since when, and what it found: at first, and last.
struct Held {
    reader: Reader<'static, ResidentCode>,
    since: usize,
    found: [bool; MOST],
    finds: [bool; MOST],
}

impl Watch {
    pub(crate) fn new(sight: Sight, holds_for: usize) -> Self {
        assert!(sight.targets.len() <= MOST);
        Self {
            sight,
            holds_for,
            held: RefCell::new(None),
            seen: Cell::new([0; MOST]),
            byte: Cell::new(0),
            changed_at: Cell::new(0),
            looks: Cell::new(0),
            wrong: Cell::new(None),
        }
    }

    /// Compares at boundary `number`. Signal-safe.
    pub(crate) fn look(&self, number: usize) {
        if let Err(wrong) = self.try_look(number)
            && self.wrong.get().is_none()
        {
            self.wrong.set(Some((wrong, number)));
        }
    }

    fn try_look(&self, number: usize) -> Result<(), Wrong> {
        let reader = self.sight.map.enter();
        self.looks.set(self.looks.get() + 1);
        let (seen, byte) = (self.seen.get(), self.byte.get());
        let now = self.sight.look(&reader, &seen)?;
        let byte_now = self.sight.look_at_byte(byte)?;
        self.seen.set(now);
        self.byte.set(byte_now);
        if (now, byte_now) != ([0; MOST], 0) && self.changed_at.get() == 0 {
            self.changed_at.set(number);
        }
        self.sight.look_around(&reader, number)?;
        drop(reader);
        if self.holds_for != 0 { self.look_through_held(number) } else { Ok(()) }
    }

    /// Takes a reader now and then. It goes on finding what it found first, until that is unregistered, and
    /// nothing that came later. What it found is mapped and executable whatever became of it.
    fn look_through_held(&self, number: usize) -> Result<(), Wrong> {
        let Ok(mut place) = self.held.try_borrow_mut() else { return Ok(()) };
        if let Some(held) = place.as_mut() {
            for (i, target) in self.sight.targets.iter().enumerate() {
                let goes = target.states[target.states.len() - 1].is_none();
                let Some(start) = self.sight.pages.start(target.region) else { continue };
                let found = owners_of(&held.reader, start, target.id, self.sight.runs)?.is_some();
                if found != held.finds[i] && (found || !goes) {
                    return Err("a reader that was held changed its mind");
                }
                held.finds[i] = found;
                if held.found[i] && self.sight.runs && !runs_still(start, target.id) {
                    return Err("what a reader holds has changed");
                }
            }
        }
        if place.as_ref().is_none_or(|held| number >= held.since + self.holds_for) {
            // The next one enters before this one leaves: there is always one inside.
            let reader = self.sight.map.enter();
            let mut found = [false; MOST];
            for (found, target) in found.iter_mut().zip(&self.sight.targets) {
                if let Some(start) = self.sight.pages.start(target.region) {
                    *found = owners_of(&reader, start, target.id, self.sight.runs)?.is_some();
                }
            }
            *place = Some(Held { reader, since: number, found, finds: found });
        }
        Ok(())
    }

    /// After the call: what was seen, if all of it was right.
    pub(crate) fn close(self, name: &str) -> Seen {
        drop(self.held.take());
        let wrong = self.wrong.get();
        assert!(wrong.is_none(), "{name}: what, and at which boundary: {wrong:?}");
        let reader = self.sight.map.enter();
        let last = self.sight.last();
        assert_eq!(self.sight.look(&reader, &last), Ok(last), "{name}: after the call");
        let changed_at = self.changed_at.get();
        assert_eq!(
            changed_at != 0,
            self.sight.has_change(),
            "{name}: both states are to be seen, and the change between two boundaries"
        );
        assert_ne!(changed_at, 1, "{name}: the state before was never seen");
        Seen { changed_at, looks: self.looks.get() }
    }
}

/// What a [`Watch`] saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The first boundary at which anything had changed; 0: nothing did.
    pub(crate) changed_at: usize,
    pub(crate) looks: usize,
}
