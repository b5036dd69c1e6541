//! What the threads do: one loads modules and unloads others, the rest trap in them.

use crate::storm::{SLOTS, Storm, TRAPS_A_ROUND};
use crate::trap_guests::Guests;
use crate::worker::Worker;
use pcmap::registry::{EngineConfig, TrapCode, process_code_map};
use pcmap::trap::{Cause, GuestThread, Trap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::{mem, thread};

/// Loads modules in place of others, and instantiates them, every other one in a copy of its store's
/// own; the last guest that has one unloads it.
pub(crate) fn load(storm: &Storm, worker: &Worker) {
    for number in 0_usize.. {
        if storm.stop.load(Relaxed) {
            return;
        }
        let private = number % 2 == 1;
        let fresh = Arc::new(Guests::with(EngineConfig::new().private_copies(private)));
        let mut slot = storm.slots[number % SLOTS].lock().expect("no panic");
        if storm.stalls && number > SLOTS {
            loop {
                thread::park();
            }
        }
        let old = mem::replace(&mut *slot, fresh);
        drop(slot);
        drop(old);
        if number % 64 == 0 {
            let _ = process_code_map().reclaim();
        }
        worker.done.fetch_add(1, Relaxed);
    }
}

/// Traps in every way there is, and checks each answer.
pub(crate) fn trap(storm: &Storm, worker: &Worker, thread: &GuestThread, first: usize) {
    for round in first.. {
        if storm.stop.load(Relaxed) {
            return;
        }
        let guests = storm.slots[round % SLOTS].lock().expect("no panic").clone();
        for _ in 0..8 {
            trap_once(thread, &guests);
            worker.done.fetch_add(1, Relaxed);
        }
    }
}

fn trap_once(thread: &GuestThread, guests: &Guests) {
    let trap = |name: &str, with| guests.run(thread, name, with).expect_err("it traps");
    let descend = guests.address("descend");
    let traps = [
        ("load", Some(1), 1, trap("load", [8, 0, 0])),
        ("store", Some(2), 1, trap("store", [16, 0, 0])),
        ("unreachable", Some(3), 1, trap("unreachable", [0; 3])),
        ("divide", None, 1, trap("divide", [1, 0, 0])),
        ("descend", Some(4), 10, trap("descend", [descend, 9, 24])),
    ];
    for (name, code, frames, trap) in &traps {
        check(guests, trap, name, *code, *frames);
    }
    assert_eq!(traps.len() as u64, TRAPS_A_ROUND);
    assert_eq!(guests.run(thread, "add", [1, 2, 3]).expect("it does not trap"), 6);
}

#[track_caller]
fn check(guests: &Guests, trap: &Trap, name: &str, code: Option<u8>, frames: usize) {
    let Cause::Code(found) = trap.cause() else { panic!("{trap:?}") };
    let function = guests.function(name);
    assert!(code.is_none_or(|code| found == TrapCode::new(code)), "{trap:?}");
    assert_eq!(trap.function(), Some(function.key), "{trap:?}");
    let offset = trap.text_offset().expect("in the text");
    assert_eq!(guests.code.tables().trap_at(offset), Some(found));
    let start = guests.registry.store_code_base(&guests.code).expect("it is loaded").address();
    assert_eq!(trap.pc(), Some(start + offset.get() as usize), "of this module, and no other");
    assert_eq!(trap.frames().len(), frames);
    let end = start + guests.code.text().len();
    assert!(trap.frames().all(|frame| (start..end).contains(&frame.pc())));
}
