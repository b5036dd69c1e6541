#![expect(unsafe_code, reason = "a clock, a thread's number, and a mapping of a file")]
//! What `perf` needs of the system: the clock that it is told to use, a thread's number, and a mapping
//! that it notices.

use core::ptr::{self, NonNull};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Nanoseconds of the clock of `perf record --clockid=monotonic`.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that exists, and room for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// The calling thread's number.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: has no preconditions.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    id as u32
}

/// The first page of a file, mapped as if it were code: `perf` records that, and so learns of the file.
#[derive(Debug)]
pub(crate) struct Marker {
    start: NonNull<libc::c_void>,
    len: usize,
}

// SAFETY: nobody looks at what is mapped.
unsafe impl Send for Marker {}

impl Marker {
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        let len = crate::sys::pages::round_up(1).unwrap_or(4096);
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let (flags, file) = (libc::MAP_PRIVATE, file.as_raw_fd());
        // SAFETY: a new mapping, at an address of the system's choice; it is never looked at.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, file, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody looks at it.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}
