//! Ends the process with all that is known if any thread stops getting things done.

use crate::storm::Storm;
use pcmap::registry::process_code_map;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// Returns when all threads have ended.
pub(crate) fn watch(storm: &Storm) {
    let mut seen: Vec<_> = storm.workers.iter().map(|_| (0, Instant::now())).collect();
    while storm.is_running() {
        thread::sleep(Duration::from_millis(50));
        for (worker, (done, since)) in storm.workers.iter().zip(&mut seen) {
            let now = worker.done.load(Relaxed);
            if now != *done || worker.has_ended.load(Relaxed) {
                (*done, *since) = (now, Instant::now());
            } else if since.elapsed() > storm.patience {
                dump(storm);
                std::process::abort();
            }
        }
    }
}

fn dump(storm: &Storm) {
    eprintln!("no progress for {:?}:", storm.patience);
    for worker in &storm.workers {
        eprintln!("{worker}");
    }
    eprintln!("{}", process_code_map().stats());
}
