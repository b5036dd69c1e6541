#![expect(unsafe_code, reason = "a global allocator")]
//! An allocator that counts, and can be told that there is no more memory, or that nobody may ask.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// What one thread asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) blocks: usize,
    pub(crate) bytes: usize,
}

/// Bytes that are allocated and not freed, in the whole process.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// How many allocations the process is granted before there is no memory.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static ASKED: Cell<Asked> = const { Cell::new(Asked { blocks: 0, bytes: 0 }) };
    /// What may not allocate, while it runs.
    static FORBIDDEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

struct Heap;

/// Says whether this allocation is granted.
fn is_granted() -> bool {
    // Not with a plain subtraction: where nothing is limited, nothing is shared.
    if LEFT.load(Relaxed) == usize::MAX {
        return true;
    }
    let granted = LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
    if !granted {
        REFUSED.fetch_add(1, Relaxed);
    }
    granted
}

/// Ends the process. Allocates nothing.
fn complain(what: &str) -> ! {
    for part in ["memory was asked for by: ", what, "\n"] {
        // SAFETY: a valid piece of memory.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    std::process::abort();
}

// SAFETY: hands every request to the system's allocator, or refuses it with null, as it may.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(what) = FORBIDDEN.get() {
            complain(what);
        }
        if !is_granted() {
            return std::ptr::null_mut();
        }
        let Asked { blocks, bytes } = ASKED.get();
        ASKED.set(Asked { blocks: blocks + 1, bytes: bytes + layout.size() });
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

/// Bytes that the process has allocated and not freed.
pub(crate) fn live_bytes() -> isize {
    LIVE.load(Relaxed)
}

/// What this thread asks for while `run` runs.
pub(crate) fn asked_by<R>(run: impl FnOnce() -> R) -> (R, Asked) {
    let before = ASKED.get();
    let result = run();
    let after = ASKED.get();
    let asked = Asked { blocks: after.blocks - before.blocks, bytes: after.bytes - before.bytes };
    (result, asked)
}

/// Runs `run`, which must not allocate on this thread: the process would be aborted.
pub(crate) fn without_asking<R>(what: &'static str, run: impl FnOnce() -> R) -> R {
    FORBIDDEN.set(Some(what));
    let result = run();
    FORBIDDEN.set(None);
    result
}

/// Runs `run` in a process that has memory for `granted` more allocations. Tells how many were refused.
pub(crate) fn with_memory_for<R>(granted: usize, run: impl FnOnce() -> R) -> (R, usize) {
    let refused = REFUSED.load(Relaxed);
    LEFT.store(granted, Relaxed);
    let result = run();
    LEFT.store(usize::MAX, Relaxed);
    (result, REFUSED.load(Relaxed) - refused)
}
