//! Readers that never leave: registration and lookup go on for ever, the figures tell, and memory is
//! bounded: each holds back at most the index as it was, and as much garbage as makes an era end.
//!
//! A reader is lost in three ways: it is forgotten; a signal handler leaves in the midst of its
//! lookup for a context that was saved before, as `siglongjmp` does; or its thread is stuck inside.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(unsafe_code, reason = "a handler that leaves for another context")]

#[expect(dead_code, reason = "what refuses is for other tests; here memory is counted")]
mod refusing;
mod tracked;

use pcmap::CodeMap;
use refusing::live_bytes;
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;
use std::{mem, ptr, thread};
use tracked::{Tally, Tracked};

type Map = CodeMap<Tracked<'static>>;

const RESIDENTS: usize = 40;
const STRIDE: usize = 0x100;
const BASE: usize = 0x10_0000;
/// The resident that the lost readers look at.
const SEEN: usize = BASE + 7 * STRIDE;
/// Where code comes and goes.
const CHURNED: usize = BASE + 11 * STRIDE + 0x80;

fn id_at(map: &Map, pc: usize) -> Option<usize> {
    map.lookup(pc, |hit| hit.value().id())
}

/// A map that is in use, without garbage.
fn map_in_use(tally: &'static Tally) -> Map {
    let map = Map::new();
    let residents = (0..RESIDENTS).map(|i| BASE + i * STRIDE);
    let residents = residents.map(|start| (start..start + 0x80, tally.track(start)));
    map.register_all(residents).expect("free").into_iter().for_each(pcmap::Registration::leak);
    drop(map.register(CHURNED..CHURNED + 1, tally.track(1)).expect("free"));
    map.synchronize();
    assert!(map.reclaim().is_empty());
    map
}

/// Garbage that makes an era end, in bytes, and a few writes more.
const ERA_BYTES: isize = (256 << 10) + (32 << 10);

/// Loses a reader by `lose`, and goes on for a long time; everything is as it should be.
fn go_on_without(map: &Map, tally: &'static Tally, lose: impl FnOnce()) -> Figures {
    assert!(map.reclaim().is_empty());
    let before = map.stats();
    assert_eq!((before.retired, before.entries), (0, RESIDENTS));
    let (bytes, alive) = (live_bytes(), tally.alive());
    lose();
    let bytes_of_reader = live_bytes() - bytes;

    let mut rounds = 0;
    // For printing in the end: what a test prints is kept in memory until then.
    let mut figures = [Figure::default(); 5];
    let mut peak = 0;
    let mut waited = Duration::ZERO;
    for (figure, more) in figures.iter_mut().zip([1, 9, 90, 900, 4_000]) {
        for _ in 0..more {
            rounds += 1;
            let code = map.register(CHURNED..CHURNED + 0x40, tally.track(rounds)).expect("free");
            assert_eq!(id_at(map, CHURNED + 0x3f), Some(rounds));
            let mut retirement = code.unregister();
            assert_eq!(id_at(map, CHURNED), None);
            assert_eq!(id_at(map, SEEN), Some(SEEN));
            let stats = map.stats();
            // Whoever waits for what is newer than the reader's era need not wait for the reader.
            if stats.eras == before.eras {
                assert!(!retirement.is_complete(), "a reader is inside");
            }
            peak = peak.max(live_bytes() - bytes - bytes_of_reader);
        }
        let stats = map.stats();
        assert!(stats.publications >= before.publications + rounds as u64);
        // The memory that is said to wait is all that was taken, but for what the map keeps at hand.
        assert_eq!((stats.entries, stats.removed), (RESIDENTS, 1));
        let grown = live_bytes() - bytes - bytes_of_reader;
        assert!(grown >= stats.retired_bytes as isize, "{stats}");
        // The figures that tell of it: an era is held, the oldest waits ever longer.
        let oldest = stats.oldest_wait.expect("something waits");
        assert!(oldest >= waited);
        waited = oldest;
        let held: u64 = map.eras().filter(|era| !era.is_current).map(|era| era.retired_bytes).sum();
        *figure = Figure { rounds, retired: stats.retired, grown, held, eras: stats.eras };
    }
    let [.., one_before, last] = figures;
    // One era ended because of the reader, and it holds no more since.
    let stats = map.stats();
    assert_eq!((stats.eras, stats.eras_held), (before.eras + 1, 1), "{stats}");
    assert!(map.eras().any(|era| era.number == before.eras && !era.is_current));
    assert_eq!(last.held, one_before.held, "{figures:?}");
    assert!(last.grown <= one_before.grown + 16 * 1024, "it grows: {figures:?}");
    // Beside that, what waits for its turn as it does without the reader.
    const WAITS_ANYWAY: isize = 64 * 1024;
    let most = before.index_bytes as isize + ERA_BYTES + WAITS_ANYWAY;
    assert!(peak <= most, "{peak}: {figures:?}");
    // What is newer goes at once, with its value.
    let left = map.reclaim();
    assert!(left.bytes <= before.index_bytes as u64 + ERA_BYTES as u64, "{left:?}");
    let dropped = tally.dropped();
    let code = map.register(CHURNED..CHURNED + 0x40, tally.track(rounds)).expect("free");
    code.unregister().wait();
    assert_eq!(tally.dropped(), dropped + 1);
    // Values of the reader's era wait, and no others.
    assert!(tally.alive() < alive + rounds / 2, "{} values", tally.alive());
    // Views that are owned come and go.
    let view = map.snapshot().expect("memory");
    assert_eq!(view.len(), RESIDENTS);
    figures
}

