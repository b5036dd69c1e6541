//! Many real faults on several threads, while modules are loaded and unloaded and signals interrupt
//! everything: every trap is attributed right, none is lost, memory does not grow, and nothing stops.
//!
//! Short by default; `PCMAP_LONG=1` makes it a million faults, and a storm of sixty seconds.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../../examples/mini_runtime/compiler.rs"]
mod compiler;
#[path = "../../examples/timers/thread_timer.rs"]
mod thread_timer;
#[path = "../trap_guests/mod.rs"]
mod trap_guests;

mod interruptions;
mod memory;
mod storm;
mod watchdog;
mod work;
mod worker;

use memory::settled;
use pcmap::registry::process_code_map;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use storm::{Signals, Storm};

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| value != "0")
}

/// One test, for what is measured is the process's.
#[test]
fn every_trap_is_attributed_and_nothing_stops() {
    if is_set(STALL) {
        return;
    }
    let wanted = if is_set("PCMAP_LONG") { 1_000_000 } else { 100_000 };
    let patience = Duration::from_secs(60);
    let began = Instant::now();
    let calm = |traps| {
        let storm = Storm::new(patience);
        storm.run(Signals::None, |storm| storm.traps() >= traps);
        (storm.traps(), storm.loads())
    };
    let (first_traps, first_loads) = calm(wanted / 4);
    let warm = settled();
    let (traps, loads) = calm(wanted - first_traps);
    let now = settled();
    let (traps, loads) = (first_traps + traps, first_loads + loads);
    println!("{traps} traps, {loads} loads in {:?}; {warm:?}, then {now:?}", began.elapsed());
    assert!(loads > 100);
    assert!(now.own <= warm.own + warm.all / 20, "{warm:?}, then {now:?}");

    interruptions::install();
    let ceiling = interruptions::ceiling();
    let length = Duration::from_secs(if is_set("PCMAP_LONG") { 60 } else { 3 });
    let (storm, began) = (Storm::new(patience), Instant::now());
    storm.run(Signals::AsManyAsProgressAllows, |storm| {
        let is_enough = storm.traps() > 1000 && storm.loads() > 10 && storm.samples() > 1000;
        is_enough && began.elapsed() >= length
    });
    println!(
        "{} traps, {} loads in {:?}; {} samples, {} of them in guests",
        storm.traps(),
        storm.loads(),
        began.elapsed(),
        storm.samples(),
        interruptions::IN_GUESTS.load(Relaxed),
    );
    println!("a thread that only handles signals: {ceiling:.0} a second of its processor time");
    for worker in &storm.workers {
        println!("{worker}");
    }
    assert!(interruptions::IN_GUESTS.load(Relaxed) > 0);

    drop(storm);
    process_code_map().synchronize();
    let left = process_code_map().stats();
    assert_eq!((left.entries, left.retired), (0, 0), "{left}");
}

/// Tells the process of the next test that it is the one that stops.
const STALL: &str = "PCMAP_TRAP_STORM_STALL";

#[test]
fn a_storm_that_stops_ends_with_what_is_known() {
    if is_set(STALL) {
        let mut storm = Storm::new(Duration::from_secs(5));
        storm.stalls = true;
        interruptions::install();
        storm.run(Signals::AsManyAsProgressAllows, |_| false);
        return;
    }
    let mut test = Command::new(env::current_exe().expect("this program"));
    test.env(STALL, "1").args(["--nocapture", "a_storm_that_stops"]);
    let output = test.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{told}");
    for part in ["no progress", "loader:", "guests 0:", "guests 2:", "in state S", "entries"] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
}
