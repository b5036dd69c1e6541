#![expect(unsafe_code, reason = "a global allocator")]
//! The system's allocator, which tells whether this thread is inside it, and can be told to refuse.
//!
//! A thread that is stopped inside may have the allocator's own lock: tests that stop threads, or
//! allocate where a thread was interrupted, pass over those boundaries.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Neither lazy nor destroyed, so handlers may read them.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static REFUSES: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the allocator. Signal-safe.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

/// Runs `work` while every allocation of this thread is refused.
pub(crate) fn refusing<R>(work: impl FnOnce() -> R) -> R {
    REFUSES.set(true);
    let result = work();
    REFUSES.set(false);
    result
}

/// Ends [`refusing`] early: for a child of `fork` that was forked in the midst of it.
pub(crate) fn allow() {
    REFUSES.set(false);
}

struct Noting;

// SAFETY: hands every request to the system's allocator, or refuses it with null, as it may.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if REFUSES.get() {
            return std::ptr::null_mut();
        }
        INSIDE.set(true);
        // SAFETY: the caller's promise about the layout is passed on.
        let memory = unsafe { System.alloc(layout) };
        INSIDE.set(false);
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        INSIDE.set(true);
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) };
        INSIDE.set(false);
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;
