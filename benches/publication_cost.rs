//! What writing costs: a range registered and unregistered among n others, at random places; many
//! ranges at once; and what is allocated for it. Without readers, and with one that looks up all
//! the time.

#[path = "support/agreement.rs"]
mod agreement;
#[path = "support/contender.rs"]
mod contender;
#[path = "support/counting_allocator.rs"]
mod counting_allocator;
#[path = "support/functions.rs"]
mod functions;
#[path = "support/layouts.rs"]
mod layouts;
#[path = "support/mapping.rs"]
mod mapping;
#[path = "support/options.rs"]
mod options;
#[path = "support/report.rs"]
mod report;
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
use layouts::{Layout, Layouts, SIZES};
use options::{Mode, Options};
use report::{Report, Setting};
use rivals::arc_swap_vec::ArcSwapVec;
use rivals::global_counter_vec::GlobalCounterVec;
use rounds::{median, take_turns};
use std::ops::Range;
use subject::Pcmap;
use writers::{Writer, beside_readers};

/// The sizes of batches.
const BATCHES: [usize; 3] = [10, 1_000, 10_000];

/// Room for the largest batch, in the midst of the other ranges.
const ROOM: usize = 1 << 20;

/// Two rivals copy or move everything for each write. Beyond this many ranges that is all one would
/// see.
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

/// The layout with its upper half moved up, for batches to lie between the halves.
fn with_room(mut layout: Layout) -> Layout {
    let middle = layout.n() / 2;
    for range in &mut layout.ranges[middle..] {
        *range = range.start + ROOM..range.end + ROOM;
    }
    layout
}

/// All contenders, holding the layout; as a test, with their answers checked.
fn contenders(layout: &Layout, mode: Mode) -> Vec<Box<dyn Writer>> {
    let mut contenders: Vec<Box<dyn Writer>> = Vec::new();
    macro_rules! build {
        ($($contender:ty,)*) => {
            $(
                let name = <$contender>::NAME;
                let copies = name == ArcSwapVec::NAME || name == GlobalCounterVec::NAME;
                if !copies || layout.n() <= MOST_COPIED {
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
        let mut contenders = contenders(layout, self.options.mode);
        let probes = layout.probes();
        for readers in [0, 1] {
            if layout.name == "even" && self.options.wants_case("batch") {
                self.batches(layout, &contenders, &probes, readers);
            }
        }
        if self.options.wants_case("pair") {
            #[cfg(unix)]
            contenders.push(Box::new(writers::Mapping));
            contenders.retain(|contender| is_wanted(&self.options, contender.name()));
            for readers in [0, 1] {
                self.pairs(layout, &contenders, &probes, readers);
            }
            self.allocations(layout);
        }
    }

    fn pairs(
        &mut self,
        layout: &Layout,
        contenders: &[Box<dyn Writer>],
        probes: &[usize],
        readers: usize,
    ) {
        let places = places(layout);
        // The time of a pair, and the lookups made meanwhile.
        let run = |contender: &dyn Writer, first, pairs| {
            let work = || contender.pairs(&places, first, pairs);
            let (nanos, lookups) = beside_readers(readers, contender, probes, work);
            (nanos, lookups as f64 / pairs as f64)
        };
        // As many pairs for each as take its turn; found out by doubling, after a few that clear
        // away what batches left.
        let pairs: Vec<usize> = contenders
            .iter()
            .map(|contender| {
                run(&**contender, 0, 32);
                let mut pairs = 1;
                loop {
                    let (nanos, _) = run(&**contender, 0, pairs);
                    if nanos * pairs as f64 >= self.turn_nanos / 4.0 {
                        break ((self.turn_nanos / nanos) as usize).max(1);
                    }
                    pairs *= 2;
                }
            })
            .collect();
        let mut round = 0;
        let times = take_turns(self.rounds, contenders.len(), |i| {
            round += 1;
            run(&*contenders[i], round * pairs[i], pairs[i])
        });
        let names = contenders.iter().map(|contender| contender.name());
        let nanos = times.iter().map(|times| median(times.iter().map(|&(nanos, _)| nanos)));
        let medians: Vec<_> = names.clone().zip(nanos).collect();
        let setting = setting("pair", layout, format!(" readers={readers}"));
        self.report.times(&setting, &medians);
        if readers > 0 {
            // A reader that hardly gets a turn disturbs a writer little.
            for (name, times) in names.zip(&times) {
                let (layout, n) = (layout.name, layout.n());
                let circumstances = format!(" contender={name} layout={layout} n={n}");
                let lookups = median(times.iter().map(|&(_, lookups)| lookups));
                self.report.figure("lookups_beside_pair", &circumstances, format!("{lookups:.2}"));
            }
        }
    }

    fn batches(
        &mut self,
        layout: &Layout,
        contenders: &[Box<dyn Writer>],
        probes: &[usize],
        readers: usize,
    ) {
        for k in BATCHES {
            let more = format!(" readers={readers} k={k}");
            let batches = [
                ("batch", Some(side_by_side(layout, k))),
                ("batch_scattered", scattered(layout, k)),
            ];
            for (case, batch) in batches {
                let Some(batch) = batch else { continue };
                // Small batches are over before the processor has warmed up to them.
                let repeats = (100 / k).max(1);
                let times = take_turns(self.rounds, contenders.len(), |i| {
                    let contender = &*contenders[i];
                    beside_readers(readers, contender, probes, || {
                        let times = (0..repeats).map(|_| contender.batch(&batch));
                        let sums = times.reduce(|sums, more| (sums.0 + more.0, sums.1 + more.1));
                        let (registered, both) = sums.expect("one at least");
                        (registered / (repeats * k) as f64, both / (repeats * k) as f64)
                    })
                    .0
                });
                let registered = times[0].iter().map(|&(registered, _)| registered);
                let registered = format!("{:.1}", median(registered));
                let totals = times.iter().map(|times| median(times.iter().map(|&(_, both)| both)));
                let names = contenders.iter().map(|contender| contender.name());
                let medians: Vec<_> = names.zip(totals).collect();
                self.report.times(&setting(case, layout, more.clone()), &medians);
                let name = format!("{case}_register_ns_per_range");
                let circumstances = format!(" layout={} n={}{more}", layout.name, layout.n());
                self.report.figure(&name, &circumstances, registered);
            }
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

fn setting(case: &'static str, layout: &Layout, more: String) -> Setting {
    Setting { case, layout: layout.name, n: layout.n(), threads: 1, writers: 1, more }
}

/// Free places for single ranges, in random order.
fn places(layout: &Layout) -> Vec<Range<usize>> {
    const LONGEST: usize = 0x100;
    let mut places = layout.gaps();
    fastrand::Rng::with_seed(1).shuffle(&mut places);
    places.truncate(1 << 14);
    for place in &mut places {
        place.end = place.end.min(place.start + LONGEST);
    }
    places
}

/// A module's functions: all in the room in the middle.
fn side_by_side(layout: &Layout, k: usize) -> Vec<Range<usize>> {
    const STRIDE: usize = 64;
    const LENGTH: usize = 48;
    let room = layout.ranges[layout.n() / 2 - 1].end;
    (0..k).map(|i| room + i * STRIDE..room + i * STRIDE + LENGTH).collect()
}

/// In gaps between other ranges, chosen at random; `None` if there are too few.
fn scattered(layout: &Layout, k: usize) -> Option<Vec<Range<usize>>> {
    let mut chosen = places(layout).get(..k)?.to_vec();
    chosen.sort_unstable_by_key(|place| place.start);
    Some(chosen)
}
