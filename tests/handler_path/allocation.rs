#![expect(unsafe_code, reason = "an allocator, and a signal handler")]
//! An allocator that aborts when it is called on a handler's stack.

use crate::child::{Ending, in_child};
use crate::trap_guests::{Guests, prepared};
use pcmap::trap::{InstallError, TrapHandler, TrapOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::{mem, ptr};

struct NotInHandlers;

#[global_allocator]
static ALLOCATOR: NotInHandlers = NotInHandlers;

/// The stack that handlers of the thread under test run on.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Every allocation fails while this is set.
static REFUSES: AtomicBool = AtomicBool::new(false);

fn check() {
    let local = 0_u8;
    let here = (&raw const local).addr();
    if START.load(Relaxed) <= here && here < END.load(Relaxed) {
        // SAFETY: ends the process.
        unsafe { libc::abort() };
    }
}

// SAFETY: the system's allocator, which is asked after the check.
unsafe impl GlobalAlloc for NotInHandlers {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        if REFUSES.load(Relaxed) {
            return ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// From here on allocating on this thread's alternate stack aborts.
pub(crate) fn watch() {
    // SAFETY: zeros are a stack.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::sigaltstack(ptr::null(), &mut stack) }, 0);
    START.store(stack.ss_sp.addr(), Relaxed);
    END.store(stack.ss_sp.addr() + stack.ss_size, Relaxed);
}

extern "C" fn allocates(_: libc::c_int) {
    drop(std::hint::black_box(Box::new(1)));
}

#[test]
fn the_check_bites() {
    let ending = in_child(|| {
        let _thread = prepared();
        watch();
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = allocates as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: the handler ends the process.
        unsafe { libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()) };
        // SAFETY: has no preconditions.
        unsafe { libc::raise(libc::SIGUSR1) };
    });
    assert_eq!(ending, Ending::Signal(libc::SIGABRT));
}

/// What was installed before an attempt that fails stays.
#[test]
fn installing_without_memory() {
    fn is_installed(signal: libc::c_int) -> bool {
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: only asks.
        unsafe { libc::sigaction(signal, ptr::null(), &mut action) };
        ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
    }
    let ending = in_child(|| {
        // SAFETY: the default, in place of the standard library's handlers.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let quiet = TrapOptions::new().breakpoints(false);
        REFUSES.store(true, Relaxed);
        let first = TrapHandler::install(quiet).err();
        REFUSES.store(false, Relaxed);
        assert_eq!(first, Some(InstallError::OutOfMemory));
        assert!(!is_installed(libc::SIGSEGV));
        drop(TrapHandler::install(quiet).expect("installed"));
        assert!(is_installed(libc::SIGSEGV) && !is_installed(libc::SIGTRAP));
        REFUSES.store(true, Relaxed);
        let second = TrapHandler::install(TrapOptions::new()).err();
        REFUSES.store(false, Relaxed);
        assert_eq!(second, Some(InstallError::OutOfMemory));
        assert!(is_installed(libc::SIGSEGV) && !is_installed(libc::SIGTRAP));
    });
    assert_eq!(ending, Ending::Status(0));
}

#[test]
fn a_trap_allocates_nothing_in_the_handler() {
    let ending = in_child(|| {
        let (guests, thread) = (Guests::load(), prepared());
        watch();
        for _ in 0..1000 {
            for name in ["load", "store", "unreachable", "divide"] {
                guests.run(&thread, name, [0; 3]).expect_err("it traps");
            }
            let itself = guests.address("descend");
            guests.run(&thread, "descend", [itself, 40, 0]).expect_err("it traps");
        }
        let itself = guests.address("forever");
        guests.run(&thread, "forever", [itself, 1, 1]).expect_err("it does not end");
    });
    assert_eq!(ending, Ending::Status(0));
}
