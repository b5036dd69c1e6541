#![expect(unsafe_code, reason = "calls machine code, and asks where the stacks are")]
//! Backtraces: every frame of the guests of one call, in order; and nothing of what is none.

use crate::trap_guests::{Guest, Guests, prepared};
use pcmap::registry::{
    CodeImage, Engine, EngineCode, EngineConfig, FuncKey, SourceOffset, TrapCode,
};
use pcmap::trap::{
    Activation, GuestExit, GuestThread, MOST_FRAMES, Trap, host_call, host_call_from,
};
use std::arch::naked_asm;
use std::cell::RefCell;
use std::rc::Rc;
use std::{mem, ptr};

#[test]
fn every_frame_is_told() {
    let (guests, thread) = (Guests::load(), prepared());
    for depth in [0, 1, 5, 61, 62, 63, 64, 200_usize] {
        let (descend, call) =
            (guests.address("descend"), [guests.address("descend"), depth as i64, 0]);
        let trap = guests.run(&thread, "descend", call).expect_err("it loads from nowhere");
        let all = depth + 1;
        assert_eq!(trap.frames().len(), all.min(MOST_FRAMES));
        assert_eq!(trap.has_all_frames(), all <= MOST_FRAMES, "{depth}");
        for (i, (frame, info)) in trap.frame_infos(&guests.registry).enumerate() {
            let info = info.expect("a frame of a guest");
            assert_eq!(info.function().name, Some("descend"));
            let source = if i == 0 { 0x72 } else { 0x71 };
            assert_eq!(info.source_offset(), Some(SourceOffset::new(source)));
            assert!(frame.pc() > descend as usize);
        }
    }
}

#[test]
fn callers_of_different_functions() {
    let (guests, thread) = (Guests::load(), prepared());
    let at = |name: &str| guests.address(name);
    // `call` calls `call`, which calls `unreachable`.
    let call = [at("call"), at("unreachable"), 0];
    let trap = guests.run(&thread, "call", call).expect_err("it traps");
    let names: Vec<_> = trap
        .frame_infos(&guests.registry)
        .map(|(_, info)| info.and_then(|info| info.function().name).unwrap_or("?").to_owned())
        .collect();
    assert_eq!(names, ["unreachable", "call", "call"]);
    assert!(trap.has_all_frames());
}

thread_local! {
    /// What host functions of this thread have caught: the names of its frames, and whether these are all.
    static CAUGHT: RefCell<Option<(Vec<String>, bool)>> = const { RefCell::new(None) };
    static STAGE: RefCell<Option<Rc<Guests>>> = const { RefCell::new(None) };
}

fn names(guests: &Guests, trap: &Trap) -> (Vec<String>, bool) {
    let infos = trap.frame_infos(&guests.registry);
    let names = infos.map(|(_, it)| it.and_then(|it| it.function().name).unwrap_or("?").to_owned());
    (names.collect(), trap.has_all_frames())
}

/// Runs guests in a guest's call: one that traps at depth 0, and one that calls `again` before.
fn catch(depth: i64, again: Guest) -> i64 {
    let thread = GuestThread::current().expect("a guest has called");
    let guests = STAGE.with_borrow(|stage| stage.clone()).expect("there is one");
    if depth > 0 {
        let with = [again as *const () as i64, depth - 1, 0];
        return guests.run(&thread, "call", with).expect("it goes on");
    }
    let trap = guests.run(&thread, "call", [guests.address("unreachable"), 0, 0]);
    CAUGHT.set(Some(names(&guests, &trap.expect_err("it traps"))));
    0
}

/// A host function, which adds to what it is called with where it was called, and goes on as another.
macro_rules! host_function_that_tells {
    ($name:ident => $told:ident) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(depth: i64, _: i64, _: i64) -> i64 {
            #[cfg(target_arch = "x86_64")]
            naked_asm!("mov rcx, [rsp]", "mov r8, rbp", "jmp {}", sym $told);
            #[cfg(target_arch = "aarch64")]
            naked_asm!("mov x3, x30", "mov x4, x29", "b {}", sym $told);
        }
    };
}

