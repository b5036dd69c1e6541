//! A large batch beside one small writer: does it come through, and how much later?

use super::code::{circumstances, map_of, places, range};
use super::options::Options;
use super::report::{Report, SUBJECT, Setting};
use super::rounds::{median, take_turns};
use pcmap::CodeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CASE: &str = "starve_batch";

/// What the small writer sleeps between its pairs.
const PERIODS: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(2),
    Duration::from_micros(500),
    Duration::from_micros(100),
    Duration::ZERO,
];

/// Between two looks at whether the batch is through.
const PAUSE: Duration = Duration::from_millis(2);

/// One batch, and what came of it.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    nanos: f64,
    /// Before the time was up, and the small writer was stopped for it.
    came_through: bool,
}

pub(crate) fn measure_all(report: &mut Report, options: &Options) {
    let sizes = options.mode.pick([100_000, 1_000_000], [100_000, 1_000_000], [1_000, 10_000]);
    for n in sizes {
        if options.wants_case(CASE) && options.wants("even", n) {
            measure(report, options, n);
        }
    }
}

fn measure(report: &mut Report, options: &Options, n: usize) {
    let limit = Duration::from_millis(options.mode.pick(20_000, 3_000, 100));
    let map = map_of(0);
    // Once starved, starved again: another round would take as long and tell no more.
    let mut starved: [Option<Outcome>; PERIODS.len()] = [None; PERIODS.len()];
    // The first of those that take turns is the batch alone.
    let outcomes = take_turns(options.mode.pick(5, 3, 1), 1 + PERIODS.len(), |turn| {
        let Some(i) = turn.checked_sub(1) else {
            return Outcome { nanos: register(&map, n), came_through: true };
        };
        starved[i].unwrap_or_else(|| {
            let outcome = register_beside(&map, n, PERIODS[i], limit);
            starved[i] = (!outcome.came_through).then_some(outcome);
            outcome
        })
    });
    let nanos = |turn: usize| median(outcomes[turn].iter().map(|outcome| outcome.nanos));
    let alone = nanos(0);
    let setting =
        |writers, more| Setting { case: CASE, layout: "even", n, threads: 1, writers, more };
    report.times(&setting(1, String::new()), &[(SUBJECT, alone)]);
    for (i, period) in PERIODS.into_iter().enumerate() {
        let beside = nanos(i + 1);
        let more = format!(" period_us={}", period.as_micros());
        let circumstances = circumstances(CASE, n, 2) + &more;
        report.times(&setting(2, more), &[(SUBJECT, beside)]);
        report.figure("batch_came_through", &circumstances, starved[i].is_none());
        let ratio = format!("{:.3}", beside / alone);
        report.figure("batch_beside_over_alone", &circumstances, ratio);
    }
}

/// The batch's nanoseconds. It is unregistered afterwards, and its garbage is out.
fn register(map: &CodeMap<u64>, n: usize) -> f64 {
    let began = Instant::now();
    let code = map.register_all((0..n).map(range).zip(0..)).expect("free");
    let elapsed = began.elapsed();
    map.unregister_all(code).wait();
    elapsed.as_nanos() as f64
}

fn register_beside(map: &CodeMap<u64>, n: usize, period: Duration, limit: Duration) -> Outcome {
    let (stop, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let is_writing = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            is_writing.wait();
            for place in places(0).take_while(|_| !stop.load(Relaxed)) {
                drop(map.register(place, 7));
                if !period.is_zero() {
                    thread::sleep(period);
                }
            }
        });
        let referee = scope.spawn(|| {
            let began = Instant::now();
            while !is_done.load(Relaxed) && began.elapsed() < limit {
                thread::sleep(PAUSE);
            }
            stop.store(true, Relaxed);
            is_done.load(Relaxed)
        });
        is_writing.wait();
        let began = Instant::now();
        let code = map.register_all((0..n).map(range).zip(0..)).expect("free");
        let nanos = began.elapsed().as_nanos() as f64;
        is_done.store(true, Relaxed);
        let came_through = referee.join().expect("it only looks");
        map.unregister_all(code).wait();
        Outcome { nanos, came_through }
    })
}
