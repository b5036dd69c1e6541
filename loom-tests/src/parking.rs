#![expect(unsafe_code, reason = "a global allocator")]
//! Keeps destroyed blocks readable until the end of a model's run.
//!
//! When an edge is weakened on purpose, a model may read a block after its destruction. It is to
//! report that, not to crash: so what is freed inside [`while_parking`] stays allocated, with its
//! bytes as they were, until `release`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};

#[derive(Debug)]
struct Parking;

#[global_allocator]
static ALLOCATOR: Parking = Parking;

thread_local! {
    static PARKING: Cell<bool> = const { Cell::new(false) };
    static PARKED: RefCell<Vec<(usize, Layout)>> = const { RefCell::new(Vec::new()) };
}

// SAFETY: allocation is the system's; freeing is too, now or later.
unsafe impl GlobalAlloc for Parking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if PARKING.try_with(|parking| parking.replace(false)).unwrap_or(false) {
            // Not parking meanwhile: the list may free its own old memory as it grows.
            PARKED.with_borrow_mut(|parked| parked.push((pointer.expose_provenance(), layout)));
            PARKING.set(true);
        } else {
            // SAFETY: the caller keeps the contract of `dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

/// Runs `free`, keeping what it frees.
pub(crate) fn while_parking(free: impl FnOnce()) {
    let before = PARKING.replace(true);
    free();
    PARKING.set(before);
}

/// Frees what was kept, between two runs.
#[cfg(test)]
pub(crate) fn release() {
    for (address, layout) in PARKED.take() {
        let pointer = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: parked by `dealloc` with this layout, and given up here.
        unsafe { System.dealloc(pointer, layout) };
    }
}