host_function_that_tells!(tells => tells_from);

unsafe extern "C" fn tells_from(
    depth: i64,
    _: i64,
    _: i64,
    return_address: usize,
    frame_pointer: usize,
) -> i64 {
    let exit = GuestExit { return_address, frame_pointer };
    // SAFETY: (`host_call_from`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call_from(exit, || catch(depth, tells)) }
}

unsafe extern "C" fn does_not_tell(depth: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(|| catch(depth, tells)) }
}

#[test]
fn guests_beyond_host_functions() {
    let (guests, thread) = (Rc::new(Guests::load()), prepared());
    STAGE.set(Some(guests.clone()));
    let call = guests.address("call");
    let run = |host: Guest, depth| {
        // `call` calls `call`, which calls the host function.
        let result = guests.run(&thread, "call", [call, host as *const () as i64, depth]);
        result.expect("it goes on");
        CAUGHT.take().expect("the innermost has trapped")
    };
    let expected = |calls: usize| {
        let calls = std::iter::repeat_n("call".to_owned(), calls);
        std::iter::once("unreachable".to_owned()).chain(calls).collect::<Vec<_>>()
    };
    assert_eq!(run(tells, 0), (expected(3), true));
    // The host function that does not tell is the outermost: those in between do.
    assert_eq!(run(does_not_tell, 0), (expected(1), false));
    // The outer ones, on their own, trap as before.
    let trap = guests.run(&thread, "call", [guests.address("load"), 0, 0]).expect_err("it traps");
    assert_eq!(names(&guests, &trap), (vec!["load".to_owned(), "call".to_owned()], true));

    // Each step down is a `call` more; there is room for 64.
    let down = |host: Guest, depth| {
        guests.run(&thread, "call", [host as *const () as i64, depth, 0]).expect("it goes on");
        CAUGHT.take().expect("the innermost has trapped")
    };
    for depth in [1, 2, 10, 61] {
        assert_eq!(down(tells, depth), (expected(depth as usize + 2), true));
        assert_eq!(down(does_not_tell, depth), (expected(depth as usize + 1), false));
    }
    assert_eq!(down(tells, 62), (expected(63), false));
    assert_eq!(down(tells, 100), (expected(63), false));
}

/// Whatever a host function tells of where it was called.
#[test]
fn exits_that_lead_astray() {
    unsafe extern "C" fn lies(return_address: i64, frame_pointer: i64, _: i64) -> i64 {
        let exit = GuestExit {
            return_address: return_address as usize,
            frame_pointer: frame_pointer as usize,
        };
        // SAFETY: (`host_call_from`) 1. called by guests; 2. there is nothing else here.
        unsafe { host_call_from(exit, || catch(0, lies)) }
    }
    let (guests, thread) = (Rc::new(Guests::load()), prepared());
    STAGE.set(Some(guests.clone()));
    let here = (&raw const guests).addr() as i64;
    let code = guests.address("call") + 10;
    for return_address in [0, 1, -1, code, here] {
        for frame_pointer in [0, 1, -1, -8, -9, code, here, here - 64, here - 1024, here & !4095] {
            // SAFETY: (`call`) 1. kept by `guests`; 2. to 4. it is in `host_call_from`, and runs here.
            let call = |it: &Activation<'_>| unsafe {
                it.call(lies as Guest, (return_address, frame_pointer, 0)).is_ok()
            };
            assert_eq!(thread.catch_traps(|it| Ok(call(it))).ok(), Some(true));
            let (names, complete) = CAUGHT.take().expect("it has trapped");
            assert_eq!(names[..2], ["unreachable", "call"]);
            assert_eq!(names.len() > 2, return_address == code);
            // A frame pointer into the stack may lead to where the walk is cut.
            let is_elsewhere = [0, 1, -1, -8, -9, code].contains(&frame_pointer);
            assert!(!complete || names.len() > 2);
            assert!(complete || names.len() == 2 || !is_elsewhere, "{frame_pointer:#x}");
        }
    }
}

