//! Views of the process's map that are kept for a while: they must not change, and not hold back what
//! others let go of.

use crate::storm::random::Random;
use crate::tally::{Tally, count};
use pcmap::Snapshot;
use pcmap::registry::{ResidentCode, process_code_map};

/// Views kept at a time.
const KEPT: usize = 6;

/// A view, and what it showed at first.
#[derive(Debug)]
struct Kept {
    view: Snapshot<ResidentCode>,
    showed: (usize, u64),
}

#[derive(Debug)]
pub(crate) struct Views<'s> {
    tally: &'s Tally,
    random: Random,
    kept: Vec<Kept>,
}

impl<'s> Views<'s> {
    pub(crate) fn new(tally: &'s Tally) -> Self {
        Self { tally, random: Random::stream(2000), kept: Vec::new() }
    }

    /// One view comes, and one goes if there are enough.
    pub(crate) fn step(&mut self) {
        let view = process_code_map().snapshot().expect("memory");
        let showed = self.read(&view);
        self.kept.push(Kept { view, showed });
        if self.kept.len() > KEPT {
            let Kept { view, showed } = self.kept.swap_remove(self.random.below(KEPT));
            let shows = self.read(&view);
            self.tally.check(shows == showed, || format!("{showed:?} became {shows:?}"));
            count(&self.tally.views);
        }
    }

    /// How many ranges a view shows, and a number that depends on all of it.
    fn read(&self, view: &Snapshot<ResidentCode>) -> (usize, u64) {
        let (mut count, mut mixed, mut end) = (0, 0_u64, 0);
        for code in view.iter() {
            let range = code.range();
            self.tally.check(range.start() >= end, || format!("{range} is out of order"));
            end = range.end();
            count += 1;
            for number in [range.start(), range.end(), code.value().tables().text_len() as usize] {
                mixed = (mixed ^ number as u64).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
            }
        }
        (count, mixed)
    }
}
