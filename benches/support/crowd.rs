//! Threads that look up while others write: how they are started, stopped and added up.

use crate::clock::ticks;
use crate::contender::Write;
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How many threads do what, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) readers: usize,
    pub(crate) writers: usize,
    pub(crate) window: Duration,
}

/// Addresses for readers, and free places for writers.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) probes: Vec<usize>,
    pub(crate) free: Vec<Range<usize>>,
}

/// A contender whose type no longer matters.
pub(crate) trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Nanoseconds a lookup, of all readers together.
    fn throughput(&self, crowd: Crowd, places: &Places) -> f64;

    /// What single lookups take, in ticks; all readers' in one histogram.
    fn latencies(&self, crowd: Crowd, places: &Places) -> Histogram<u64>;

    /// What was displaced and is not destroyed yet, where that is known.
    fn garbage_bytes(&self) -> Option<u64>;
}

impl<W: Write> Contender for W {
    fn name(&self) -> &'static str {
        W::NAME
    }

    fn throughput(&self, crowd: Crowd, places: &Places) -> f64 {
        let (counts, elapsed) =
            crowd.run(self, places, |first, stop| count_lookups(self, &places.probes, first, stop));
        elapsed.as_nanos() as f64 / counts.iter().sum::<u64>().max(1) as f64
    }

    fn latencies(&self, crowd: Crowd, places: &Places) -> Histogram<u64> {
        let (histograms, _) =
            crowd.run(self, places, |first, stop| time_lookups(self, &places.probes, first, stop));
        let mut sum = new_histogram();
        for histogram in histograms {
            sum.add(histogram).expect("the same bounds");
        }
        sum
    }

    fn garbage_bytes(&self) -> Option<u64> {
        Write::garbage_bytes(self)
    }
}

fn new_histogram() -> Histogram<u64> {
    // Up to minutes, whatever a tick is; three digits.
    Histogram::new_with_bounds(1, 1 << 40, 3).expect("valid bounds")
}

#[inline(never)]
fn count_lookups<W: Write>(index: &W, probes: &[usize], first: usize, stop: &AtomicBool) -> u64 {
    /// Between two looks at the flag.
    const LOOKUPS: usize = 64;
    let mask = probes.len() - 1;
    let mut done = 0;
    while !stop.load(Relaxed) {
        for k in done..done + LOOKUPS {
            black_box(index.find(probes[(first + k) & mask]));
        }
        done += LOOKUPS;
    }
    done as u64
}

#[inline(never)]
fn time_lookups<W: Write>(
    index: &W,
    probes: &[usize],
    first: usize,
    stop: &AtomicBool,
) -> Histogram<u64> {
    let mut histogram = new_histogram();
    let mask = probes.len() - 1;
    let mut k = first;
    while !stop.load(Relaxed) {
        let pc = probes[k & mask];
        let began = ticks();
        black_box(index.find(black_box(pc)));
        histogram.saturating_record(ticks().wrapping_sub(began));
        k += 1;
    }
    histogram
}

impl Crowd {
    /// Runs all threads for the time of the window, which begins when all are ready and ends before
    /// any is told to stop. Each reader begins elsewhere in the probes.
    fn run<W: Write, R: Send>(
        self,
        index: &W,
        places: &Places,
        read: impl Fn(usize, &AtomicBool) -> R + Sync,
    ) -> (Vec<R>, Duration) {
        // An index may spread its readers over places by where their stacks lie. The system puts
        // stacks where others were before, so that luck, good or bad, would last for the whole
        // run; threads that do nothing, a random number between readers, spread the luck.
        let idle: Vec<usize> = (0..self.readers).map(|_| fastrand::usize(..4)).collect();
        let threads = self.readers + self.writers + idle.iter().sum::<usize>();
        let ready = Barrier::new(threads + 1);
        let stop = AtomicBool::new(false);
        let (ready, stop, read) = (&ready, &stop, &read);
        thread::scope(|scope| {
            for writer in 0..self.writers {
                scope.spawn(move || {
                    ready.wait();
                    // Every writer has places of its own.
                    let own = places.free.iter().skip(writer).step_by(self.writers).cycle();
                    for (place, value) in own.zip(0..) {
                        index.with_one(place.clone(), value, || ());
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                });
            }
            let readers: Vec<_> = (0..self.readers)
                .map(|reader| {
                    for _ in 0..idle[reader] {
                        scope.spawn(move || ready.wait());
                    }
                    scope.spawn(move || {
                        ready.wait();
                        read(reader * places.probes.len() / self.readers, stop)
                    })
                })
                .collect();
            ready.wait();
            let began = Instant::now();
            thread::sleep(self.window);
            let elapsed = began.elapsed();
            stop.store(true, Relaxed);
            let results = readers.into_iter().map(|reader| reader.join().expect("no panic"));
            (results.collect(), elapsed)
        })
    }
}
