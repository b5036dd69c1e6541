//! What writing costs, without readers, and with one that looks up all the time:
//!
//! - `pair`: a range registered and unregistered among n others, at random places;
//! - `unregister`: the second half of that alone;
//! - `drop_all`: what a module's end costs, 4,096 registrations dropped one by one;
//! - `batch`: many ranges at once;
//!
//! and what is allocated for it, and what it leaves behind.

#[path = "support/agreement.rs"]
mod agreement;
#[path = "support/batches.rs"]
mod batches;
#[path = "support/contender.rs"]
mod contender;
#[path = "support/counting_allocator.rs"]
mod counting_allocator;
#[path = "support/field.rs"]
mod field;
#[path = "support/free_places.rs"]
mod free_places;
#[path = "support/functions.rs"]
mod functions;
#[path = "support/layouts.rs"]
mod layouts;
#[path = "support/mapping.rs"]
mod mapping;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/options.rs"]
mod options;
#[path = "support/removals.rs"]
mod removals;
#[path = "support/report.rs"]
mod report;
#[path = "support/resident.rs"]
mod resident;
#[path = "support/rivals/mod.rs"]
mod rivals;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/subject.rs"]
mod subject;
#[path = "support/writers.rs"]
mod writers;

use contender::{Lookup, Write, is_wanted};
use counting_allocator::Allocated;
use field::Field;
use free_places::{places, with_room};
use layouts::{Layout, Layouts, SIZES};
use memory::Memory;
use options::{Mode, Options};
use report::{Report, Setting};
use rivals::arc_swap_vec::ArcSwapVec;
use rivals::global_counter_vec::GlobalCounterVec;
use rivals::textbook::Textbook;
use rounds::{median, take_turns};
use subject::Pcmap;
use writers::Writer;

/// These rivals copy or move everything for each write.
const COPYING: [&str; 3] = [ArcSwapVec::NAME, Textbook::NAME, GlobalCounterVec::NAME];

/// Beyond this many ranges that is all one would see.
const MOST_COPIED: usize = 10_000;

fn main() {
    let options = Options::from_command_line();
    let mode = options.mode;
    let mut bench = Bench {
        report: Report::new("publication_cost", &options),
        rounds: mode.pick(21, 7, 1),
        turn_nanos: mode.pick(2e7, 4e6, 1.0),
        options,
    };
    let layouts = Layouts::default();
    for name in Layouts::NAMES {
        for n in SIZES {
            // As a test, small; and what other layouts change is seen where caches matter.
            let small = mode != Mode::Test || n <= 1_000;
            let telling = name == "even" || mode != Mode::Quick || [10_000, 100_000].contains(&n);
            if small && telling && bench.options.wants(name, n) {
                match layouts.find(name, n) {
                    Ok(layout) => bench.compare(&with_room(layout)),
                    Err(notice) => bench.report.note(&notice),
                }
            }
        }
    }
    bench.report.save();
}

/// All contenders, holding the layout; as a test, with their answers checked.
fn contenders(layout: &Layout, mode: Mode) -> Vec<Box<dyn Writer>> {
    let mut contenders: Vec<Box<dyn Writer>> = Vec::new();
    macro_rules! build {
        ($($contender:ty,)*) => {
            $(
                if layout.n() <= MOST_COPIED || !COPYING.contains(&<$contender>::NAME) {
                    let contender = <$contender>::holding(&layout.ranges);
                    if mode == Mode::Test {
                        agreement::check(&contender, layout);
                    }
                    contenders.push(Box::new(contender));
                }
            )*
        };
    }
    rivals::all_contenders!(build);
    contenders
}

/// How the contenders are measured.
#[derive(Debug)]
struct Bench {
    options: Options,
    report: Report,
    rounds: usize,
    /// How long a contender's turn is to last, if one write does not last longer.
    turn_nanos: f64,
}

impl Bench {
    fn compare(&mut self, layout: &Layout) {
        let owned = contenders(layout, self.options.mode);
        let contenders = owned.iter().map(|contender| &**contender);
        #[cfg(unix)]
        let contenders = contenders.chain([&writers::Mapping as &dyn Writer]);
        let wanted = contenders.filter(|contender| is_wanted(&self.options, contender.name()));
        let with_mapping: Vec<_> = wanted.collect();
        let chosen = |is_chosen: &dyn Fn(&str) -> bool| {
            let chosen = with_mapping.iter().copied().filter(|it| is_chosen(it.name()));
            chosen.collect::<Vec<_>>()
        };
        let all = chosen(&|name| name != writers::MAPPING);
        // Copying everything thousands of times tells nothing new about a copy.
        let sparing = chosen(&|name| name != writers::MAPPING && !COPYING.contains(&name));
        let probes = &layout.probes();
        for readers in [0, 1] {
            let field = |contenders| Field { layout, contenders, probes, readers };
            if layout.name == "even" && self.options.wants_case("batch") {
                self.batches(field(&all));
            }
            if self.options.wants_case("pair") {
                self.pairs(field(&with_mapping));
            }
            if self.options.wants_case("unregister") {
                self.removals(field(&all));
            }
            if self.options.wants_case("drop_all") {
                self.dropping(field(&sparing));
            }
        }
        if self.options.wants_case("pair") {
            self.allocations(layout);
        }
    }

