//! Readers that never leave: registration and lookup go on for ever, the figures tell, and memory
//! grows by what is retired since, to the byte.
//!
//! A reader is lost in three ways: it is forgotten; a signal handler leaves in the midst of its
//! lookup for a context that was saved before, as `siglongjmp` does; or its thread is stuck inside.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![expect(unsafe_code, reason = "a handler that leaves for another context")]

#[expect(dead_code, reason = "what refuses is for other tests; here memory is counted")]
mod refusing;
mod tracked;

use pcmap::CodeMap;
use refusing::{live_bytes, warm_up};
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
    map
}

/// Loses a reader by `lose`, and goes on for a long time; everything is as it should be.
fn go_on_without(map: &Map, tally: &'static Tally, lose: impl FnOnce()) -> Figures {
    let before = map.stats();
    assert_eq!((before.retired, before.entries), (0, RESIDENTS));
    let (bytes, alive) = (live_bytes(), tally.alive());
    lose();
    let bytes_of_reader = live_bytes() - bytes;

    let mut waited = Duration::ZERO;
    let mut epoch = None;
    let mut rounds = 0;
    // For printing in the end: what a test prints is kept in memory until then.
    let mut figures = [(0, 0, 0); 4];
    for (figure, more) in figures.iter_mut().zip([1, 9, 90, 900]) {
        for _ in 0..more {
            rounds += 1;
            let code = map.register(CHURNED..CHURNED + 0x40, tally.track(rounds)).expect("free");
            assert_eq!(id_at(map, CHURNED + 0x3f), Some(rounds));
            let mut retirement = code.unregister();
            assert_eq!(id_at(map, CHURNED), None);
            assert_eq!(id_at(map, SEEN), Some(SEEN));
            assert!(!retirement.is_complete(), "a reader is inside");
        }
        let remaining = map.reclaim();
        let stats = map.stats();
        // Each version since, and nothing else; each value that one of them shows.
        assert_eq!(stats.retired, 2 * rounds as u64, "{stats}");
        assert_eq!(stats.publications, before.publications + 2 * rounds as u64);
        assert_eq!((remaining.versions, remaining.bytes), (stats.retired, stats.retired_bytes));
        assert_eq!(tally.alive(), alive + rounds);
        // The memory that is said to wait is all that was taken.
        assert_eq!((stats.entries, stats.index_bytes), (RESIDENTS, before.index_bytes));
        let grown = live_bytes() - bytes - bytes_of_reader;
        assert_eq!(grown, stats.retired_bytes as isize, "{stats}");
        // The figures that tell of it: the epoch stands still, the oldest waits ever longer.
        assert!(epoch.is_none_or(|epoch| epoch == stats.epoch), "{stats}");
        assert!(stats.epoch <= before.epoch + 2, "{stats}");
        epoch = Some(stats.epoch);
        let oldest = stats.oldest_wait.expect("something waits");
        assert!(oldest >= waited);
        waited = oldest;
        *figure = (rounds, stats.retired, grown);
    }
    // Views that are owned come and go.
    let view = map.snapshot();
    assert_eq!(view.len(), RESIDENTS);
    figures
}

/// Rounds, versions that wait, and bytes that they take.
type Figures = [(usize, u64, isize); 4];

fn tell(way: &str, figures: Figures) {
    for (rounds, versions, bytes) in figures {
        println!("{way}, {rounds} rounds: {versions} versions, {bytes} bytes");
    }
}

fn new_tally() -> &'static Tally {
    Box::leak(Box::new(Tally::new()))
}

#[test]
fn a_reader_that_is_forgotten() {
    warm_up();
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
    warm_up();
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
    warm_up();
    let tally = new_tally();
    let map = map_in_use(tally);
    tell("left by a jump", go_on_without(&map, tally, || lose_by_escape(&map)));
    drop(map);
    assert_eq!(tally.alive(), 0);
}

#[test]
fn a_thread_that_is_stuck_inside() {
    warm_up();
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
        let stats = map.stats();
        assert_eq!((stats.retired, stats.retired_bytes, stats.oldest_wait), (0, 0, None));
        assert_eq!(tally.alive(), RESIDENTS);
    });
}

/// It is still inside when the process ends.
#[test]
fn a_thread_that_is_stuck_for_ever() {
    warm_up();
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