/// Takes a frame pointer and a stack pointer of any value, and traps.
#[cfg(target_arch = "x86_64")]
const ASTRAY: &[u8] = &[
    0x48, 0x89, 0xfd, // mov rbp, rdi
    0x48, 0x89, 0xf4, // mov rsp, rsi
    0x0f, 0x0b, // ud2
    0x90, 0xc3, // nop; ret
];
#[cfg(target_arch = "aarch64")]
const ASTRAY: &[u8] = &[
    0xfd, 0x03, 0x00, 0xaa, // mov x29, x0
    0x3f, 0x00, 0x00, 0x91, // mov sp, x1
    0x00, 0x00, 0x00, 0x00, // udf #0
    0xc0, 0x03, 0x5f, 0xd6, // ret
];
const TRAPS_AT: usize = if cfg!(target_arch = "x86_64") { 6 } else { 8 };

/// The thread's own stack, and the one of its handlers.
fn stacks() -> [std::ops::Range<usize>; 2] {
    // SAFETY: zeros are to be written over.
    let mut attributes: libc::pthread_attr_t = unsafe { mem::zeroed() };
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: asks about this thread.
    assert_eq!(unsafe { libc::pthread_getattr_np(thread, &mut attributes) }, 0);
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::pthread_attr_getstack(&attributes, &mut low, &mut size) }, 0);
    // SAFETY: zeros are a stack.
    let mut handlers: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::sigaltstack(ptr::null(), &mut handlers) }, 0);
    let handlers_low = handlers.ss_sp.addr();
    [low.addr()..low.addr() + size, handlers_low..handlers_low + handlers.ss_size]
}

const WORDS: usize = 1024;

/// Leaves words below the caller's frame that a walk may believe: chains of frame pointers with return
/// addresses, broken in all ways. Gives their address.
#[inline(never)]
fn plant(next: &mut impl FnMut(usize) -> usize, text: &std::ops::Range<usize>) -> usize {
    let mut words = [0_usize; WORDS];
    let start = words.as_ptr().addr();
    for (i, word) in words.iter_mut().enumerate() {
        *word = match (next(20), i % 2) {
            (0, _) => next(usize::MAX),
            (1, _) => start + next(8 * WORDS),
            (_, 0) => start + (i + next(8)) / 2 * 16,
            _ => text.start + next(text.len() + 4),
        };
    }
    std::hint::black_box(&mut words);
    start
}

/// Whatever a guest has made of its registers and its stack: the walk reads nothing that it may not, ends,
/// and tells no frame that is in no code.
#[test]
fn registers_and_stacks_that_lead_astray() {
    let mut image = CodeImage::builder(ASTRAY.to_vec());
    image.function(FuncKey::new(0, 0), 0..ASTRAY.len(), "astray").expect("in the text");
    image.trap(TRAPS_AT, TrapCode::new(1)).expect("in the text");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    let text = code.text_range();
    let text = text.start.address()..text.end.address();
    // SAFETY: it takes two addresses, and does not return.
    let guest = unsafe { mem::transmute::<*const u8, Guest>(code.text_range().start.as_ptr()) };
    let thread = prepared();
    let [own, handlers] = stacks();
    let mut random = 1_u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize % below
    };
    let mut longest = 0;
    for round in 0..20_000 {
        let planted = plant(&mut next, &text);
        let here = (&raw const planted).addr();
        let mut any = || match next(8) {
            0 | 1 => planted + next(WORDS) * 8,
            2 => usize::MAX - next(64),
            3 => own.start - 4096 + next(3 * 4096),
            4 => own.end - next(4096),
            5 => next(2) * (text.start + next(text.len())),
            _ => here.wrapping_sub(next(16_384)),
        };
        let (fp, mut sp) = (any(), any());
        // On the handlers' stack no guest runs.
        if handlers.contains(&sp) || sp == handlers.end {
            sp = here;
        }
        let result = thread.catch_traps(|activation| {
            // SAFETY: (`call`) 1. kept by `code`; 2. it leaves nothing; 3. it calls nothing; 4. it uses
            // no stack.
            unsafe { activation.call(guest, (fp as i64, sp as i64, 0)) }
        });
        let trap = result.expect_err("it traps");
        assert_eq!(trap.pc(), Some(text.start + TRAPS_AT), "{round}");
        let mut frames = trap.frames();
        assert!((1..=MOST_FRAMES).contains(&frames.len()));
        longest = longest.max(frames.len());
        assert!(frames.all(|frame| text.contains(&frame.lookup_address())), "{round}: {trap:?}");
    }
    assert!(longest > 5, "{longest} frames at most: nothing was believed");
}

