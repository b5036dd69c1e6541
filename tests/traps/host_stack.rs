#![expect(unsafe_code, reason = "called by guests")]
//! A guest cannot leave a host function with too little stack: it ends by an overflow before.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{Cause, GuestThread, StackLimits, Trap, host_call};
use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// How often host functions of this thread began, and the lowest address that they have seen.
    static BEGUN: Cell<usize> = const { Cell::new(0) };
    static LOWEST: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn begin() -> i64 {
    let here = 0_u8;
    BEGUN.set(BEGUN.get() + 1);
    LOWEST.set(LOWEST.get().min((&raw const here).addr()));
    format!("{}", BEGUN.get()).len() as i64
}

unsafe extern "C" fn harmless(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(begin) }
}

const GREEDY: usize = 200 << 10;

unsafe extern "C" fn greedy(_: i64, _: i64, _: i64) -> i64 {
    let body = || {
        let mut room = [0_u8; GREEDY];
        begin() + i64::from(black_box(&mut room)[GREEDY / 2])
    };
    // SAFETY: as above.
    unsafe { host_call(body) }
}

/// A guest that calls the host function and itself, without an end.
fn recurse(guests: &Guests, thread: &GuestThread, host: crate::trap_guests::Guest) -> Trap {
    let with = [guests.address("visits"), host as *const () as i64, 0];
    guests.run(thread, "visits", with).expect_err("it does not end")
}

fn on_thread(kib: usize, body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(kib << 10);
    thread.spawn(body).expect("a thread").join().expect("no panic");
}

fn here() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

#[test]
fn recursion_through_a_harmless_host_function() {
    for kib in [160, 512, 8192] {
        on_thread(kib, || {
            let (guests, thread) = (Guests::load(), prepared());
            let mut begun = Vec::new();
            for _ in 0..20 {
                BEGUN.set(0);
                let trap = recurse(&guests, &thread, harmless);
                assert_eq!((trap.cause(), trap.signal()), (Cause::StackOverflow, None));
                assert_eq!((trap.pc(), trap.faulting_address()), (None, None));
                assert_eq!((trap.frames().len(), trap.has_all_frames()), (0, false));
                begun.push(BEGUN.get());
                // The thread is as before, and guests alone may go on to the end.
                guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
                let itself = guests.address("forever");
                let trap = guests.run(&thread, "forever", [itself, 1, 1]).expect_err("no end");
                assert_eq!(trap.signal(), Some(libc::SIGSEGV));
            }
            assert!(begun[0] > 100 && begun.iter().all(|it| *it == begun[0]), "{begun:?}");
        });
    }
}

#[test]
fn a_host_function_that_needs_much() {
    on_thread(1024, || {
        let (guests, thread) = (Guests::load(), prepared());
        let limits = StackLimits::new().host_reserve(GREEDY + (64 << 10));
        let with = [guests.address("visits"), greedy as *const () as i64, 0];
        for _ in 0..5 {
            let result = thread
                .catch_traps_within(limits, |activation| guests.enter(activation, "visits", with));
            assert_eq!(result.expect_err("no end").cause(), Cause::StackOverflow);
            assert!(BEGUN.replace(0) > 100);
        }
        // Never enough: it does not begin.
        for reserve in [1 << 20, usize::MAX] {
            let limits = StackLimits::new().host_reserve(reserve);
            let result = thread
                .catch_traps_within(limits, |activation| guests.enter(activation, "visits", with));
            assert_eq!(result.expect_err("no room").cause(), Cause::StackOverflow);
            assert_eq!(BEGUN.get(), 0);
        }
    });
}

#[test]
fn bounds_that_the_embedder_gives() {
    on_thread(1024, || {
        let (guests, thread) = (Guests::load(), prepared());
        let with = [guests.address("visits"), harmless as *const () as i64, 0];
        let within = |limits| {
            BEGUN.set(0);
            LOWEST.set(usize::MAX);
            let result = thread
                .catch_traps_within(limits, |activation| guests.enter(activation, "visits", with));
            assert_eq!(result.expect_err("no end").cause(), Cause::StackOverflow);
        };
        for kib in [100, 200, 300] {
            let lowest = here() - (kib << 10);
            within(StackLimits::new().lowest(lowest));
            assert!(LOWEST.get() > lowest + (60 << 10), "less the reserve");
            assert!(LOWEST.get() < lowest + (68 << 10), "and not much less");
            within(StackLimits::new().lowest(lowest).host_reserve(0));
            assert!(LOWEST.get() < lowest + (4 << 10));
        }
        within(StackLimits::new().lowest(here()));
        assert_eq!(BEGUN.get(), 0, "none at all");
    });
}

