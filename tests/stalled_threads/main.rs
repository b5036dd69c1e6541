//! Threads that stop for ever in the midst of a call: what they hold back is bounded, and nobody waits.
//!
//! A round stops five threads: one in the closure of a lookup, and one each at a random instruction of
//! `lookup`, `register`, `reclaim` and `unregister`. Then writers go on replacing the whole map. What is
//! retained must not grow with time. Code that was born in a later era than the stall is unregistered and
//! waited for as ever. `PCMAP_LONG=1` makes it ten times as long.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

#[path = "../heap/mod.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod heap;
mod stop;

use pcmap::{CodeMap, Registration};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use stop::Victim;

type Map = CodeMap<[usize; 2]>;

const RANGES: usize = 10_000;
const STRIDE: usize = 0x1000;
const LENGTH: usize = 0xc00;
const BASE: usize = 1 << 40;
const WRITERS: usize = 4;
/// Where the victims' code comes and goes, and that which is waited for.
const APART: usize = 1 << 44;

/// No more than what several readers hold, each at most the index as it was.
const MOST_RETAINED: u64 = 16 << 20;
/// What two moments may differ by without any growth: garbage comes and goes.
const FLUCTUATION: u64 = 1 << 20;
/// Far longer than any wait for code that nobody holds.
const PATIENCE: Duration = Duration::from_secs(20);

fn is_long() -> bool {
    std::env::var_os("PCMAP_LONG").is_some_and(|value| value != "0")
}

fn range(place: usize) -> std::ops::Range<usize> {
    let start = BASE + place * STRIDE;
    start..start + LENGTH
}

/// What a victim does for ever, until it is stopped in the midst of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Closure,
    Lookup,
    Register,
    Reclaim,
    Unregister,
}

impl Call {
    const ALL: [Self; 5] =
        [Self::Closure, Self::Lookup, Self::Register, Self::Reclaim, Self::Unregister];

    /// Makes the call over and over. Signals that come inside the call stop the thread.
    fn make_for_ever(self, map: &'static Map, victim: &Victim) {
        let start = APART + self as usize * STRIDE;
        for number in 0.. {
            let place = number % RANGES;
            match self {
                Self::Closure => {
                    // (It may be replaced at this moment.)
                    map.lookup(range(place).start, |hit| {
                        black_box(hit.value());
                        victim.may_stop(|| thread::sleep(Duration::from_micros(50)));
                    });
                }
                Self::Lookup => {
                    victim
                        .may_stop(|| black_box(map.lookup(range(place).start, |hit| hit.offset())));
                }
                Self::Register => {
                    let code = victim.may_stop(|| map.register(start..start + LENGTH, [0; 2]));
                    drop(code.expect("free"));
                }
                Self::Reclaim => {
                    // There is to be something to free.
                    for _ in 0..8 {
                        drop(map.register(start..start + LENGTH, [0; 2]).expect("free"));
                    }
                    let _ = victim.may_stop(|| map.reclaim());
                }
                Self::Unregister => {
                    let code = map.register(start..start + LENGTH, [0; 2]).expect("free");
                    victim.may_stop(|| drop(code.unregister()));
                }
            }
        }
    }
}

/// The writers' code: each takes the places that are its own modulo their number.
struct Writers {
    map: &'static Map,
    residents: Vec<Mutex<Option<Registration<'static, [usize; 2]>>>>,
    pairs: AtomicUsize,
    stop: AtomicBool,
}

impl Writers {
    fn new() -> &'static Self {
        let map: &'static Map = Box::leak(Box::default());
        let residents = map.register_all((0..RANGES).map(|i| (range(i), [i; 2]))).expect("free");
        let residents = residents.into_iter().map(|code| Mutex::new(Some(code))).collect();
        let (pairs, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        Box::leak(Box::new(Self { map, residents, pairs, stop }))
    }

    /// Replaces code all over the map, in all ways.
    fn write(&self, writer: usize) {
        let mut random = fastrand::Rng::with_seed(writer as u64);
        for number in 0.. {
            if self.stop.load(SeqCst) {
                return;
            }
            let place = random.usize(..RANGES / WRITERS) * WRITERS + writer;
            let mut resident = self.residents[place].lock().expect("no panic");
            drop(resident.take());
            *resident = Some(self.map.register(range(place), [place; 2]).expect("free"));
            drop(resident);
            if number % 1000 == 0 {
                let _ = self.map.reclaim();
            }
            self.pairs.fetch_add(1, SeqCst);
        }
    }
}

