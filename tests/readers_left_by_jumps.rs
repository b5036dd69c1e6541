//! Sixteen readers that a jump leaves inside, one after the other: what they hold back is linear in their
//! number, each at most the index as it was.
//!
//! Between two of them the map of 10,000 ranges is replaced whole, in one of three ways. Memory is counted
//! by the allocator, to the byte. (`lost_readers` has what one such reader does.) `PCMAP_LONG=1` adds one
//! of these ways.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(unsafe_code, reason = "leaves for another context, as `siglongjmp` does")]

#[expect(dead_code, reason = "each test uses a part of it")]
mod heap;

use pcmap::{CodeMap, Registration};
use std::cell::Cell;
use std::{mem, ptr};

type Map = CodeMap<usize>;
type Code<'m> = Vec<Registration<'m, usize>>;

const RANGES: usize = 10_000;
const STRIDE: usize = 0x1000;
const LENGTH: usize = 0xc00;
const BASE: usize = 1 << 40;
/// The range that readers look at when they are lost.
const SEEN: usize = 7_777;
const LOST: usize = 16;

/// Garbage that may come before a new era begins, as `src/sync.rs` has it.
const ERA_BYTES: isize = 256 << 10;
/// An era object with its reader counts. A chunk of them has as many as there were before.
const ERA_OBJECT: isize = 9 << 10;
/// What one write displaces: nodes of two or three levels.
const ONE_WRITE: isize = 32 << 10;

fn range(place: usize) -> std::ops::Range<usize> {
    let start = BASE + place * STRIDE;
    start..start + LENGTH
}

thread_local! {
    /// Where the lost reader leaves for, and the map that it reads.
    static SAVED: Cell<*const libc::ucontext_t> = const { Cell::new(ptr::null()) };
    static MAP: Cell<*const Map> = const { Cell::new(ptr::null()) };
}

/// Runs on a stack of its own, and leaves it in the midst of a lookup.
extern "C" fn look_up_and_leave() {
    // SAFETY: set by `lose_a_reader` on this thread, to a map that is alive.
    let map = unsafe { &*MAP.get() };
    map.lookup(range(SEEN).start, |hit| {
        assert_eq!(hit.offset(), 0);
        // SAFETY: a context that `swapcontext` saved, on a stack that waits there. What is left behind here
        // has nothing to be dropped but the reader, which is the point.
        unsafe { libc::setcontext(SAVED.get()) };
    });
}

/// Loses a reader. The stack that it was on is given back: nothing returns to it.
fn lose_a_reader(map: &Map) {
    MAP.set(ptr::from_ref(map));
    let mut stack = vec![0_u8; 256 << 10];
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut here: libc::ucontext_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut there: libc::ucontext_t = unsafe { mem::zeroed() };
    // SAFETY: a valid place.
    assert_eq!(unsafe { libc::getcontext(&raw mut there) }, 0);
    there.uc_stack.ss_sp = stack.as_mut_ptr().cast();
    there.uc_stack.ss_size = stack.len();
    // SAFETY: a context from `getcontext` with a stack of its own; a function without arguments.
    unsafe { libc::makecontext(&raw mut there, look_up_and_leave, 0) };
    SAVED.set(&raw const here);
    // SAFETY: both are valid; the lookup comes back here.
    assert_eq!(unsafe { libc::swapcontext(&raw mut here, &raw const there) }, 0);
}

/// How the map is replaced.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Range by range, from the lowest.
    InOrder,
    /// Range by range, all over.
    Scattered,
    /// All in one batch.
    Whole,
}

impl Way {
    fn replace<'m>(self, map: &'m Map, code: &mut Code<'m>, random: &mut fastrand::Rng) {
        let mut order: Vec<_> = (0..RANGES).collect();
        match self {
            Self::InOrder => {}
            Self::Scattered => random.shuffle(&mut order),
            Self::Whole => {
                map.unregister_all(mem::take(code)).is_complete();
                *code = map.register_all((0..RANGES).map(|i| (range(i), i))).expect("free");
                return;
            }
        }
        for place in order {
            // The old code goes first, and its place is free at once.
            let old = code.swap_remove(place);
            drop(old);
            code.push(map.register(range(place), place).expect("free"));
            let last = code.len() - 1;
            code.swap(place, last);
        }
    }
}