/// Limits hold in activations within, and no longer than their own.
#[test]
fn limits_of_activations() {
    on_thread(1024, || {
        let (guests, thread) = (Guests::load(), prepared());
        let depth = || {
            BEGUN.set(0);
            recurse(&guests, &thread, harmless);
            BEGUN.get()
        };
        let limits = StackLimits::new().lowest(here() - (128 << 10));
        assert_eq!(StackLimits::default(), StackLimits::new());
        let whole = depth();
        let (part, again, whole_again) = thread
            .catch_traps_within(limits, |_| {
                let part = depth();
                let whole = thread.catch_traps_within(StackLimits::new(), |_| Ok(depth()));
                Ok((part, depth(), whole.expect("no trap")))
            })
            .expect("no trap");
        assert!(part == again && part * 4 < whole, "{part}, {again}, {whole}");
        assert!(whole_again.abs_diff(whole) < whole / 8, "{whole_again}, {whole}");
        let panic = catch_unwind(AssertUnwindSafe(|| {
            thread.catch_traps_within::<()>(limits, |_| resume_unwind(Box::new(1)))
        }));
        assert!(panic.is_err());
        assert_eq!(depth(), whole);
    });
}

#[unsafe(naked)]
unsafe extern "C" fn probes(_: i64, _: i64, _: i64) -> i64 {
    #[cfg(target_arch = "x86_64")]
    std::arch::naked_asm!(pcmap::stack_probe!(), "jmp {}", sym harmless);
    #[cfg(target_arch = "aarch64")]
    std::arch::naked_asm!(pcmap::stack_probe!(), "b {}", sym harmless);
}

/// A guest that calls a host function at any distance from the end of the stack: first with much left, then
/// with too little for the host function, and then with too little for its first instructions.
#[test]
fn a_host_function_anywhere_near_the_end() {
    on_thread(192, || {
        let (guests, thread) = (Guests::load(), prepared());
        let itself = guests.address("descend_and_call");
        let run = |depth| {
            let with = [itself, depth, probes as *const () as i64];
            guests.run(&thread, "descend_and_call", with)
        };
        // How deep it comes at all.
        let mut deepest = 0;
        let mut step = 1 << 14;
        while step > 0 {
            let ends_itself = |trap: &Trap| trap.signal().is_some();
            if !run(deepest + step).is_err_and(|trap| ends_itself(&trap)) {
                deepest += step;
            }
            step /= 2;
        }
        let mut told = [0; 2];
        for depth in (deepest - 3000).max(0)..=deepest {
            let begun = BEGUN.get();
            match run(depth) {
                Ok(result) => assert_eq!(result, depth + begin_result(), "{depth}"),
                Err(trap) => {
                    assert_eq!((trap.cause(), trap.signal()), (Cause::StackOverflow, None));
                    assert_eq!(BEGUN.get(), begun, "the host function has not begun");
                    // In the instructions that touch the stack it is known where the guest has called.
                    let known = trap.pc().is_some();
                    told[usize::from(known)] += 1;
                    assert_eq!(trap.frames().len(), if known { 64 } else { 0 }, "{depth}");
                    assert!(trap.frame_infos(&guests.registry).all(|(_, info)| {
                        info.is_some_and(|it| it.function().name == Some("descend_and_call"))
                    }));
                }
            }
        }
        println!("refused by host_call: {}, by touching the stack: {}", told[0], told[1]);
        assert!(told.iter().all(|it| *it > 50), "{told:?}");
        assert!(run(10).is_ok());
    });
}

/// What the host function has given last.
fn begin_result() -> i64 {
    format!("{}", BEGUN.get()).len() as i64
}
