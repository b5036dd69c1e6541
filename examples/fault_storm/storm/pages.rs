#![expect(unsafe_code, reason = "maps and protects memory")]
//! Pages that are written first and executed afterwards, never both at once.

use super::guest_memory::page_size;
use super::machine::publish_instructions;
use std::io::Error;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::slice;

/// A private mapping; unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its pages, and pages are of no thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference nothing can be done but ask for the address.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, whole, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Readable and writable.
#[derive(Debug)]
pub(crate) struct WritablePages(Mapping);

impl WritablePages {
    /// Maps zeroed pages for `len` bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn map(len: usize) -> Result<Self, Error> {
        let len = len.max(1).next_multiple_of(page_size());
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at a place of the system's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(pages) if start != libc::MAP_FAILED => Ok(Self(Mapping { start: pages, len })),
            _ => Err(Error::last_os_error()),
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let Mapping { start, len } = self.0;
        // SAFETY: mapped, initialised (to zero, by the system) and borrowed through `self` alone.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Ends writing: from here on the pages are readable and executable.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn publish(self) -> Result<ExecutablePages, Error> {
        let Mapping { start, len } = self.0;
        let address = start.as_ptr().addr();
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: the mapping is ours, whole, and no reference into it is left.
        if unsafe { libc::mprotect(start.as_ptr().cast(), len, protection) } != 0 {
            return Err(Error::last_os_error());
        }
        publish_instructions(address..address + len);
        Ok(ExecutablePages(self.0))
    }
}

/// Readable and executable.
#[derive(Debug)]
pub(crate) struct ExecutablePages(Mapping);

impl ExecutablePages {
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.0.start.as_ptr().addr();
        start..start + self.0.len
    }
}
