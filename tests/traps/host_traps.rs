#![expect(unsafe_code, reason = "called by guests")]
//! Traps of the host's own, which end the guest that has called a host function.

use crate::trap_guests::{Guests, prepared};
use pcmap::registry::TrapCode;
use pcmap::trap::{
    Cause, GuestExit, GuestThread, MOST_FRAMES, host_call, host_trap, host_trap_from,
};
use std::arch::naked_asm;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct CountsDrops;

impl Drop for CountsDrops {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

/// Traps with a code; not with 0.
unsafe extern "C" fn refuses(code: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. nothing here has to be dropped.
    let refused = unsafe {
        host_call(|| {
            let _counted = CountsDrops;
            (code != 0).then(|| TrapCode::new(code as u8))
        })
    };
    match refused {
        None => 5,
        // SAFETY: (`host_trap`) 1. and 2. as above.
        Some(code) => unsafe { host_trap(code) },
    }
}

#[unsafe(naked)]
unsafe extern "C" fn tells(code: i64, _: i64, _: i64) -> i64 {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rcx, [rsp]", "mov r8, rbp", "jmp {}", sym tells_from);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x3, x30", "mov x4, x29", "b {}", sym tells_from);
}

unsafe extern "C" fn tells_from(
    code: i64,
    _: i64,
    _: i64,
    return_address: usize,
    frame_pointer: usize,
) -> i64 {
    let exit = GuestExit { return_address, frame_pointer };
    // SAFETY: (`host_trap_from`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_trap_from(exit, TrapCode::new(code as u8)) }
}

/// A guest that calls `refuses`, in a guest's call; tells what it trapped with.
unsafe extern "C" fn catches(code: i64, _: i64, _: i64) -> i64 {
    let body = || {
        let thread = GuestThread::current().expect("a guest has called");
        let with = [refuses as *const () as i64, code, 0];
        match Guests::load().run(&thread, "call", with) {
            Err(trap) => match trap.cause() {
                Cause::Host(code) => i64::from(code.get()),
                cause => panic!("{cause:?}"),
            },
            Ok(result) => result,
        }
    };
    // SAFETY: (`host_call`) 1. called by guests; 2. nothing here has to be dropped.
    unsafe { host_call(body) }
}

#[test]
fn the_guest_ends_with_the_hosts_code() {
    let (guests, thread) = (Guests::load(), prepared());
    let run = |host: crate::trap_guests::Guest, code| {
        guests.run(&thread, "call", [host as *const () as i64, code, 0])
    };
    for code in 1..=200_u8 {
        let before = DROPPED.load(Relaxed);
        let trap = run(refuses, code.into()).expect_err("it traps");
        assert_eq!(DROPPED.load(Relaxed) - before, 1, "what the closure had is dropped");
        assert_eq!(trap.cause(), Cause::Host(TrapCode::new(code)));
        assert_eq!((trap.signal(), trap.pc(), trap.faulting_address()), (None, None, None));
        assert_eq!((trap.text_offset(), trap.function(), trap.source_offset()), (None, None, None));
        assert_eq!((trap.frames().len(), trap.has_all_frames()), (0, false));
        assert_eq!(trap.to_string(), format!("trap {code} of the host"));
        // The outer guest of a host function that caught it goes on.
        assert_eq!(run(catches, code.into()).expect("no trap"), i64::from(code) + 1);
        assert_eq!(run(refuses, 0).expect("no trap"), 6);
        guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
    }
}

#[test]
fn a_host_function_that_tells_where_it_was_called() {
    let (guests, thread) = (Guests::load(), prepared());
    // `call` calls `call`, which calls the host function.
    let with = [guests.address("call"), tells as *const () as i64, 0];
    let trap = guests.run(&thread, "call", with).expect_err("it traps");
    assert_eq!((trap.cause(), trap.signal()), (Cause::Host(TrapCode::new(0)), None));
    assert!(trap.has_all_frames());
    let call = guests.function("call");
    let mut frames = trap.frames();
    let (innermost, outer) = (frames.next().expect("one"), frames.next().expect("another"));
    assert!(frames.next().is_none());
    assert_eq!((Some(innermost.pc()), innermost.pc()), (trap.pc(), outer.pc()));
    assert_eq!(innermost.lookup_address(), innermost.pc() - 1, "inside of the call");
    let offset = trap.text_offset().expect("in the text").get();
    assert!(call.range.start().get() < offset && offset < call.range.end().get());
    assert_eq!(trap.function(), Some(call.key));
    assert_eq!(trap.source_offset().map(|it| it.get()), Some(0x61));
    for (_, info) in trap.frame_infos(&guests.registry) {
        assert_eq!(info.expect("a guest").function().name, Some("call"));
    }
    let told = trap.to_string();
    assert!(told.starts_with("trap 0 of the host at 0x") && !told.contains("access"), "{told}");
    // More frames than are told.
    let trap = thread.catch_traps(|activation| {
        let descend = guests.address("descend");
        guests.enter(activation, "descend", [descend, MOST_FRAMES as i64, 8])
    });
    assert!(!trap.expect_err("it loads from nowhere").has_all_frames());
}

/// No guest has called: that is the caller's mistake, and found.
#[test]
fn a_host_trap_without_a_guest() {
    fn panics() -> bool {
        let trap = || {
            // SAFETY: none: 1. does not hold, or 2., and that is found first.
            unsafe { host_trap(TrapCode::new(1)) }
        };
        catch_unwind(trap).is_err()
    }
    assert!(panics(), "the thread is not prepared");
    let thread = prepared();
    assert!(panics(), "no guest runs");
    assert!(thread.catch_traps(|_| Ok(panics())).expect("no trap"));
    // Inside of the closure of `host_call` there are frames of hosts to give up.
    unsafe extern "C" fn inside(_: i64, _: i64, _: i64) -> i64 {
        // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
        unsafe { host_call(|| panics().into()) }
    }
    let guests = Guests::load();
    let with = [inside as *const () as i64, 0, 0];
    assert_eq!(guests.run(&thread, "call", with).expect("no trap"), 2);
}
