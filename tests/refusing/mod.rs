#![expect(unsafe_code, reason = "a global allocator")]
//! An allocator that refuses the k-th allocation of the calling thread, or all from the k-th on.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy, Debug)]
struct Plan {
    armed: bool,
    /// The number of the first allocation to refuse, from 1.
    refuse_at: usize,
    /// Whether those behind it are refused as well.
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
            let behind = plan.for_good && plan.asked > plan.refuse_at;
            if plan.asked == plan.refuse_at || behind {
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

/// What became of the allocations of one operation.
#[derive(Debug)]
pub(crate) struct Outcome<R> {
    pub(crate) result: R,
    pub(crate) asked: usize,
    pub(crate) refused: usize,
}

impl<R> Outcome<R> {
    /// The same, with what `map` makes of the result.
    pub(crate) fn map<S>(self, map: impl FnOnce(R) -> S) -> Outcome<S> {
        let Self { result, asked, refused } = self;
        Outcome { result: map(result), asked, refused }
    }
}

/// Runs `operation` while the `k`-th allocation is refused, and those behind it if `for_good`.
pub(crate) fn refusing<R>(k: usize, for_good: bool, operation: impl FnOnce() -> R) -> Outcome<R> {
    let plan = PLAN.get();
    PLAN.set(Plan { armed: true, refuse_at: k, for_good, asked: 0, refused: 0, ..plan });
    let result = operation();
    let mut plan = PLAN.get();
    plan.armed = false;
    PLAN.set(plan);
    Outcome { result, asked: plan.asked, refused: plan.refused }
}

/// What this thread has allocated and not freed, in bytes.
pub(crate) fn live_bytes() -> isize {
    PLAN.get().live_bytes
}

/// Runs `operation` on a thread that has not done anything before.
#[expect(dead_code, reason = "not every test that counts memory needs it")]
pub(crate) fn on_a_fresh_thread<R: Send>(operation: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| match scope.spawn(operation).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs `one` for every k, once and for good, until a run meets no refusal. `one` is told k and
/// gives what [`refusing`] gave; counts refusals and those that were reported as errors.
pub(crate) fn each_refusal(name: &str, one: impl Fn(usize, bool) -> Outcome<bool>) {
    for for_good in [false, true] {
        let (mut refusals, mut errors) = (0, 0);
        for k in 1.. {
            let outcome = one(k, for_good);
            if outcome.refused == 0 {
                assert!(outcome.result, "{name}: no allocation was refused, and still an error");
                assert!(outcome.asked < k);
                break;
            }
            refusals += 1;
            errors += usize::from(!outcome.result);
        }
        println!("{name}, for good: {for_good}: {refusals} refusals, {errors} not ridden out");
        assert_ne!(refusals, 0, "{name}: nothing was refused, nothing was tested");
    }
}