#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    rounds: usize,
    /// Pieces of garbage that wait.
    retired: u64,
    /// Bytes that were taken in all, and of these, what eras hold that have ended.
    grown: isize,
    held: u64,
    eras: u64,
}

type Figures = [Figure; 5];

fn tell(way: &str, figures: Figures) {
    for Figure { rounds, retired, grown, held, eras } in figures {
        println!(
            "{way}, {rounds} rounds: {retired} pieces wait, {grown} bytes, {held} held, {eras} eras"
        );
    }
}

fn new_tally() -> &'static Tally {
    Box::leak(Box::new(Tally::new()))
}

#[test]
fn a_reader_that_is_forgotten() {
    let tally = new_tally();
    let before = live_bytes();
    let map = map_in_use(tally);
    let figures = go_on_without(&map, tally, || mem::forget(map.enter()));
    // Where nothing borrows it any more, the map goes, and all that waited.
    drop(map);
    assert_eq!((tally.alive(), live_bytes()), (0, before));
    tell("forgotten", figures);
}

#[test]
fn many_readers_that_are_forgotten() {
    let tally = new_tally();
    let map = map_in_use(tally);
    let figures = go_on_without(&map, tally, || {
        for _ in 0..1000 {
            mem::forget(map.enter());
        }
    });
    tell("a thousand forgotten", figures);
    drop(map);
    assert_eq!(tally.alive(), 0);
}

/// Each reader that is lost later holds back as much again, and no more.
#[test]
fn readers_that_are_lost_one_after_another() {
    const LOST: usize = 12;
    let tally = new_tally();
    let map = map_in_use(tally);
    let before = map.stats();
    let bytes = live_bytes();
    let mut figures = [0; LOST];
    for figure in &mut figures {
        mem::forget(map.enter());
        for round in 0..2_000 {
            let code = map.register(CHURNED..CHURNED + 0x40, tally.track(round)).expect("free");
            drop(code);
        }
        let _ = map.reclaim();
        *figure = live_bytes() - bytes;
    }
    let stats = map.stats();
    println!("{LOST} readers lost one after another: {figures:?} bytes; {stats}");
    assert_eq!((stats.eras, stats.eras_held), (before.eras + LOST as u64, LOST));
    // An era object, too, is counted: a little over 8 KiB, and twice as many are made at a time.
    let each = before.index_bytes as isize + ERA_BYTES + 4 * 9 * 1024;
    for (lost, figure) in (1..).zip(figures) {
        assert!(figure <= lost * each, "{lost} readers: {figure} bytes");
    }
    drop(map);
    assert_eq!(tally.alive(), 0);
}

