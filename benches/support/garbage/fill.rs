//! A map that is filled range by range in random order, by one thread and by four: the same ranges, and
//! the memory that they take in the end.

use super::code::{circumstances, map_of, range};
use super::options::{Mode, Options};
use super::parts::Part;
use super::report::{Report, SUBJECT, Setting};
use super::resident::{format_mib, resident_bytes};
use super::samples::{ENDED_EARLY, Samples};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CASE: &str = "fill";

/// Longer than anybody waits.
const NO_LIMIT: Duration = Duration::from_secs(600);

/// What the ratio is made of.
const TAKEN: &str = "resident_bytes_taken";

fn ranges(mode: Mode) -> usize {
    mode.pick(1_000_000, 1_000_000, 10_000)
}

pub(crate) fn measure_all(report: &mut Report, options: &Options) {
    let n = ranges(options.mode);
    if !options.wants_case(CASE) || !options.wants("even", n) {
        return;
    }
    let taken = [1, 4].map(|threads| -> Option<f64> {
        let lines = Part { case: CASE, threads }.measure(report, options.mode);
        let value = |name: &str| {
            let told = lines.iter().find(|line| line.contains(&format!("name={name} ")))?;
            told.rsplit_once('=').map(|(_, value)| value)
        };
        // Half a map is compared with nothing.
        let is_full = value(ENDED_EARLY) == Some("false");
        let taken = value(TAKEN).filter(|_| is_full)?.parse::<f64>().ok();
        taken.filter(|&bytes| bytes > 0.0)
    });
    let ratio = match taken {
        [Some(one), Some(four)] => format!("{:.3}", four / one),
        _ => "n/a".to_owned(),
    };
    report.figure("resident_four_threads_over_one", &circumstances(CASE, n, 4), ratio);
}

pub(crate) fn measure(report: &mut Report, mode: Mode, threads: usize) {
    let n = ranges(mode);
    let map = map_of(0);
    let mut places: Vec<usize> = (0..n).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut places);
    let before = resident_bytes();
    let (running, stop) = (AtomicUsize::new(threads), AtomicBool::new(false));
    let began = Instant::now();
    let (samples, elapsed) = thread::scope(|scope| {
        let writers: Vec<_> = places
            .chunks(n.div_ceil(threads))
            .map(|own| {
                scope.spawn(|| {
                    for &place in own.iter().take_while(|_| !stop.load(Relaxed)) {
                        map.register(range(place), place as u64).expect("free").leak();
                    }
                    running.fetch_sub(1, Relaxed);
                    began.elapsed()
                })
            })
            .collect();
        let samples = Samples::watch(&map, NO_LIMIT, || running.load(Relaxed) == 0);
        stop.store(true, Relaxed);
        let times = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        (samples, times.max().unwrap_or_default())
    });
    let circumstances = circumstances(CASE, n, threads);
    samples.tell(report, &circumstances);
    let setting =
        Setting { case: CASE, layout: "even", n, threads, writers: threads, more: String::new() };
    // All of them, if there was memory for it.
    let entries = map.stats().entries;
    report.times(&setting, &[(SUBJECT, elapsed.as_nanos() as f64 / entries.max(1) as f64)]);
    report.figure("entries", &circumstances, entries);
    map.synchronize();
    let after = resident_bytes();
    report.figure("resident_mib_without_garbage", &circumstances, format_mib(after));
    let taken = after.zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
    report.figure(TAKEN, &circumstances, taken);
}
