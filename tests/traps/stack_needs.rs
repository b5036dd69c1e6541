#![expect(unsafe_code, reason = "looks at the unused part of a stack")]
//! How much stack the calls of a thread that runs guests need.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{GuestThread, PrepareError, TrapHandler, TrapOptions};
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;

const LOOKED_AT: usize = 256 << 10;
const MARK: u64 = 0xa5a5_5a5a_1234_8765;

/// How many bytes of the stack `run` uses.
#[inline(never)]
fn used<R>(run: impl FnOnce() -> R) -> (usize, R) {
    let here = 0_u64;
    // The red zone, and the frames of `mark`.
    const NEAR: usize = 512;
    let end = (&raw const here).addr() - NEAR;
    let start = end - LOOKED_AT;
    let words = (start..end).step_by(8);
    for at in words.clone() {
        // SAFETY: of this thread's stack, which is long enough, and not in use.
        unsafe { ptr::with_exposed_provenance_mut::<u64>(at).write_volatile(MARK) };
    }
    let result = black_box(run());
    let mut words = words;
    // SAFETY: as above.
    let lowest = words
        .find(|&at| unsafe { ptr::with_exposed_provenance::<u64>(at).read_volatile() != MARK });
    (lowest.map_or(0, |at| end - at) + NEAR, result)
}

/// Runs `body` on a thread with so many bytes of stack, all told: a thread of C's, for Rust's have more.
fn on_stack<R: Send>(bytes: usize, body: impl FnOnce() -> R + Send) -> R {
    struct Given<F, R>(Option<F>, Option<R>);
    extern "C" fn thread<F: FnOnce() -> R, R>(given: *mut c_void) -> *mut c_void {
        // SAFETY: of the thread that waits for this one.
        let given = unsafe { &mut *given.cast::<Given<F, R>>() };
        given.1 = given.0.take().map(|body| body());
        ptr::null_mut()
    }
    fn start<F: FnOnce() -> R, R>(_: &Given<F, R>) -> extern "C" fn(*mut c_void) -> *mut c_void {
        thread::<F, R>
    }
    // SAFETY: written over.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: there is room for them.
    unsafe { libc::pthread_attr_init(&mut attributes) };
    // SAFETY: initialised.
    assert_eq!(unsafe { libc::pthread_attr_setstacksize(&mut attributes, bytes) }, 0);
    let mut given = Given(Some(body), None);
    // SAFETY: a number, or a null pointer.
    let mut started: libc::pthread_t = unsafe { std::mem::zeroed() };
    let run = start(&given);
    // SAFETY: `given` stays until the thread has ended.
    let error =
        unsafe { libc::pthread_create(&mut started, &attributes, run, (&raw mut given).cast()) };
    assert_eq!(error, 0);
    // SAFETY: a thread of ours.
    assert_eq!(unsafe { libc::pthread_join(started, ptr::null_mut()) }, 0);
    given.1.expect("it has run")
}

/// Preparing works, or says that it does not, on a stack of any size.
#[test]
fn threads_with_small_stacks() {
    let handler = TrapHandler::install(TrapOptions::new()).expect("installed");
    let mut prepared = Vec::new();
    for kib in (16..=160).step_by(4) {
        let result = on_stack(kib << 10, || {
            let thread = GuestThread::prepare(&handler)?;
            assert!(GuestThread::current().is_some());
            drop(thread);
            Ok::<_, PrepareError>(())
        });
        if let Err(error) = result {
            let PrepareError::StackTooSmall { needed, left } = error else {
                panic!("{error:?}");
            };
            assert!(left < needed && left <= kib << 10, "{error}");
            assert!(error.to_string().contains(&needed.to_string()), "{error}");
        }
        prepared.push(result.is_ok());
    }
    // From some size on.
    assert!(prepared.is_sorted() && !prepared[0] && prepared[prepared.len() - 1], "{prepared:?}");
}

#[test]
fn figures() {
    let body = || {
        drop(Guests::load());
        let handler = TrapHandler::install(TrapOptions::new()).expect("installed");
        let (prepare, thread) = used(|| GuestThread::prepare(&handler).expect("prepared"));
        let (load, guests) = used(Guests::load);
        let (trap, _) = used(|| guests.run(&thread, "load", [0; 3]).is_err());
        let (drop_code, ()) = used(|| drop(guests));
        let (drop_thread, ()) = used(|| drop(thread));
        drop(prepared());
        println!(
            "bytes: prepare {prepare}, load {load}, trap {trap}, drop code {drop_code}, thread {drop_thread}"
        );
        let needed = on_stack(16 << 10, || GuestThread::prepare(&handler).map(drop));
        let Err(PrepareError::StackTooSmall { needed, .. }) = needed else {
            panic!("{needed:?}");
        };
        assert!(prepare < needed, "what is checked is enough");
        // Of what `docs/TRAPS.md` says.
        assert!(load < 64 << 10 && trap < 8 << 10 && drop_code < 8 << 10 && drop_thread < 8 << 10);
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(body).expect("a thread").join().expect("no panic");
}
