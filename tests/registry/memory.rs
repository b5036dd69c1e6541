#![expect(unsafe_code, reason = "an allocator of code memory")]
//! Memory for code that counts what it gave, and refuses the k-th call. On demand it breaks its
//! promises: gives memory that is in use, or unwinds.

use crate::protection::permissions;
use pcmap::registry::{CodeAllocator, MemoryError, SystemPages};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

#[derive(Debug)]
pub(crate) struct Memory {
    live: AtomicUsize,
    asked: AtomicUsize,
    refused: AtomicUsize,
    /// The number of the first call to refuse, from 1; 0: none.
    refuse_at: AtomicUsize,
    /// How many calls are refused from there on.
    refuse_many: AtomicUsize,
    /// A region that is to be given once more, or 0; and then, not to be given back once.
    again: AtomicUsize,
    keep: AtomicUsize,
    /// Whether the next call that gives a region back panics.
    unwind: AtomicBool,
    /// Whether all page protections of the process are looked at after each change.
    watch: AtomicBool,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        let zero = AtomicUsize::new;
        Arc::new(Self {
            live: zero(0),
            asked: zero(0),
            refused: zero(0),
            refuse_at: zero(0),
            refuse_many: zero(0),
            again: zero(0),
            keep: zero(0),
            unwind: AtomicBool::new(false),
            watch: AtomicBool::new(false),
        })
    }

    /// Regions given and not given back.
    pub(crate) fn live(&self) -> usize {
        self.live.load(SeqCst)
    }

    /// Calls refused since they were last planned.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(SeqCst)
    }

    /// Refuses the `k`-th call from now, and `many - 1` behind it.
    pub(crate) fn refuse(&self, k: usize, many: usize) {
        self.asked.store(0, SeqCst);
        self.refused.store(0, SeqCst);
        self.refuse_at.store(k, SeqCst);
        self.refuse_many.store(many, SeqCst);
    }

    /// The next region given is the one at `start`, which is in use, and whose bytes nobody reads
    /// meanwhile.
    pub(crate) fn give_again(&self, start: usize) {
        self.again.store(start, SeqCst);
    }

    /// The next call that gives a region back does so, and panics.
    pub(crate) fn unwind(&self) {
        self.unwind.store(true, SeqCst);
    }

    /// Whether that is still to come.
    pub(crate) fn is_to_unwind(&self) -> bool {
        self.unwind.load(SeqCst)
    }

    /// From now on all page protections of the process are looked at after each change.
    pub(crate) fn watch(&self) {
        self.watch.store(true, SeqCst);
    }

    fn look(&self, region: NonNull<[u8]>, expected: &str) {
        if self.watch.load(SeqCst) {
            let at = region.cast::<u8>().as_ptr().addr();
            let found = std::panic::catch_unwind(|| permissions(at)).ok().flatten();
            if found.as_deref() != Some(expected) {
                // No method of an allocator may unwind.
                eprintln!("{region:?} is {found:?} instead of {expected}");
                std::process::abort();
            }
        }
    }

    /// Whether this call is to be refused.
    fn refuses(&self) -> bool {
        let (at, many) = (self.refuse_at.load(SeqCst), self.refuse_many.load(SeqCst));
        let asked = self.asked.fetch_add(1, SeqCst) + 1;
        let refuses = at != 0 && asked >= at && asked - at < many;
        self.refused.fetch_add(usize::from(refuses), SeqCst);
        refuses
    }
}

// SAFETY: 1. to 4. hands every request to the system's pages, or refuses it before anything has
// changed; a region is given twice only where a test says so. 5. nothing here unwinds.
unsafe impl CodeAllocator for Memory {
    fn allocate(&self, len: usize, align: usize) -> Result<NonNull<[u8]>, MemoryError> {
        if self.refuses() {
            return Err(MemoryError::Allocate { len, os_error: 0 });
        }
        if let Some(again) =
            NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(self.again.swap(0, SeqCst)))
        {
            let region = NonNull::slice_from_raw_parts(again, len);
            self.keep.store(again.as_ptr().addr(), SeqCst);
            // SAFETY: the test says that it is a region, executable, which nobody executes.
            unsafe { SystemPages.make_writable(region) }?;
            return Ok(region);
        }
        let region = SystemPages.allocate(len, align)?;
        self.live.fetch_add(1, SeqCst);
        self.look(region, "rw-");
        Ok(region)
    }

    unsafe fn make_executable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        if self.refuses() {
            return Err(MemoryError::MakeExecutable { os_error: 0 });
        }
        // SAFETY: the caller's promise is passed on: regions are those of the system's pages.
        unsafe { SystemPages.make_executable(region) }?;
        self.look(region, "r-x");
        Ok(())
    }

    unsafe fn make_writable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        if self.refuses() {
            return Err(MemoryError::MakeWritable { os_error: 0 });
        }
        // SAFETY: as above.
        unsafe { SystemPages.make_writable(region) }?;
        self.look(region, "rw-");
        Ok(())
    }

    unsafe fn deallocate(&self, region: NonNull<[u8]>) {
        let start = region.cast::<u8>().as_ptr().addr();
        if self.keep.compare_exchange(start, 0, SeqCst, SeqCst).is_ok() {
            return;
        }
        self.live.fetch_sub(1, SeqCst);
        // SAFETY: as above.
        unsafe { SystemPages.deallocate(region) };
        assert!(!self.unwind.swap(false, SeqCst), "the test wants a panic");
    }
}
