//! What many ranges at once cost.

use crate::Bench;
use crate::field::Field;
use crate::free_places::{scattered, side_by_side};
use crate::report::SUBJECT;
use crate::rounds::{median, take_turns};

/// The sizes of batches.
const SIZES: [usize; 3] = [10, 1_000, 10_000];

impl Bench {
    pub(crate) fn batches(&mut self, field: Field<'_>) {
        for k in SIZES {
            let more = format!(" k={k}");
            let batches = [
                ("batch", Some(side_by_side(field.layout, k))),
                ("batch_scattered", scattered(field.layout, k)),
            ];
            for (case, batch) in batches {
                let Some(batch) = batch else { continue };
                // Small batches are over before the processor has warmed up to them.
                let repeats = (100 / k).max(1);
                let run = |i: usize| {
                    let contender = field.contenders[i];
                    field
                        .beside_readers(contender, || {
                            let times = (0..repeats).map(|_| contender.batch(&batch));
                            let sums =
                                times.reduce(|sums, more| (sums.0 + more.0, sums.1 + more.1));
                            let (registered, both) = sums.expect("one at least");
                            (registered / (repeats * k) as f64, both / (repeats * k) as f64)
                        })
                        .0
                };
                let times = take_turns(self.rounds, field.contenders.len(), run);
                let totals =
                    times.iter().map(|times| times.iter().map(|&(_, both)| both).collect());
                let setting = field.setting(case, &more);
                self.tell(&setting, field, totals.collect());
                if let Some(subject) = field.names().position(|name| name == SUBJECT) {
                    let registered = median(times[subject].iter().map(|&(alone, _)| alone));
                    let name = format!("{case}_register_ns_per_range");
                    let (layout, n) = (field.layout.name, field.layout.n());
                    let circumstances = format!(" layout={layout} n={n}{}", setting.more);
                    self.report.figure(&name, &circumstances, format!("{registered:.1}"));
                }
                self.tell_memory(&setting, field, run);
            }
        }
    }
}
