//! The most memory that reading a file takes at once.

use pcmap::registry::CodeImage;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has allocated and not freed, and the most that it had.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every request to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as isize);
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a file in every way that there is. Each takes as much memory as its documentation says.
pub(crate) fn assert_bounded(file: &[u8]) {
    let bounded = |times: usize, read: &dyn Fn()| {
        let before = LIVE.get();
        PEAK.set(before);
        read();
        let (peak, most) = (PEAK.get() - before, times * file.len() + 1024);
        assert!(peak <= most as isize, "{peak} bytes for {} in the file", file.len());
        assert_eq!(LIVE.get(), before, "memory leaked");
    };
    bounded(8, &|| drop(CodeImage::from_elf(file)));
    bounded(32, &|| drop(CodeImage::from_wasmtime_artifact(file)));
}
