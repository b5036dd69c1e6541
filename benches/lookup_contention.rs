//! Threads that look up at the same time, while others register and unregister as fast as they can:
//! lookups a second, and what single lookups take, the slow ones above all; and what the writers leave
//! behind meanwhile. Each lookup reads the first word of the value that it finds.

#[path = "support/agreement.rs"]
mod agreement;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/contender.rs"]
mod contender;
#[path = "support/crowd.rs"]
mod crowd;
#[path = "support/functions.rs"]
mod functions;
#[path = "support/layouts.rs"]
mod layouts;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/options.rs"]
mod options;
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

use clock::Clock;
use contender::{Lookup, is_wanted};
use crowd::{Contender, Crowd, Places};
use layouts::{Layout, Layouts, SIZES};
use memory::Memory;
use options::{Mode, Options};
use report::{Report, Setting};
use rounds::{median, take_turns};
use std::time::Duration;
use subject::Pcmap;

/// What is told of single lookups: the name of the case, and the quantile.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];

fn main() {
    let options = Options::from_command_line();
    let mode = options.mode;
    let mut bench = Bench {
        report: Report::new("lookup_contention", &options),
        clock: Clock::calibrate(),
        rounds: mode.pick(7, 5, 1),
        window: Duration::from_millis(mode.pick(40, 20, 2)),
        threads: thread_counts(),
        options,
    };
    let reading = format!("{:.1}", bench.clock.reading_nanos());
    bench.report.figure("clock_reading_ns_subtracted", "", reading);
    let layouts = Layouts::default();
    for name in Layouts::NAMES {
        for n in SIZES {
            let wanted = match mode {
                Mode::Full => true,
                Mode::Quick => name == "even",
                Mode::Test => n <= 1_000,
            };
            if wanted && bench.options.wants(name, n) {
                match layouts.find(name, n) {
                    Ok(layout) => bench.measure(&layout),
                    Err(notice) => bench.report.note(&notice),
                }
            }
        }
    }
    bench.report.save();
}

/// One and two threads, then twice as many as long as there are processors.
fn thread_counts() -> Vec<usize> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::iter::successors(Some(1), |threads| Some(threads * 2))
        .take_while(|&threads| threads <= processors.max(2))
        .collect()
}

/// All contenders, holding the layout; as a test, with their answers checked.
fn contenders(layout: &Layout, mode: Mode) -> Vec<Box<dyn Contender>> {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    macro_rules! build {
        ($($contender:ty,)*) => {
            $(
                let contender = <$contender>::holding(&layout.ranges);
                if mode == Mode::Test {
                    agreement::check(&contender, layout);
                }
                contenders.push(Box::new(contender));
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
    clock: Clock,
    rounds: usize,
    /// How long each contender's turn lasts.
    window: Duration,
    /// The numbers of reading threads.
    threads: Vec<usize>,
}

impl Bench {
    fn measure(&mut self, layout: &Layout) {
        let mut free = layout.gaps();
        fastrand::Rng::with_seed(1).shuffle(&mut free);
        let places = Places { probes: layout.probes(), free };
        self.alone(layout, &places);
        // Rivals that copy everything would spend a quick run on the largest maps.
        if self.options.mode == Mode::Quick && ![10, 1_000, 100_000].contains(&layout.n()) {
            return;
        }
        let mut contenders = contenders(layout, self.options.mode);
        contenders.retain(|contender| is_wanted(&self.options, contender.name()));
        for readers in self.threads.clone() {
            for writers in [0, 1, 2] {
                let crowd = Crowd { readers, writers, window: self.window };
                self.lookups(layout, &contenders, &places, crowd);
                self.latencies(layout, &contenders, &places, crowd);
                if writers > 0 && self.options.wants_case("lookups") {
                    self.memory(layout, &contenders, &places, crowd);
                }
            }
        }
    }

    /// pcmap compared with itself, in another crowd.
    fn alone(&mut self, layout: &Layout, places: &Places) {
        let map = Pcmap::holding(&layout.ranges);
        // Only two crowds take turns here, so there is time for longer turns and more of them.
        let (rounds, window) = (self.rounds + 2, self.window * 3);
        let crowd = |readers, writers| Crowd { readers, writers, window };
        let circumstances = format!(" layout={} n={}", layout.name, layout.n());

        let crowds = [crowd(1, 0), crowd(1, 1)];
        let medians = take_turns(rounds, crowds.len(), |i| {
            self.clock.nanos(map.latencies(crowds[i], places).value_at_quantile(0.5))
        });
        let [without, with] = [0, 1].map(|i| median(medians[i].iter().copied()));
        let value = format!("{:.3}", with / without);
        self.report.figure("median_with_writer_over_without", &circumstances, value);

        let crowds = [crowd(1, 0), crowd(2, 0)];
        let times = take_turns(rounds, crowds.len(), |i| map.throughput(crowds[i], places));
        let [one, two] = [0, 1].map(|i| median(times[i].iter().copied()));
        let value = format!("{:.3}", one / two);
        self.report.figure("two_threads_over_one_lookups", &circumstances, value);
    }

    fn lookups(
        &mut self,
        layout: &Layout,
        contenders: &[Box<dyn Contender>],
        places: &Places,
        crowd: Crowd,
    ) {
        if !self.options.wants_case("lookups") {
            return;
        }
        let times =
            take_turns(self.rounds, contenders.len(), |i| contenders[i].throughput(crowd, places));
        let names = contenders.iter().map(|contender| contender.name());
        let medians: Vec<_> = names.zip(times.into_iter().map(median)).collect();
        self.report.times(&setting("lookups", layout, crowd), &medians);
    }

    /// One more turn for each, whose time does not count.
    fn memory(
        &mut self,
        layout: &Layout,
        contenders: &[Box<dyn Contender>],
        places: &Places,
        crowd: Crowd,
    ) {
        for contender in contenders {
            let garbage = || contender.garbage_bytes();
            let memory = Memory::during(garbage, || contender.throughput(crowd, places));
            memory.tell(&mut self.report, &setting("lookups", layout, crowd), contender.name());
        }
    }

    fn latencies(
        &mut self,
        layout: &Layout,
        contenders: &[Box<dyn Contender>],
        places: &Places,
        crowd: Crowd,
    ) {
        if !QUANTILES.iter().any(|(case, _)| self.options.wants_case(case)) {
            return;
        }
        let histograms = take_turns(self.rounds, contenders.len(), |i| {
            let histogram = contenders[i].latencies(crowd, places);
            QUANTILES.map(|(_, quantile)| self.clock.nanos(histogram.value_at_quantile(quantile)))
        });
        for (q, (case, quantile)) in QUANTILES.into_iter().enumerate() {
            let times = histograms.iter().map(|rounds| {
                let values = rounds.iter().map(|values| values[q]);
                // The slowest of all is the slowest of all rounds.
                if quantile == 1.0 { values.fold(0.0, f64::max) } else { median(values) }
            });
            let names = contenders.iter().map(|contender| contender.name());
            let times: Vec<_> = names.zip(times).collect();
            self.report.times(&setting(case, layout, crowd), &times);
        }
    }
}

fn setting(case: &'static str, layout: &Layout, crowd: Crowd) -> Setting {
    Setting {
        case,
        layout: layout.name,
        n: layout.n(),
        threads: crowd.readers,
        writers: crowd.writers,
        more: String::new(),
    }
}
