//! No writer starves: a small registration finishes while others publish, however many they are.
//!
//! More writers than cores replace code all over one map. Counted is how many versions are published during
//! one call. A thread that is preempted misses some hundreds; one that starves misses tens of thousands.

use pcmap::{CodeMap, Registration};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const RANGES: usize = 10_000;
const WRITERS: usize = 5;
/// Far more than what is published in the time slices of all other writers.
const MOST_MISSED: u64 = 10_000;

fn range(place: usize) -> std::ops::Range<usize> {
    (place + 1) * 0x1000..(place + 1) * 0x1000 + 0xc00
}

#[test]
fn a_registration_finishes_beside_other_writers() {
    let map = CodeMap::new();
    let code = map.register_all((0..RANGES).map(|i| (range(i), i))).expect("free");
    let mut code: Vec<Option<Registration<'_, usize>>> = code.into_iter().map(Some).collect();
    let (stop, most_missed, calls) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for (writer, own) in code.chunks_mut(RANGES / WRITERS).enumerate() {
            let (map, stop, most_missed, calls) = (&map, &stop, &most_missed, &calls);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(writer as u64);
                while !stop.load(SeqCst) {
                    let number = random.usize(..own.len());
                    drop(own[number].take());
                    let place = writer * own.len() + number;
                    let before = map.stats().publications;
                    own[number] = Some(map.register(range(place), place).expect("free"));
                    most_missed.fetch_max(map.stats().publications - before, SeqCst);
                    calls.fetch_add(1, SeqCst);
                }
            });
        }
        thread::sleep(Duration::from_secs(6));
        stop.store(true, SeqCst);
    });
    let (calls, most_missed) = (calls.into_inner(), most_missed.into_inner());
    println!(
        "{WRITERS} writers: {calls} calls; at most {most_missed} versions were published during one"
    );
    assert!(most_missed <= MOST_MISSED);
}
