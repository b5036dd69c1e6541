#![expect(unsafe_code, reason = "memory for code")]
//! The system's pages for code, counted: what is mapped must be unmapped in the end.

use pcmap::registry::{CodeAllocator, MemoryError, SystemPages};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static MAPPED: AtomicU64 = AtomicU64::new(0);
static UNMAPPED: AtomicU64 = AtomicU64::new(0);

/// How many regions were mapped, and how many of them unmapped.
pub(crate) fn mapped_and_unmapped() -> (u64, u64) {
    (MAPPED.load(Relaxed), UNMAPPED.load(Relaxed))
}

/// [`SystemPages`], counted.
#[derive(Debug)]
pub(crate) struct CountedPages;

// SAFETY: (`CodeAllocator`) 1. to 5. hold for `SystemPages`, which does it all.
unsafe impl CodeAllocator for CountedPages {
    fn allocate(&self, len: usize, align: usize) -> Result<NonNull<[u8]>, MemoryError> {
        let region = SystemPages.allocate(len, align)?;
        MAPPED.fetch_add(1, Relaxed);
        Ok(region)
    }

    unsafe fn make_executable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        // SAFETY: 1. and 2. are the caller's.
        unsafe { SystemPages.make_executable(region) }
    }

    unsafe fn make_writable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        // SAFETY: 1. and 2. are the caller's.
        unsafe { SystemPages.make_writable(region) }
    }

    unsafe fn deallocate(&self, region: NonNull<[u8]>) {
        // SAFETY: 1. and 2. are the caller's.
        unsafe { SystemPages.deallocate(region) };
        UNMAPPED.fetch_add(1, Relaxed);
    }
}
