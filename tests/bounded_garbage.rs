//! Garbage is bounded at every moment, also with many more writers than cores.
//!
//! Writers add and remove code for a while, in every way that there is. A thread samples what is retired,
//! and what memory the process has. So does each writer behind its writes. `PCMAP_LONG=1` makes it ten
//! times as long.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "asks for the size of a page")]

use pcmap::{CodeMap, Registration};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

type Map = CodeMap<[usize; 4]>;

const RANGES: usize = 100;
const STRIDE: usize = 1 << 20;
const LENGTH: usize = 0x1000;
/// Where the writers' code comes and goes: each has a region of its own.
const CHURNED: usize = 1 << 40;
/// Pairs that a writer makes in one way before it takes the next one.
const TURN: usize = 64;

const MOST_RETIRED: u64 = 16 << 20;
const MOST_RESIDENT: u64 = 64 << 20;

fn is_long() -> bool {
    std::env::var_os("PCMAP_LONG").is_some_and(|value| value != "0")
}

/// The memory that this process has, in bytes.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("the kernel tells");
    let pages = statm.split(' ').nth(1).expect("the second figure");
    // SAFETY: no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.parse::<u64>().expect("a number") * page as u64
}

/// What writers do with what they registered.
#[derive(Clone, Copy, Debug)]
enum Ways {
    Drop,
    All,
}

/// What was seen while the writers wrote.
#[derive(Default)]
struct Seen {
    pairs: AtomicUsize,
    walks: AtomicUsize,
    retired_bytes: AtomicU64,
    resident: AtomicU64,
    samples: AtomicUsize,
}

impl Seen {
    /// Looks at the figures of the map, which are asserted for this moment.
    fn look(&self, map: &Map) {
        let stats = map.stats();
        self.retired_bytes.fetch_max(stats.retired_bytes, Relaxed);
        self.samples.fetch_add(1, Relaxed);
        assert!(stats.retired_bytes <= MOST_RETIRED, "{stats}");
    }
}

/// Registers one range or ten of them, and unregisters: in one of four ways.
fn write(map: &Map, writer: usize, number: usize, way: usize) {
    let start = CHURNED + (writer << 32) + number % 1000 * 0x400;
    let range = |i: usize| (start + i * 64..start + i * 64 + 48, [number; 4]);
    if way == 2 {
        let code = map.register_all((0..10).map(range)).expect("free");
        drop(map.unregister_all(code));
        return;
    }
    let (range, value) = range(0);
    let code = map.register(range, value).expect("free");
    match way {
        1 => code.unregister().wait(),
        3 => {
            drop(code);
            let _ = map.reclaim();
        }
        _ => drop(code),
    }
}

/// Looks up a stack of addresses in one section.
fn walk(map: &Map, random: &mut fastrand::Rng) {
    let reader = map.enter();
    for _ in 0..100 {
        let (place, offset) = (random.usize(..RANGES), random.usize(..LENGTH));
        let hit = reader.lookup((place + 1) * STRIDE + offset).expect("registered");
        assert_eq!((hit.value()[3], hit.offset()), (place, offset));
    }
}

fn go_on(writers: usize, walkers: usize, ways: Ways) {
    let map = Map::new();
    let residents = (0..RANGES).map(|i| ((i + 1) * STRIDE..(i + 1) * STRIDE + LENGTH, [i; 4]));
    map.register_all(residents).expect("free").into_iter().for_each(Registration::leak);
    let length = Duration::from_secs_f64(if is_long() { 15.0 } else { 1.5 });
    let (seen, stop) = (&Seen::default(), &AtomicBool::new(false));
    /// Ends the other threads also when a check fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let before = resident();
    thread::scope(|scope| {
        let map = &map;
        for writer in 0..writers {
            scope.spawn(move || {
                let _stop = Stop(stop);
                for number in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let way = match ways {
                        Ways::Drop => 0,
                        Ways::All => (writer + number / TURN) % 4,
                    };
                    write(map, writer, number, way);
                    seen.pairs.fetch_add(1, Relaxed);
                    if number % 16 == 0 {
                        seen.look(map);
                    }
                }
            });
        }
        for walker in 0..walkers {
            scope.spawn(move || {
                let _stop = Stop(stop);
                let mut random = fastrand::Rng::with_seed(walker as u64);
                while !stop.load(Relaxed) {
                    walk(map, &mut random);
                    seen.walks.fetch_add(1, Relaxed);
                }
            });
        }
        let _stop = Stop(stop);
        let begin = Instant::now();
        while begin.elapsed() < length && !stop.load(Relaxed) {
            seen.look(map);
            let grown = resident().saturating_sub(before);
            seen.resident.fetch_max(grown, Relaxed);
            assert!(grown <= MOST_RESIDENT, "{grown} bytes more; {}", map.stats());
            thread::sleep(Duration::from_millis(1));
        }
    });
    let stats = map.stats();
    // (Blocks of memory are retired once more when their values are destroyed.)
    let is_clean = (0..4).any(|_| map.reclaim().is_empty());
    let after = map.stats();
    let kib = |bytes: &AtomicU64| bytes.load(Relaxed) >> 10;
    println!(
        "{writers:2} writers ({ways:?}), {walkers} walkers: {} pairs, {} walks; at most {} KiB retired, \
         {} KiB more resident; {} samples; {} eras, {} KiB left",
        seen.pairs.load(Relaxed),
        seen.walks.load(Relaxed),
        kib(&seen.retired_bytes),
        kib(&seen.resident),
        seen.samples.load(Relaxed),
        stats.eras,
        stats.retired_bytes >> 10,
    );
    assert!(is_clean, "{after}");
    assert_eq!((after.retired, after.retired_bytes, after.entries), (0, 0, RANGES), "{after}");
}

/// One test, for resident memory is the whole process's.
#[test]
fn garbage_of_many_writers_is_bounded_at_every_moment() {
    for writers in [2, 8, 32] {
        go_on(writers, 0, Ways::Drop);
        go_on(writers, 0, Ways::All);
        go_on(writers, 2, Ways::All);
    }
    // As many walkers as writers: most of them are preempted inside.
    go_on(16, 16, Ways::Drop);
}
