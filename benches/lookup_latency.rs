//! One thread looking up: warm, with each address depending on the answer before, as in a walk of
//! a stack; the same for addresses that nothing is registered for; many independent lookups; and
//! one lookup with cold caches, which is how a signal handler meets the index. Each lookup reads the
//! first word of the value that it finds.

#[path = "support/agreement.rs"]
mod agreement;
#[path = "support/clock.rs"]
mod clock;
#[path = "support/contender.rs"]
mod contender;
#[path = "support/displacement.rs"]
mod displacement;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[path = "support/dl_find_object.rs"]
mod dl_find_object;
#[path = "support/functions.rs"]
mod functions;
#[path = "support/layouts.rs"]
mod layouts;
#[path = "support/loops.rs"]
mod loops;
#[path = "support/options.rs"]
mod options;
#[path = "support/partition_point.rs"]
mod partition_point;
#[path = "support/process.rs"]
mod process;
#[path = "support/report.rs"]
mod report;
#[path = "support/rivals/mod.rs"]
mod rivals;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/subject.rs"]
mod subject;

use clock::Clock;
use contender::{Lookup, answer, is_wanted};
use displacement::Displacement;
use layouts::{Layout, Layouts, SIZES};
use loops::Contender;
use options::{Mode, Options};
use partition_point::PartitionPoint;
use report::{Report, Setting};
use rounds::{median, take_turns};

fn main() {
    let options = Options::from_command_line();
    let mode = options.mode;
    let mut bench = Bench {
        report: Report::new("lookup_latency", &options),
        rounds: mode.pick(31, 11, 1),
        lookups: mode.pick(1 << 17, 1 << 15, 1 << 10),
        cold_rounds: mode.pick(1001, 201, 3),
        displacement: Displacement::new(mode.pick(64 << 20, 32 << 20, 1 << 20)),
        clock: Clock::calibrate(),
        options,
    };
    let reading = format!("{:.1}", bench.clock.reading_nanos());
    bench.report.figure("clock_reading_ns_subtracted_from_cold", "", reading);
    let layouts = Layouts::default();
    for name in Layouts::NAMES {
        for n in SIZES.into_iter().filter(|&n| mode != Mode::Test || n <= 10_000) {
            if bench.options.wants(name, n) {
                match layouts.find(name, n) {
                    Ok(layout) => bench.compare(&layout, contenders(&layout, mode)),
                    Err(notice) => bench.report.note(&notice),
                }
            }
        }
    }
    bench.compare_in_process();
    bench.report.save();
}

/// All contenders, holding the layout; as a test, with their answers checked.
fn contenders(layout: &Layout, mode: Mode) -> Vec<Box<dyn Contender>> {
    let floor = PartitionPoint::holding(&layout.ranges);
    if mode == Mode::Test {
        for (i, range) in layout.ranges.iter().enumerate() {
            for pc in [range.start, range.end - 1] {
                assert_eq!(floor.find(pc), Some(answer(i as u64, pc - range.start)));
            }
        }
    }
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(floor)];
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
    rounds: usize,
    /// In each round, for each contender; before, untimed, as many as warm its caches.
    lookups: usize,
    cold_rounds: usize,
    displacement: Displacement,
    clock: Clock,
}

impl Bench {
    fn compare(&mut self, layout: &Layout, mut contenders: Vec<Box<dyn Contender>>) {
        contenders.retain(|contender| is_wanted(&self.options, contender.name()));
        let probes = layout.probes();
        let (dependent, independent) = (<dyn Contender>::dependent, <dyn Contender>::independent);
        self.warm("warm_dependent", layout, &contenders, &probes, dependent);
        self.warm("throughput", layout, &contenders, &probes, independent);
        // The loader's answer covers whole objects, and what is between them is the system's.
        if layout.name != "process" {
            self.warm("miss", layout, &contenders, &layout.misses(), dependent);
        }
        self.cold(layout, &contenders, &probes);
    }

    fn warm(
        &mut self,
        case: &'static str,
        layout: &Layout,
        contenders: &[Box<dyn Contender>],
        probes: &[usize],
        run: impl Fn(&(dyn Contender + 'static), &[usize], usize, usize) -> f64,
    ) {
        if !self.options.wants_case(case) {
            return;
        }
        // The turns before have displaced everything: a lookup for each range brings it back, as far
        // as caches hold it. (They do not hold a million.)
        let fits = layout.n() <= 100_000 && self.options.mode != Mode::Test;
        let warming = (self.lookups / 2).max(if fits { layout.n() } else { 0 });
        let mut first = 0;
        let times = take_turns(self.rounds, contenders.len(), |i| {
            run(&*contenders[i], probes, first, warming);
            // Each turn goes on where the one before ended.
            first += warming + self.lookups;
            run(&*contenders[i], probes, first - self.lookups, self.lookups)
        });
        self.tell(case, layout, contenders, times);
    }

    /// Everyone is asked for the same address after each displacement.
    fn cold(&mut self, layout: &Layout, contenders: &[Box<dyn Contender>], probes: &[usize]) {
        if !self.options.wants_case("cold") {
            return;
        }
        let mut times = vec![Vec::new(); contenders.len()];
        for round in 0..self.cold_rounds {
            let pc = probes[round % probes.len()];
            self.displacement.displace();
            for turn in 0..contenders.len() {
                let contender = (round + turn) % contenders.len();
                times[contender].push(self.clock.nanos(contenders[contender].once(pc)));
            }
        }
        self.tell("cold", layout, contenders, times);
    }

    fn tell(
        &mut self,
        case: &'static str,
        layout: &Layout,
        contenders: &[Box<dyn Contender>],
        times: Vec<Vec<f64>>,
    ) {
        let names = contenders.iter().map(|contender| contender.name());
        let medians: Vec<_> = names.zip(times.into_iter().map(median)).collect();
        let (layout, n) = (layout.name, layout.n());
        let setting = Setting { case, layout, n, threads: 1, writers: 0, more: String::new() };
        self.report.times(&setting, &medians);
    }

    /// Among the objects that are loaded, glibc is a rival.
    fn compare_in_process(&mut self) {
        let Some(layout) = process::layout() else {
            self.report.note("skipped: process: this system's loader is not known");
            return;
        };
        if !self.options.wants(layout.name, layout.n()) {
            return;
        }
        #[cfg_attr(
            not(all(target_os = "linux", target_env = "gnu")),
            expect(unused_mut, reason = "one more with glibc")
        )]
        let mut contenders = contenders(&layout, Mode::Full);
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        match dl_find_object::DlFindObject::resolve() {
            Some(rival) => {
                // It knows what it knows, whoever asks: only as a test is it asked for everything.
                if self.options.mode == Mode::Test {
                    for pc in layout.probes() {
                        assert!(rival.find(pc).is_some(), "unknown to the loader: {pc:#x}");
                    }
                }
                contenders.push(Box::new(rival));
            }
            None => self.report.note("skipped: dl_find_object: glibc is older than 2.35"),
        }
        self.compare(&layout, contenders);
    }
}
