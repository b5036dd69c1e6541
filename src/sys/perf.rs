#![expect(unsafe_code, reason = "clocks, numbers, descriptors, and a mapping of a file")]
//! What files for `perf` need of the system: the clock that `perf` is told to use, a thread's number, a
//! mapping that it notices; when the process started, and who else has a file open.

use core::ptr::{self, NonNull};
use std::fs::File;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// A flag for opening files: the name is no link's.
pub(crate) const NO_LINK: i32 = libc::O_NOFOLLOW;

/// Nanoseconds of the clock of `perf record --clockid=monotonic`.
pub(crate) fn monotonic_nanos() -> u64 {
    nanos(libc::CLOCK_MONOTONIC)
}

fn nanos(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a clock that exists, and room for the answer.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// When this process started, to a hundredth of a second; none without `/proc`.
pub(crate) fn process_start() -> Option<SystemTime> {
    // Clock ticks from the start of the system: field 22. The second one may contain anything.
    let stat = fs::read("/proc/self/stat").ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: has no preconditions.
    let in_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let nanos_a_tick = 1_000_000_000_u64.checked_div(u64::try_from(in_a_second).ok()?)?;
    let age = nanos(libc::CLOCK_BOOTTIME).saturating_sub(ticks.checked_mul(nanos_a_tick)?);
    SystemTime::now().checked_sub(Duration::from_nanos(age))
}

/// The user whose files this process makes.
pub(crate) fn user_id() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { libc::geteuid() }
}

/// Has everybody in this process who writes to this file write at its end, so that nobody writes over what
/// others wrote. A descriptor is looked at through a copy, so that it cannot become another meanwhile.
///
/// Without `/proc` only the caller's own is as it was opened.
pub(crate) fn have_all_append(file: &File) -> io::Result<()> {
    let identity = |of: &Metadata| (of.dev(), of.ino());
    let wanted = identity(&file.metadata()?);
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Ok(()) };
    for entry in descriptors.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // SAFETY: takes any number; a descriptor that is none is an error.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            continue;
        }
        // SAFETY: an open descriptor, which nobody else has.
        let copy = unsafe { File::from_raw_fd(copy) };
        // SAFETY: an open descriptor.
        let flags = unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_GETFL) };
        let is_written = flags >= 0 && flags & libc::O_ACCMODE != libc::O_RDONLY;
        if is_written && copy.metadata().is_ok_and(|found| identity(&found) == wanted) {
            // SAFETY: an open descriptor, and its own flags with one more.
            unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_SETFL, flags | libc::O_APPEND) };
        }
    }
    Ok(())
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
