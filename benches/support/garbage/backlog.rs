//! Writers that never pause, with nobody to take their garbage out but themselves.

use super::code::{STAYING, circumstances, map_of, places, range};
use super::options::{Mode, Options};
use super::parts::Part;
use super::report::{Report, SUBJECT, Setting};
use super::samples::Samples;
use pcmap::CodeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const WRITERS: [usize; 5] = [1, 2, 4, 8, 16];

/// Beside a reader that is stopped.
const BESIDE_STOPPED: usize = 4;

pub(crate) fn measure_all(report: &mut Report, options: &Options) {
    if !options.wants("even", STAYING) {
        return;
    }
    let alone = WRITERS.map(|threads| Part { case: "backlog", threads });
    let stopped = Part { case: "stopped_reader", threads: BESIDE_STOPPED };
    for part in alone.into_iter().chain([stopped]) {
        if options.wants_case(part.case) {
            part.measure(report, options.mode);
        }
    }
}

/// One writer's work.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    pairs: u64,
    refused: u64,
    slowest: Duration,
}

pub(crate) fn measure(report: &mut Report, mode: Mode, case: &'static str, writers: usize) {
    let time = Duration::from_millis(mode.pick(5_000, 1_000, 50));
    let map = map_of(STAYING);
    let began = Instant::now();
    let (samples, works) = if case == "stopped_reader" {
        beside_stopped_reader(&map, || write(&map, writers, time))
    } else {
        write(&map, writers, time)
    };
    let elapsed = began.elapsed();

    let circumstances = circumstances(case, STAYING, writers);
    samples.tell(report, &circumstances);
    let pairs: u64 = works.iter().map(|work| work.pairs).sum();
    let rate = pairs as f64 / elapsed.as_secs_f64();
    report.figure("pairs_per_second", &circumstances, format!("{rate:.0}"));
    let refused: u64 = works.iter().map(|work| work.refused).sum();
    report.figure("refused", &circumstances, refused);
    let slowest = works.iter().map(|work| work.slowest).max().unwrap_or_default();
    let (layout, n, threads, more) = ("even", STAYING, writers, " quantile=max".to_owned());
    let setting = Setting { case, layout, n, threads, writers, more };
    report.times(&setting, &[(SUBJECT, slowest.as_nanos() as f64)]);

    // All writers have gone, and so has the reader.
    let left = map.stats().retired_bytes;
    report.figure("garbage_bytes_left_by_writers", &circumstances, left);
    let began = Instant::now();
    map.synchronize();
    let millis = began.elapsed().as_secs_f64() * 1e3;
    report.figure("synchronize_ms", &circumstances, format!("{millis:.3}"));
}

/// Lets writers write for some time.
fn write(map: &CodeMap<u64>, writers: usize, time: Duration) -> (Samples, Vec<Work>) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        let writers: Vec<_> =
            (0..writers).map(|writer| scope.spawn(move || work(map, writer, stop))).collect();
        let samples = Samples::watch(map, time, || false);
        stop.store(true, Relaxed);
        let works = writers.into_iter().map(|writer| writer.join().expect("no panic"));
        (samples, works.collect())
    })
}

fn work(map: &CodeMap<u64>, writer: usize, stop: &AtomicBool) -> Work {
    let mut work = Work::default();
    let mut began = Instant::now();
    for place in places(writer) {
        match map.register(place, 7) {
            Ok(code) => drop(code),
            Err(_) => work.refused += 1,
        }
        let ended = Instant::now();
        work.pairs += 1;
        work.slowest = work.slowest.max(ended - began);
        began = ended;
        if stop.load(Relaxed) {
            break;
        }
    }
    work
}

/// Does the work while a thread is stopped inside a lookup: in a handler that waits for a lock, say.
fn beside_stopped_reader<R>(map: &CodeMap<u64>, work: impl FnOnce() -> R) -> R {
    let (is_inside, is_over) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            map.lookup(range(0).start, |_| {
                is_inside.wait();
                while !is_over.load(Relaxed) {
                    thread::park();
                }
            })
        });
        is_inside.wait();
        let result = work();
        is_over.store(true, Relaxed);
        reader.thread().unpark();
        reader.join().expect("it only waits").expect("registered");
        result
    })
}
