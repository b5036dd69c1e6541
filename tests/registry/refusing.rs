#![expect(unsafe_code, reason = "a global allocator")]
//! A global allocator that refuses the k-th allocation of a thread that asked for it, and counts
//! the bytes that the thread holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy)]
struct Plan {
    armed: bool,
    refuse_at: usize,
    for_good: bool,
    asked: usize,
    refused: usize,
    live_bytes: isize,
}

thread_local! {
    static PLAN: Cell<Plan> = const {
        Cell::new(Plan {
            armed: false,
            refuse_at: 0,
            for_good: false,
            asked: 0,
            refused: 0,
            live_bytes: 0,
        })
    };
}

struct Refusing;

// SAFETY: hands every request to the system's allocator, or refuses it with null, as it may.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut plan = PLAN.get();
        if plan.armed {
            plan.asked += 1;
            if plan.asked == plan.refuse_at || plan.for_good && plan.asked > plan.refuse_at {
                plan.refused += 1;
                PLAN.set(plan);
                return std::ptr::null_mut();
            }
        }
        plan.live_bytes += layout.size() as isize;
        PLAN.set(plan);
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let mut plan = PLAN.get();
        plan.live_bytes -= layout.size() as isize;
        PLAN.set(plan);
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `operation` while the `k`-th allocation of this thread is refused, and those behind it if
/// `for_good`; gives its result, and how many were refused.
pub(crate) fn refusing<R>(k: usize, for_good: bool, operation: impl FnOnce() -> R) -> (R, usize) {
    let plan = PLAN.get();
    PLAN.set(Plan { armed: true, refuse_at: k, for_good, asked: 0, refused: 0, ..plan });
    let result = operation();
    let mut plan = PLAN.get();
    plan.armed = false;
    PLAN.set(plan);
    (result, plan.refused)
}

/// The bytes that this thread has allocated and not freed.
pub(crate) fn live_bytes() -> isize {
    PLAN.get().live_bytes
}
