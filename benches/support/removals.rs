//! What removing alone costs: now and then, and thousands in a row.

use crate::Bench;
use crate::field::Field;
use crate::free_places::{places, scattered, side_by_side};
use crate::rounds::take_turns;

/// Removals between two readings of the clock: enough for the reading not to count, and so few that
/// the ranges that are there for them do not, either.
const REMOVALS: usize = 8;

/// What is dropped one by one.
const DROPPED: usize = 4_096;

impl Bench {
    /// A few ranges are registered, untimed, and removed; then the next few.
    pub(crate) fn removals(&mut self, field: Field<'_>) {
        let places = places(field.layout);
        let at_once = REMOVALS.min(places.len());
        // The registrations between the removals take their part of the turn.
        let pairs = self.pairs_of_a_turn(field, |contender, pairs| {
            field.beside_readers(contender, || contender.pairs(&places, 0, pairs)).0
        });
        let run = |i: usize, round: usize| {
            let (contender, times) = (field.contenders[i], pairs[i].div_ceil(at_once));
            let work = || {
                let firsts = (round * times..(round + 1) * times).map(|time| time * at_once);
                firsts.map(|first| contender.removals(&places, first, at_once)).sum::<f64>()
            };
            field.beside_readers(contender, work).0 / times as f64
        };
        let mut round = 0;
        let times = take_turns(self.rounds, field.contenders.len(), |i| {
            round += 1;
            run(i, round)
        });
        let setting = field.setting("unregister", "");
        self.tell(&setting, field, times);
        self.tell_memory(&setting, field, |i| run(i, 0));
    }

    /// A module's end: each of its functions is dropped on its own.
    pub(crate) fn dropping(&mut self, field: Field<'_>) {
        let cases = [
            ("drop_all", Some(side_by_side(field.layout, DROPPED))),
            ("drop_all_scattered", scattered(field.layout, DROPPED)),
        ];
        for (case, ranges) in cases {
            let Some(ranges) = ranges else { continue };
            let run = |i: usize| {
                let contender = field.contenders[i];
                field.beside_readers(contender, || contender.removals(&ranges, 0, DROPPED)).0
            };
            let times = take_turns(self.rounds, field.contenders.len(), run);
            let setting = field.setting(case, &format!(" k={DROPPED}"));
            self.tell(&setting, field, times);
            self.tell_memory(&setting, field, run);
        }
    }
}