/// Unregisters code that is born in a later era than `stalled`, and waits for it; tells for how long.
fn wait_for_later_code(map: &'static Map, stalled: u64) -> Duration {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        // A new era begins when there is garbage that cannot be freed.
        let mut number = 0;
        while map.stats().eras <= stalled {
            let start = APART + (10 + number % 10) * STRIDE;
            drop(map.register(start..start + LENGTH, [0; 2]).expect("free"));
            let _ = map.reclaim();
            number += 1;
        }
        let code = map.register(APART + 30 * STRIDE..APART + 31 * STRIDE, [0; 2]).expect("free");
        let begin = Instant::now();
        code.unregister().wait();
        done.send(begin.elapsed()).expect("somebody waits");
    });
    match is_done.recv_timeout(PATIENCE) {
        Ok(waited) => waited,
        Err(RecvTimeoutError::Timeout) => {
            let eras: Vec<_> = map.eras().map(|era| (era.number, era.retired, era.age)).collect();
            panic!("waited for ever, stalled in {stalled}; {}; {eras:?}", map.stats())
        }
        Err(RecvTimeoutError::Disconnected) => panic!("a wait failed"),
    }
}

/// The least that is retained in a moment, which fluctuates while writers write.
fn least_retained(map: &Map) -> u64 {
    let sample = |_| {
        thread::sleep(Duration::from_millis(2));
        map.stats().retired_bytes
    };
    (0..30).map(sample).min().expect("samples")
}

fn go_on_with_stalled_threads(length: Duration) {
    let heap = heap::live_bytes();
    let writers = Writers::new();
    let map = writers.map;
    let handles: Vec<_> =
        (0..WRITERS).map(|writer| thread::spawn(move || writers.write(writer))).collect();
    // They stop at different times, while the others write.
    let mut places = Vec::new();
    for call in Call::ALL {
        let at =
            stop::stop_one(move |victim| call.make_for_ever(map, victim), call != Call::Closure);
        places.push((call, at));
    }
    let stalled = map.stats().eras;
    println!("stopped at {places:x?}, era {stalled}");
    let begin = Instant::now();
    let (mut most, mut early, mut longest, mut waits) = (0, None, Duration::ZERO, 0);
    while begin.elapsed() < length {
        most = most.max(map.stats().retired_bytes);
        if early.is_none() && begin.elapsed() >= length / 6 {
            early = Some((least_retained(map), writers.pairs.load(SeqCst)));
        }
        longest = longest.max(wait_for_later_code(map, stalled));
        waits += 1;
        thread::sleep(Duration::from_millis(10));
    }
    let late = least_retained(map);
    writers.stop.store(true, SeqCst);
    handles.into_iter().for_each(|writer| writer.join().expect("no writer is stopped"));
    let _ = map.reclaim();
    let stats = map.stats();
    let heap = (heap::live_bytes() - heap) as u64;
    let (early, pairs_early) = early.expect("there was time");
    let pairs = writers.pairs.load(SeqCst);
    let kib = |bytes: u64| bytes >> 10;
    println!(
        "{pairs_early} pairs: {} KiB retained; {pairs} pairs: {} KiB, at most {} KiB; in the end {} KiB; \
         the index has {} KiB; {waits} waits of at most {longest:?}; {} eras, {} held; {} KiB of the heap in all",
        kib(early),
        kib(late),
        kib(most),
        kib(stats.retired_bytes),
        kib(stats.index_bytes as u64),
        stats.eras,
        stats.eras_held,
        kib(heap),
    );
    assert!(pairs > pairs_early, "writers go on");
    // (The figure may be off for ever by what a thread that stopped had not counted yet.)
    let shown = map.snapshot().expect("memory").len();
    assert_eq!(shown, RANGES + extra(&places, map), "{stats}");
    assert!(stats.entries.abs_diff(shown) <= 2 * Call::ALL.len() + 128, "{stats}");
    for (when, retained) in [("late", late), ("in the end", stats.retired_bytes)] {
        assert!(retained <= early + early / 10 + FLUCTUATION, "{when}: it grows; {stats}");
        assert!(retained <= 2 * stats.index_bytes as u64 + MOST_RETAINED, "{when}: {stats}");
    }
    assert!(most <= 2 * stats.index_bytes as u64 + MOST_RETAINED, "at some moment: {stats}");
    // With the values, which the figures do not count.
    assert!(heap <= 2 * stats.index_bytes as u64 + MOST_RETAINED, "{heap} bytes; {stats}");
    assert!(stats.eras_held <= Call::ALL.len(), "one for each at most: {stats}");
}

/// How many ranges victims have left registered: what they were stopped at says nothing of that.
fn extra(places: &[(Call, usize)], map: &Map) -> usize {
    let of =
        |&(call, _): &(Call, usize)| map.lookup(APART + call as usize * STRIDE, |_| ()).is_some();
    places.iter().filter(|place| of(place)).count()
}

#[test]
fn what_stalled_threads_hold_back_is_bounded_and_nobody_waits() {
    let long = if is_long() { 10 } else { 1 };
    go_on_with_stalled_threads(Duration::from_secs(6 * long));
    for _ in 0..6 * long {
        go_on_with_stalled_threads(Duration::from_millis(1200));
    }
}
