#![expect(unsafe_code, reason = "called by guests, and forks")]
//! Guests that call host functions that call guests: a trap ends the innermost call only.

use crate::trap_guests::{Guests, prepared};
use pcmap::registry::TrapCode;
use pcmap::trap::{Cause, GuestThread, host_call};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;

thread_local! {
    /// What host functions of this thread are about, and what they have seen.
    static STAGE: RefCell<Option<std::rc::Rc<Guests>>> = const { RefCell::new(None) };
    static TRAPS: RefCell<Vec<Cause>> = const { RefCell::new(Vec::new()) };
}

fn guests() -> std::rc::Rc<Guests> {
    STAGE.with_borrow_mut(|stage| stage.get_or_insert_with(|| Guests::load().into()).clone())
}

/// A host function: catches the trap of a guest of its own, and goes on.
unsafe extern "C" fn host(depth: i64, then: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(|| catch_one(depth, then)) }
}

fn catch_one(depth: i64, then: i64) -> i64 {
    let thread = GuestThread::current().expect("a guest has called");
    let guests = guests();
    let _dropped = guests.clone();
    let result = if depth == 0 {
        guests.run(&thread, "unreachable", [0; 3])
    } else {
        // A guest that calls this again.
        guests.run(&thread, "call", [host as *const () as i64, depth - 1, then])
    };
    match result {
        Ok(value) => value,
        Err(trap) => {
            TRAPS.with_borrow_mut(|traps| traps.push(trap.cause()));
            1000
        }
    }
}

#[test]
fn only_the_innermost_call_ends() {
    let (guests, thread) = (guests(), prepared());
    for depth in 0..20 {
        let call = [host as *const () as i64, depth, 0];
        let result = guests.run(&thread, "call", call).expect("the outer call goes on");
        assert_eq!(result, 1000 + depth + 1);
        let traps = TRAPS.take();
        assert_eq!(traps, [Cause::Code(TrapCode::new(3))]);
        // And the same thread traps again, outside.
        guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
    }
    assert_eq!(std::rc::Rc::strong_count(&guests), 2, "what host functions had is dropped");
}

/// The outer guest traps after the inner one did.
#[test]
fn each_call_has_its_own_trap() {
    let (guests, thread) = (guests(), prepared());
    // `call` calls `host`, gets 1000 + …, and the second activation loads from there.
    let result = thread.catch_traps(|activation| {
        let inner = guests.enter(activation, "call", [host as *const () as i64, 3, 0])?;
        guests.enter(activation, "load", [inner, 0, 0])
    });
    let trap = result.expect_err("nothing is at 1004");
    assert_eq!(trap.cause(), Cause::Code(TrapCode::new(1)));
    assert_eq!(trap.faulting_address(), Some(1004));
    assert_eq!(TRAPS.take().len(), 1);
    // A closure that panics leaves its activation as any call is left.
    let panic = std::panic::catch_unwind(AssertUnwindSafe(|| {
        thread.catch_traps::<()>(|_| std::panic::resume_unwind(Box::new(5)))
    }));
    assert!(panic.is_err());
    guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
}

/// Forks, and comes back to the guest in both processes: the child with 1, the parent with what the
/// child ended as.
unsafe extern "C" fn forks(_: i64, _: i64, _: i64) -> i64 {
    let body = || {
        // SAFETY: the child goes on with this thread alone, and takes no lock that another may hold.
        match unsafe { libc::fork() } {
            0 => 1,
            child => {
                let mut status = 0;
                // SAFETY: a child of ours, and room for its status.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                1000 + i64::from(status)
            }
        }
    };
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(body) }
}

/// A child that is forked in the midst of a guest's call has its thread's activations and its traps.
#[test]
fn a_fork_in_a_host_function() {
    // Prepared threads that are not in the child: a thread of its own gets the memory of one.
    let (ready, go) = (std::sync::Barrier::new(9), std::sync::Barrier::new(9));
    let (ready, go) = (&ready, &go);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                let _thread = prepared();
                ready.wait();
                go.wait();
            });
        }
        ready.wait();
        fork_in_a_host_function();
        go.wait();
    });
}

fn fork_in_a_host_function() {
    std::thread::spawn(|| {
        let (guests, thread) = (guests(), prepared());
        let call = [forks as *const () as i64, 0, 0];
        let back = guests.run(&thread, "call", call).expect("the guest goes on");
        if back == 2 {
            let trapped = (0..100).all(|_| {
                let trap = guests.run(&thread, "load", [0; 3]);
                let nested = guests.run(&thread, "call", [host as *const () as i64, 2, 0]);
                trap.is_err_and(|trap| trap.frames().len() == 1)
                    && nested.is_ok_and(|it| it == 1003)
            });
            // A thread of the child's own, too.
            let other = std::thread::spawn(|| {
                let thread = prepared();
                Guests::load().run(&thread, "load", [0; 3]).is_err()
            });
            let trapped = trapped && other.join().is_ok_and(|trapped| trapped);
            // SAFETY: leaves the child at once, running nothing of the test harness.
            unsafe { libc::_exit(i32::from(!trapped)) };
        }
        assert_eq!(back, 1001, "the child was well");
        guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
    })
    .join()
    .expect("no panic");
}
