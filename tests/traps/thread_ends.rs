#![expect(unsafe_code, reason = "ends threads within guests")]
//! A thread that ends in a host function (`pthread_exit`, `pthread_cancel`) ends as it does without `host_call`.

use crate::trap_guests::{Guests, prepared};
use pcmap::trap::host_call;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

unsafe extern "C" {
    fn pthread_cancel(thread: libc::pthread_t) -> libc::c_int;
}

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut c_void) -> !;
    fn pthread_testcancel();
}

static DROPPED: AtomicUsize = AtomicUsize::new(0);

struct CountsDrops;

impl Drop for CountsDrops {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Relaxed);
    }
}

fn leave() -> i64 {
    let _counted = CountsDrops;
    // SAFETY: nothing on this thread depends on what is left behind.
    unsafe { pthread_exit(ptr::without_provenance_mut(5)) }
}

unsafe extern "C" fn exits(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(leave) }
}

unsafe extern "C" fn is_canceled(_: i64, _: i64, _: i64) -> i64 {
    let body = || {
        let _counted = CountsDrops;
        // SAFETY: has no preconditions.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: this thread.
        assert_eq!(unsafe { pthread_cancel(this) }, 0);
        // SAFETY: as above.
        unsafe { pthread_testcancel() };
        0
    };
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(body) }
}

/// In a host function that a guest has called, which a host function of a guest has called.
unsafe extern "C" fn exits_further_in(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: as above.
    unsafe {
        host_call(|| {
            let thread = pcmap::trap::GuestThread::current().expect("a guest has called");
            let call = [exits as *const () as i64, 0, 0];
            Guests::load().run(&thread, "call", call).expect("it does not come back")
        })
    }
}

extern "C" fn thread(host: *mut c_void) -> *mut c_void {
    let (guests, thread) = (Guests::load(), prepared());
    guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
    let _ = guests.run(&thread, "call", [host.addr() as i64, 0, 0]);
    ptr::null_mut()
}

#[test]
fn a_thread_that_ends_in_a_host_function() {
    // glibc's macro `PTHREAD_CANCELED`.
    const CANCELED: usize = usize::MAX;
    // Where threads that end do not unwind, nothing is dropped (musl).
    let unwinds = usize::from(cfg!(target_env = "gnu"));
    let cases: [(crate::trap_guests::Guest, usize); 3] =
        [(exits, 5), (is_canceled, CANCELED), (exits_further_in, 5)];
    for (host, expected) in cases.into_iter().cycle().take(30) {
        let before = DROPPED.load(Relaxed);
        // SAFETY: a number, or a null pointer.
        let mut started: libc::pthread_t = unsafe { std::mem::zeroed() };
        let host = host as *const () as *mut c_void;
        // SAFETY: room for the thread's number.
        let error = unsafe { libc::pthread_create(&mut started, ptr::null(), thread, host) };
        assert_eq!(error, 0);
        let mut value = ptr::null_mut();
        // SAFETY: a thread of ours.
        assert_eq!(unsafe { libc::pthread_join(started, &mut value) }, 0);
        assert_eq!(value.addr(), expected, "it has ended in the host function");
        assert_eq!(DROPPED.load(Relaxed) - before, unwinds, "what the closure had");
    }
    // Others trap as before, also in the memory of those that have ended.
    for _ in 0..4 {
        let others = std::thread::spawn(|| {
            let (guests, thread) = (Guests::load(), prepared());
            guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
        });
        others.join().expect("no panic");
    }
}