static ESCAPED_MAP: AtomicPtr<Map> = AtomicPtr::new(ptr::null_mut());
static SEEN_BY_HANDLER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Where the handler leaves for.
    static SAVED: Cell<*const libc::ucontext_t> = const { Cell::new(ptr::null()) };
}

/// Looks up, and leaves for the saved context without returning: not from the closure, not from
/// the handler.
extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: set by the test to a map that outlives its signal.
    let map = unsafe { &*ESCAPED_MAP.load(SeqCst) };
    map.lookup(SEEN, |hit| {
        SEEN_BY_HANDLER.store(hit.value().id(), SeqCst);
        // SAFETY: a context that `swapcontext` saved, on a stack that still waits there. What is
        // left behind on this stack has nothing to be dropped but the reader, which is the point.
        unsafe { libc::setcontext(SAVED.get()) };
    });
}

/// Runs on a stack of its own.
extern "C" fn raise_the_signal() {
    // SAFETY: the handler is installed.
    unsafe { libc::raise(libc::SIGUSR1) };
}

/// Runs code on another stack, which takes a signal there and never comes back.
fn lose_by_escape(map: &Map) {
    const STACK: usize = 256 * 1024;
    ESCAPED_MAP.store(ptr::from_ref(map).cast_mut(), SeqCst);
    let handler: extern "C" fn(libc::c_int) = on_signal;
    // SAFETY: the handler has the signature it should have, and is signal-safe.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // The stack with the frames that were left stays, as that of a coroutine would.
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut here: libc::ucontext_t = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut there: libc::ucontext_t = unsafe { mem::zeroed() };
    // SAFETY: a valid place.
    assert_eq!(unsafe { libc::getcontext(&raw mut there) }, 0);
    there.uc_stack.ss_sp = stack.as_mut_ptr().cast();
    there.uc_stack.ss_size = STACK;
    // SAFETY: a context from `getcontext` with a stack of its own; a function without arguments.
    unsafe { libc::makecontext(&raw mut there, raise_the_signal, 0) };
    SAVED.set(&raw const here);
    // SAFETY: both are valid; the handler comes back here.
    assert_eq!(unsafe { libc::swapcontext(&raw mut here, &raw const there) }, 0);
    assert_eq!(SEEN_BY_HANDLER.load(SeqCst), SEEN, "the handler found it, and left");
}

#[test]
fn a_handler_that_leaves_in_the_midst_of_its_lookup() {
    let tally = new_tally();
    let map = map_in_use(tally);
    tell("left by a jump", go_on_without(&map, tally, || lose_by_escape(&map)));
    drop(map);
    assert_eq!(tally.alive(), 0);
}

#[test]
fn a_thread_that_is_stuck_inside() {
    let tally = new_tally();
    let map = map_in_use(tally);
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Goes when a check fails, so that the reader does not wait for ever.
        let (map, go) = (&map, go);
        let stuck = scope.spawn(move || {
            map.lookup(SEEN, |hit| {
                inside.send(()).expect("the other end waits");
                may_go.recv().expect("the other end says when");
                hit.value().id()
            })
        });
        is_inside.recv().expect("the reader enters");
        tell("stuck", go_on_without(map, tally, || ()));
        // Should it ever come unstuck, nothing has happened to what it was reading.
        go.send(()).expect("the reader waits");
        assert_eq!(stuck.join().expect("no panic"), Some(SEEN));
        map.synchronize();
        assert!(map.reclaim().is_empty());
        let stats = map.stats();
        assert_eq!((stats.retired, stats.retired_bytes, stats.oldest_wait), (0, 0, None));
        assert_eq!(tally.alive(), RESIDENTS);
    });
}

/// It is still inside when the process ends.
#[test]
fn a_thread_that_is_stuck_for_ever() {
    let tally = new_tally();
    let map: &'static Map = Box::leak(Box::new(map_in_use(tally)));
    let (inside, is_inside) = mpsc::channel();
    thread::spawn(move || {
        map.lookup(SEEN, |_| {
            inside.send(()).expect("the other end waits");
            loop {
                thread::park();
            }
        })
    });
    is_inside.recv().expect("the reader enters");
    tell("stuck for ever", go_on_without(map, tally, || ()));
}
