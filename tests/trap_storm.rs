//! Many real faults on several threads, while modules are loaded and unloaded and signals interrupt
//! everything: every trap is attributed right, none is lost, memory does not grow, and nothing stops.
//!
//! Short by default; `PCMAP_LONG=1` makes it a million faults, and a storm of sixty seconds.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "a signal handler, and timers that raise its signal")]

#[path = "../examples/mini_runtime/compiler.rs"]
mod compiler;
#[path = "trap_guests/mod.rs"]
mod trap_guests;

use pcmap::registry::{TrapCode, process_code_map};
use pcmap::trap::{Cause, GuestThread, Trap, sample_guest};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, mem, ptr, thread};
use trap_guests::{Guests, prepared};

const THREADS: usize = 3;
const SLOTS: usize = 8;
/// Between two signals on a thread. Shorter, and a thread does nothing but handle them.
const PERIOD: Duration = Duration::from_micros(100);

fn long() -> bool {
    env::var_os("PCMAP_LONG").is_some_and(|value| value != "0")
}

/// What the threads of a run share.
struct Storm {
    slots: [Mutex<Arc<Guests>>; SLOTS],
    stop: AtomicBool,
    traps: AtomicU64,
    loads: AtomicU64,
}

static SAMPLES: AtomicU64 = AtomicU64::new(0);
static GUEST_SAMPLES: AtomicU64 = AtomicU64::new(0);

impl Storm {
    fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| Mutex::new(Arc::new(Guests::load()))),
            stop: AtomicBool::new(false),
            traps: AtomicU64::new(0),
            loads: AtomicU64::new(0),
        }
    }

    /// Loads modules in place of others; the last guest that has one unloads it.
    fn load(&self) {
        for slot in (0..SLOTS).cycle() {
            if self.stop.load(Relaxed) {
                return;
            }
            let fresh = Arc::new(Guests::load());
            let old = mem::replace(&mut *self.slots[slot].lock().expect("no panic"), fresh);
            drop(old);
            if self.loads.fetch_add(1, Relaxed).is_multiple_of(64) {
                let _ = process_code_map().reclaim();
            }
        }
    }

    /// Traps in every way there is, and checks each answer.
    fn trap(&self, thread: &GuestThread, first: usize) {
        for round in first.. {
            if self.stop.load(Relaxed) {
                return;
            }
            let guests = self.slots[round % SLOTS].lock().expect("no panic").clone();
            for _ in 0..8 {
                self.trap_once(thread, &guests);
            }
        }
    }

    fn trap_once(&self, thread: &GuestThread, guests: &Guests) {
        let trap = |name: &str, with| guests.run(thread, name, with).expect_err("it traps");
        check(guests, &trap("load", [8, 0, 0]), "load", Some(1), 1);
        check(guests, &trap("store", [16, 0, 0]), "store", Some(2), 1);
        check(guests, &trap("unreachable", [0; 3]), "unreachable", Some(3), 1);
        check(guests, &trap("divide", [1, 0, 0]), "divide", None, 1);
        let descend = guests.address("descend");
        check(guests, &trap("descend", [descend, 9, 24]), "descend", Some(4), 10);
        self.traps.fetch_add(5, Relaxed);
        assert_eq!(guests.run(thread, "add", [1, 2, 3]).expect("it does not trap"), 6);
    }
}

#[track_caller]
fn check(guests: &Guests, trap: &Trap, name: &str, code: Option<u8>, frames: usize) {
    let Cause::Code(found) = trap.cause() else { panic!("{trap:?}") };
    let function = guests.function(name);
    assert!(code.is_none_or(|code| found == TrapCode::new(code)), "{trap:?}");
    assert_eq!(trap.function(), Some(function.key), "{trap:?}");
    let offset = trap.text_offset().expect("in the text");
    assert_eq!(guests.code.tables().trap_at(offset), Some(found));
    let start = guests.code.text_range().start.address();
    assert_eq!(trap.pc(), start + offset.get() as usize, "of this module, and no other");
    assert_eq!(trap.frames().len(), frames);
    let end = guests.code.text_range().end.address();
    assert!(trap.frames().all(|frame| (start..end).contains(&frame.pc())));
}

