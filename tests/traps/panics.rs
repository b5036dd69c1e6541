#![expect(unsafe_code, reason = "called by guests")]
//! Panics of host functions are carried over the frames of guests.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{GuestThread, host_call};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct CountsDrops;

impl Drop for CountsDrops {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

/// Panics with the number that it is given.
unsafe extern "C" fn throws(number: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe {
        host_call(|| {
            let _counted = CountsDrops;
            resume_unwind(Box::new(number))
        })
    }
}

/// Calls a guest that calls `throws`, and lets the panic go on; or answers it.
unsafe extern "C" fn between(number: i64, answer: i64, _: i64) -> i64 {
    // SAFETY: as above.
    unsafe {
        host_call(|| {
            let _counted = CountsDrops;
            let guests = Guests::load();
            let thread = GuestThread::current().expect("a guest has called");
            let call = [throws as *const () as i64, number, 0];
            let run = || guests.run(&thread, "call", call).expect("no trap");
            if answer == 0 {
                return run();
            }
            let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("a panic");
            *panic.downcast::<i64>().expect("what was thrown")
        })
    }
}

#[test]
fn a_panic_goes_on_behind_the_guest() {
    let (guests, thread) = (Guests::load(), prepared());
    for number in 0..100 {
        let before = DROPPED.load(Relaxed);
        // Through one guest, and through two.
        for through in [throws, between] as [crate::trap_guests::Guest; 2] {
            let call = [through as *const () as i64, number, 0];
            let panic = catch_unwind(AssertUnwindSafe(|| guests.run(&thread, "call", call)));
            let payload = panic.expect_err("it panics").downcast::<i64>();
            assert_eq!(*payload.expect("what was thrown"), number);
        }
        // Answered in between: the outer guest goes on.
        let call = [between as *const () as i64, number, 1];
        assert_eq!(guests.run(&thread, "call", call).expect("no trap"), number + 1);
        assert_eq!(DROPPED.load(Relaxed) - before, 5, "what host functions had is dropped");
        // The thread is as before.
        guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
        assert_eq!(guests.run(&thread, "add", [1, 2, 3]).expect("no trap"), 6);
    }
}

/// Without a guest it is a panic like any other.
#[test]
fn a_host_function_may_be_called_by_the_host() {
    let _thread = prepared();
    let panic = catch_unwind(|| {
        // SAFETY: (`host_call`) 1. called by no guest.
        unsafe { host_call::<()>(|| resume_unwind(Box::new(7))) }
    });
    assert_eq!(panic.expect_err("it panics").downcast_ref::<i32>(), Some(&7));
}
