//! A guest that uses up the stack traps, again and again, on stacks of any size.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{Cause, MOST_FRAMES};

fn overflow_again_and_again(rounds: usize) {
    let (guests, thread) = (Guests::load(), prepared());
    for _ in 0..rounds {
        for name in ["forever", "strides"] {
            let itself = guests.address(name);
            let trap = guests.run(&thread, name, [itself, 1, 1]).expect_err("it does not end");
            assert_eq!(trap.cause(), Cause::StackOverflow);
            assert_eq!(trap.signal(), libc::SIGSEGV);
            assert_eq!(trap.function(), Some(guests.function(name).key));
            assert_eq!(trap.frames().len(), MOST_FRAMES);
            assert!(!trap.has_all_frames());
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
