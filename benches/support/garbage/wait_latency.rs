//! How long `unregister().wait()` takes beside writers that never pause.

use super::code::{STAYING, circumstances, map_of, places};
use super::options::Options;
use super::report::{Report, SUBJECT, Setting};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CASE: &str = "wait_latency";

const WRITERS: usize = 8;

/// Enough of them for a percentile.
const WAITS: usize = 2_000;

/// By the name in the line, in thousandths.
const QUANTILES: [(&str, usize); 3] = [("p50", 500), ("p99", 990), ("max", 1_000)];

pub(crate) fn measure_all(report: &mut Report, options: &Options) {
    if !options.wants_case(CASE) || !options.wants("even", STAYING) {
        return;
    }
    let time = Duration::from_millis(options.mode.pick(8_000, 3_000, 50));
    let mut waits = waits(time);
    waits.sort_unstable();
    report.figure("waits", &circumstances(CASE, STAYING, WRITERS), waits.len());
    for (name, thousandths) in QUANTILES {
        let wait = waits[(waits.len() * thousandths / 1_000).min(waits.len() - 1)];
        let setting = Setting {
            case: CASE,
            layout: "even",
            n: STAYING,
            threads: 1,
            writers: WRITERS,
            more: format!(" quantile={name}"),
        };
        report.times(&setting, &[(SUBJECT, wait.as_nanos() as f64)]);
    }
}

/// One wait at least.
fn waits(time: Duration) -> Vec<Duration> {
    let map = map_of(STAYING);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (map, stop) = (&map, &stop);
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for place in places(writer).take_while(|_| !stop.load(Relaxed)) {
                    drop(map.register(place, 7));
                }
            });
        }
        let (mut waits, began) = (Vec::new(), Instant::now());
        for place in places(WRITERS).take(WAITS) {
            let code = map.register(place, 7).expect("free");
            let unregistered = Instant::now();
            code.unregister().wait();
            waits.push(unregistered.elapsed());
            if began.elapsed() > time {
                break;
            }
        }
        stop.store(true, Relaxed);
        waits
    })
}