    fn pairs(&mut self, field: Field<'_>) {
        let places = places(field.layout);
        // The time of a pair, and the lookups made meanwhile.
        let run = |contender: &dyn Writer, first, pairs| {
            let work = || contender.pairs(&places, first, pairs);
            let (nanos, lookups) = field.beside_readers(contender, work);
            (nanos, lookups as f64 / pairs as f64)
        };
        let pairs = self.pairs_of_a_turn(field, |contender, pairs| run(contender, 0, pairs).0);
        let mut round = 0;
        let times = take_turns(self.rounds, field.contenders.len(), |i| {
            round += 1;
            run(field.contenders[i], round * pairs[i], pairs[i])
        });
        let nanos = times.iter().map(|times| times.iter().map(|&(nanos, _)| nanos).collect());
        let setting = field.setting("pair", "");
        self.tell(&setting, field, nanos.collect());
        if field.readers > 0 {
            // A reader that hardly gets a turn disturbs a writer little.
            for (name, times) in field.names().zip(&times) {
                let (layout, n) = (field.layout.name, field.layout.n());
                let circumstances = format!(" contender={name} layout={layout} n={n}");
                let lookups = median(times.iter().map(|&(_, lookups)| lookups));
                self.report.figure("lookups_beside_pair", &circumstances, format!("{lookups:.2}"));
            }
        }
        self.tell_memory(&setting, field, |i| run(field.contenders[i], 0, pairs[i]));
    }

    /// As many pairs for each as take its turn; found out by doubling, after a few that clear away
    /// what cases before left.
    fn pairs_of_a_turn(
        &self,
        field: Field<'_>,
        run: impl Fn(&dyn Writer, usize) -> f64,
    ) -> Vec<usize> {
        let pairs = field.contenders.iter().map(|&contender| {
            run(contender, 32);
            let mut pairs = 1;
            loop {
                let nanos = run(contender, pairs);
                if nanos * pairs as f64 >= self.turn_nanos / 4.0 {
                    break ((self.turn_nanos / nanos) as usize).max(1);
                }
                pairs *= 2;
            }
        });
        pairs.collect()
    }

    /// Each contender's median.
    fn tell(&mut self, setting: &Setting, field: Field<'_>, times: Vec<Vec<f64>>) {
        let medians: Vec<_> = field.names().zip(times.into_iter().map(median)).collect();
        self.report.times(setting, &medians);
    }

    /// Takes one more turn for each, whose time does not count.
    fn tell_memory<R>(&mut self, setting: &Setting, field: Field<'_>, turn: impl Fn(usize) -> R) {
        for (i, contender) in field.contenders.iter().enumerate() {
            let memory = Memory::during(|| contender.garbage_bytes(), || turn(i));
            memory.tell(&mut self.report, setting, contender.name());
        }
    }

    /// Counted apart from the timing, with garbage taken out as it comes.
    fn allocations(&mut self, layout: &Layout) {
        const PAIRS: u64 = 256;
        let map = Pcmap::holding(&layout.ranges);
        let places = places(layout);
        let (mut registering, mut both) = ([0; 2], [0; 2]);
        counting_allocator::count(|| {
            for (place, value) in places.iter().cycle().zip(0..PAIRS) {
                let before = Allocated::so_far();
                let between = map.with_one(place.clone(), value, Allocated::so_far);
                let after = Allocated::so_far();
                for (sum, end) in [(&mut registering, between), (&mut both, after)] {
                    let Allocated { allocations, bytes } = end.since(before);
                    sum[0] += allocations;
                    sum[1] += bytes;
                }
            }
        });
        let circumstances = format!(" layout={} n={}", layout.name, layout.n());
        for (name, [allocations, bytes]) in [("registration", registering), ("pair", both)] {
            for (what, sum) in [("allocations", allocations), ("bytes_allocated", bytes)] {
                let mean = format!("{:.1}", sum as f64 / PAIRS as f64);
                self.report.figure(&format!("{what}_per_{name}"), &circumstances, mean);
            }
        }
    }
}