/// Loses readers between replacements. Gives what is retained with each more.
fn lose_many(way: Way) {
    let map = Map::new();
    let mut code = map.register_all((0..RANGES).map(|i| (range(i), i))).expect("free");
    let mut random = fastrand::Rng::with_seed(1);
    let settle = |map: &Map| {
        for _ in 0..4 {
            let _ = map.reclaim();
        }
        heap::live_bytes()
    };
    // As it is with all of it in use.
    way.replace(&map, &mut code, &mut random);
    let before = settle(&map);
    assert_eq!(map.stats().retired, 0, "{}", map.stats());
    let mut retained = vec![0];
    let mut most_held = 0;
    for number in 1..=LOST {
        let stats = map.stats();
        // The index with the values in it, as it is now; removed ranges have entries too.
        let most_index = (stats.index_bytes + stats.entries * size_of::<usize>()) as isize;
        lose_a_reader(&map);
        way.replace(&map, &mut code, &mut random);
        let now = settle(&map) - before;
        let held = now - retained[number - 1];
        most_held = held.max(most_held);
        retained.push(now);
        let stats = map.stats();
        // What is said to be retained is memory; besides it there are values and era objects.
        assert!(stats.retired_bytes as isize <= now, "{now}; {stats}");
        assert_eq!(stats.entries, RANGES, "{stats}");
        assert!(stats.eras_held <= number, "{stats}");
        // One batch is one write, however large, and the first may belong to the era of the lost reader.
        let one_write = match way {
            Way::Whole => most_index,
            _ => ONE_WRITE,
        };
        let chunk = ERA_OBJECT * (number as isize + 1);
        let most = most_index + ERA_BYTES + one_write + chunk;
        assert!(held <= most, "reader {number} holds {held} bytes, not at most {most}; {stats}");
    }
    let stats = map.stats();
    let kib = |bytes: isize| bytes >> 10;
    let each: Vec<_> = retained.windows(2).map(|pair| kib(pair[1] - pair[0])).collect();
    println!(
        "{way:?}: {LOST} readers hold {} KiB, one at most {} KiB; the index has {} KiB; {} eras, {} held; \
         each, in KiB: {each:?}",
        kib(retained[LOST]),
        kib(most_held),
        stats.index_bytes >> 10,
        stats.eras,
        stats.eras_held,
    );
    // Linear: the second half holds no more than the first one, but for what fluctuates.
    let (first, second) = (retained[LOST / 2], retained[LOST] - retained[LOST / 2]);
    assert!(second <= first + first / 4 + ERA_BYTES, "{first} bytes, and then {second}");
    drop(code);
    drop(map);
}

/// One test at a time: bytes are counted for the whole process.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// What is registered after a reader stalled is no more its own if it comes in one large batch.
#[test]
fn a_batch_behind_a_lost_reader_is_not_held_back() {
    let _alone = alone();
    const BATCH: usize = 100_000;
    let map = Map::new();
    (0..10).for_each(|i| map.register(range(i), i).expect("free").leak());
    let _ = map.reclaim();
    mem::forget(map.enter());
    let before = heap::live_bytes();
    let batch = map.register_all((10..10 + BATCH).map(|i| (range(i), i))).expect("free");
    drop(map.unregister_all(batch));
    (0..4).for_each(|_| drop(map.register(range(10), 10).expect("free")));
    for _ in 0..8 {
        let _ = map.reclaim();
    }
    let (held, stats) = (heap::live_bytes() - before, map.stats());
    println!("a reader of 10 ranges holds {} KiB; {stats}", held >> 10);
    assert!(held <= ERA_BYTES + 4 * ERA_OBJECT, "{held} bytes; {stats}");
}

/// One test, for memory is the whole process's.
#[test]
fn readers_that_are_left_by_jumps_hold_one_index_each() {
    let _alone = alone();
    lose_many(Way::Whole);
    lose_many(Way::Scattered);
    if std::env::var_os("PCMAP_LONG").is_some_and(|value| value != "0") {
        lose_many(Way::InOrder);
    }
}