/// Pages of memory that the process has.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("the system tells");
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number")
}

/// Ends the process with what is known if the count does not move for a long time.
fn watch(storm: &Storm) {
    let mut last = (0, Instant::now());
    while !storm.stop.load(Relaxed) {
        thread::sleep(Duration::from_millis(100));
        let traps = storm.traps.load(Relaxed);
        if traps != last.0 {
            last = (traps, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(60) {
            eprintln!(
                "no trap for a minute: {traps} traps, {} loads, {} samples, {}",
                storm.loads.load(Relaxed),
                SAMPLES.load(Relaxed),
                process_code_map().stats()
            );
            std::process::abort();
        }
    }
}

extern "C" fn on_sample(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let mut frames = [0; 16];
    // SAFETY: (`sample_guest`) 1. the kernel's, and nobody else's.
    let count = unsafe { sample_guest(context, &mut frames) };
    SAMPLES.fetch_add(1, Relaxed);
    GUEST_SAMPLES.fetch_add(u64::from(count > 0), Relaxed);
}

fn install_sampler() {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_sample as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: a handler that does only what handlers may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) }, 0);
}

/// Interrupts this thread until dropped.
struct Timer(libc::timer_t);

impl Timer {
    fn start() -> Self {
        // SAFETY: zeros are a valid event.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        // SAFETY: asks for this thread's number.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = ptr::null_mut();
        // SAFETY: a whole event, and room for the answer.
        let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) };
        assert_eq!(made, 0);
        let period = libc::timespec { tv_sec: 0, tv_nsec: PERIOD.subsec_nanos().into() };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        // SAFETY: a timer of ours, and a whole description.
        assert_eq!(unsafe { libc::timer_settime(timer, 0, &times, ptr::null_mut()) }, 0);
        Self(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: ours, and not deleted yet.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Runs all threads until `enough`, which is asked now and then.
fn run(storm: &Storm, with_signals: bool, mut enough: impl FnMut(&Storm) -> bool) {
    let timer = || with_signals.then(Timer::start);
    thread::scope(|scope| {
        scope.spawn(|| watch(storm));
        scope.spawn(|| {
            let (_thread, _timer) = (prepared(), timer());
            storm.load();
        });
        for first in 0..THREADS {
            scope.spawn(move || {
                let (thread, _timer) = (prepared(), timer());
                storm.trap(&thread, first);
            });
        }
        while !enough(storm) {
            thread::sleep(Duration::from_millis(10));
        }
        storm.stop.store(true, Relaxed);
    });
}

/// One test, for what is measured is the process's.
#[test]
fn every_trap_is_attributed_and_nothing_stops() {
    let wanted = if long() { 1_000_000 } else { 100_000 };
    let storm = Storm::new();
    let mut warm = None;
    let began = Instant::now();
    run(&storm, false, |storm| {
        let traps = storm.traps.load(Relaxed);
        if traps > wanted / 4 {
            warm.get_or_insert_with(resident);
        }
        traps >= wanted
    });
    let (warm, now) = (warm.expect("it was warm"), resident());
    let (traps, loads) = (storm.traps.load(Relaxed), storm.loads.load(Relaxed));
    drop(storm);
    println!("{traps} traps, {loads} loads in {:?}; {warm} pages, then {now}", began.elapsed());
    assert!(loads > 100 && now <= warm + warm / 20, "{warm} pages, then {now}");

    install_sampler();
    let length = Duration::from_secs(if long() { 60 } else { 3 });
    let (storm, began) = (Storm::new(), Instant::now());
    run(&storm, true, |_| began.elapsed() >= length);
    let (samples, in_guests) = (SAMPLES.load(Relaxed), GUEST_SAMPLES.load(Relaxed));
    let (traps, loads) = (storm.traps.load(Relaxed), storm.loads.load(Relaxed));
    println!("{traps} traps, {loads} loads, {samples} samples, {in_guests} of them in guests");
    assert!(traps > 1000 && loads > 10 && samples > 1000 && in_guests > 0);

    drop(storm);
    process_code_map().synchronize();
    let left = process_code_map().stats();
    assert_eq!((left.entries, left.retired), (0, 0), "{left}");
}
