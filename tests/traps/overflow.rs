#![expect(unsafe_code, reason = "replaces the stack of handlers")]
//! A guest that uses up the stack traps, again and again, on stacks of any size; whoever has chosen the
//! stack that handlers run on.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{Cause, MOST_FRAMES};
use std::ptr;

fn overflow_again_and_again(rounds: usize) {
    let (guests, thread) = (Guests::load(), prepared());
    for _ in 0..rounds {
        for name in ["forever", "strides", "leaps"] {
            let itself = guests.address(name);
            let trap = guests.run(&thread, name, [itself, 1, 1]).expect_err("it does not end");
            assert_eq!(trap.cause(), Cause::StackOverflow);
            assert_eq!(trap.signal(), Some(libc::SIGSEGV));
            assert_eq!(trap.function(), Some(guests.function(name).key));
            // The longest frames are few.
            assert!(trap.frames().len() == MOST_FRAMES || name == "leaps");
            assert_eq!(trap.has_all_frames(), trap.frames().len() < MOST_FRAMES);
            let infos = trap.frame_infos(&guests.registry);
            let all = infos.map(|(_, info)| info.expect("a guest").function().name == Some(name));
            assert!(all.into_iter().all(|of_it| of_it), "every frame is of it");
            assert_eq!(guests.run(&thread, "add", [1, 2, 3]).expect("no trap"), 6);
        }
    }
}

#[test]
fn threads_of_different_sizes() {
    for kib in [256, 1024, 8192] {
        let thread = std::thread::Builder::new().stack_size(kib << 10);
        let thread = thread.spawn(|| overflow_again_and_again(20)).expect("a thread");
        thread.join().expect("no panic");
    }
}

/// Another runtime on the same thread puts its own stack for handlers in force, and takes it out.
#[test]
fn a_stack_for_handlers_that_is_replaced() {
    fn replace(by: libc::stack_t) -> libc::stack_t {
        let mut before = by;
        // SAFETY: none, or memory that nobody else uses while it is in force.
        assert_eq!(unsafe { libc::sigaltstack(&by, &mut before) }, 0);
        before
    }
    let body = || {
        let (guests, thread) = (Guests::load(), prepared());
        let trap = || guests.run(&thread, "load", [0; 3]).expect_err("it traps").cause();
        let first = trap();
        let mut memory = vec![0_u8; 128 << 10];
        let (start, len) = (memory.as_mut_ptr(), memory.len());
        let other = libc::stack_t { ss_sp: start.cast(), ss_flags: 0, ss_size: len };
        let ours = replace(other);
        assert_eq!(trap(), first);
        let itself = guests.address("forever");
        let overflow = guests.run(&thread, "forever", [itself, 1, 1]).expect_err("no end");
        assert_eq!(overflow.cause(), Cause::StackOverflow);
        // With none at all there is no room for handling an overflow, and for nothing else a need.
        let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        replace(none);
        assert_eq!(trap(), first);
        replace(ours);
        assert_eq!(trap(), first);
        // Ours goes first, and is put back by the other one.
        let ours = replace(other);
        drop(thread);
        replace(ours);
        let thread = prepared();
        let overflow = guests.run(&thread, "forever", [itself, 1, 1]).expect_err("no end");
        assert_eq!(overflow.cause(), Cause::StackOverflow);
    };
    std::thread::spawn(body).join().expect("no panic");
}