thread_local! {
    /// Which guests wait for host functions, the outermost first: whether these have told where.
    static WAITING: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
}

struct Waiting;

impl Waiting {
    fn new(told: bool) -> Self {
        WAITING.with_borrow_mut(|waiting| waiting.push(told));
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.with_borrow_mut(Vec::pop);
    }
}

fn below(bound: u64) -> u64 {
    SEED.set(SEED.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    (SEED.get() >> 33) % bound
}

/// A few things at random: traps, guests that call this again, panics, caught or not.
fn anything(depth: i64) -> i64 {
    let thread = GuestThread::current().expect("prepared");
    let guests = STAGE.with_borrow(|stage| stage.clone()).expect("there is one");
    for _ in 0..below(4) {
        match below(6) {
            0 | 1 => {
                let trap = guests.run(&thread, "call", [guests.address("unreachable"), 0, 0]);
                let (names, complete) = names(&guests, &trap.expect_err("it traps"));
                let (told, all) = WAITING.with_borrow(|waiting| {
                    let told = waiting.iter().rev().take_while(|told| **told).count();
                    (told, told == waiting.len())
                });
                assert_eq!((names.len(), complete), (2 + told, all));
            }
            2 | 3 if depth > 0 => {
                let host = [anything_told as Guest, anything_untold][below(2) as usize];
                let with = [host as *const () as i64, depth - 1, 0];
                let run = || guests.run(&thread, "call", with).expect("it goes on");
                if below(2) == 0 {
                    run();
                } else {
                    let run = std::panic::AssertUnwindSafe(run);
                    if let Err(panic) = std::panic::catch_unwind(run) {
                        assert!(panic.is::<()>());
                    }
                }
            }
            4 if depth > 0 => {
                // SAFETY: (`host_call`) 1. called by no guest.
                unsafe { host_call(|| anything(depth - 1)) };
            }
            5 if below(3) == 0 => std::panic::resume_unwind(Box::new(())),
            _ => {}
        }
    }
    0
}

host_function_that_tells!(anything_told => anything_from);

unsafe extern "C" fn anything_from(
    depth: i64,
    _: i64,
    _: i64,
    return_address: usize,
    frame_pointer: usize,
) -> i64 {
    let exit = GuestExit { return_address, frame_pointer };
    let body = || {
        let _waiting = Waiting::new(true);
        anything(depth)
    };
    // SAFETY: (`host_call_from`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call_from(exit, body) }
}

unsafe extern "C" fn anything_untold(depth: i64, _: i64, _: i64) -> i64 {
    let body = || {
        let _waiting = Waiting::new(false);
        anything(depth)
    };
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(body) }
}

/// Whatever ends the calls in between, a backtrace has the guests that wait, and no others.
#[test]
fn guests_beyond_host_functions_that_trap_and_panic() {
    let (guests, _thread) = (Rc::new(Guests::load()), prepared());
    STAGE.set(Some(guests));
    for _ in 0..2_000 {
        if let Err(panic) = std::panic::catch_unwind(|| anything(8)) {
            assert!(panic.is::<()>());
        }
        WAITING.with_borrow(|waiting| assert!(waiting.is_empty()));
    }
}
