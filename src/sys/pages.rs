#![expect(unsafe_code, reason = "maps, protects and unmaps pages; cache maintenance")]
//! Pages that hold machine code, and what makes written instructions visible to the processor.
//!
//! Nothing here decides who may write or run what: these are the system's calls with their
//! contracts. A failed call gives the system's error number.

use core::ptr::{self, NonNull};

/// The system's error number.
pub(crate) type ErrorNumber = i32;

/// What a page may be used for: never written and executed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    #[cfg(all(
        feature = "trap",
        any(target_os = "linux", target_os = "android"),
        any(target_arch = "x86_64", target_arch = "aarch64")
    ))]
    Nothing,
    ReadWrite,
    ReadExecute,
}

impl Use {
    const fn protection(self) -> libc::c_int {
        match self {
            #[cfg(all(
                feature = "trap",
                any(target_os = "linux", target_os = "android"),
                any(target_arch = "x86_64", target_arch = "aarch64")
            ))]
            Self::Nothing => libc::PROT_NONE,
            Self::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            Self::ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
        }
    }
}

/// What the last system call of this thread failed with.
pub(crate) fn last_error() -> ErrorNumber {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The length of a mapping that holds `len` bytes; `None` if there is no such number.
pub(crate) fn round_up(len: usize) -> Option<usize> {
    // SAFETY: `sysconf` has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize };
    len.checked_next_multiple_of(page)
}

/// Maps fresh zeroed pages, readable and writable, at an address of the system's choice.
///
/// `len` is a multiple of the page size, and not zero.
pub(crate) fn map(len: usize) -> Result<NonNull<u8>, ErrorNumber> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new private mapping; it takes nothing away from anybody.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), len, Use::ReadWrite.protection(), flags, -1, 0) };
    match NonNull::new(start.cast::<u8>()) {
        Some(pages) if start != libc::MAP_FAILED => Ok(pages),
        _ => Err(last_error()),
    }
}

/// Maps pages as [`map`] does, at a multiple of `align`: `EINVAL`, if that is not a power of two.
pub(crate) fn map_aligned(len: usize, align: usize) -> Result<NonNull<u8>, ErrorNumber> {
    if !align.is_power_of_two() {
        return Err(libc::EINVAL);
    }
    let page = round_up(1).unwrap_or(align);
    if align <= page {
        return map(len);
    }
    // Somewhere in so many pages there is the place; the others go back.
    let more = len.checked_add(align - page).ok_or(libc::ENOMEM)?;
    let start = map(more)?;
    let before = start.as_ptr().align_offset(align);
    let behind = more - before - len;
    // SAFETY: `before + len` bytes are mapped.
    let place = unsafe { start.add(before) };
    // SAFETY: as above.
    let end = unsafe { place.add(len) };
    for (start, len) in [(start, before), (end, behind)] {
        if len != 0 {
            // SAFETY: (`unmap`) 1. whole pages of what was just mapped; 2. nobody was given them.
            unsafe { unmap(start, len) };
        }
    }
    Ok(place)
}

/// Changes what pages may be used for.
///
/// # Safety
///
/// 1. `start` and `len` are whole pages from [`map`] that are still there.
/// 2. During and after the call nobody uses the pages in a way that `purpose` excludes.
pub(crate) unsafe fn protect(
    start: NonNull<u8>,
    len: usize,
    purpose: Use,
) -> Result<(), ErrorNumber> {
    // SAFETY: by 1. the pages are ours; by 2. nobody misses the old protection.
    match unsafe { libc::mprotect(start.as_ptr().cast(), len, purpose.protection()) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Gives pages back.
///
/// Linux joins neighbouring mappings with the same protection into one, and to take pages out of the
/// middle makes two of it: it refuses, if the process has as many as it may. Then the pages stay
/// mapped; what they hold goes back, and addresses are all that is lost.
///
/// # Safety
///
/// 1. `start` and `len` are whole pages from [`map`] that are still there.
/// 2. Nobody reads, writes or runs it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, len: usize) {
    // SAFETY: by 1. and 2.
    if unsafe { libc::munmap(start.as_ptr().cast(), len) } != 0 {
        // SAFETY: (`discard`) 1. by 1., for nothing was unmapped; 2. by 2.
        unsafe { discard(start, len) };
    }
}

/// Gives back what pages hold, and not the pages: on Linux they read as zeros from here on.
///
/// This needs no new mapping. It fails for pages that are locked in memory, which then stay.
///
/// # Safety
///
/// 1. `start` and `len` are whole pages from [`map`] that are still there.
/// 2. Nobody needs what they hold.
unsafe fn discard(start: NonNull<u8>, len: usize) {
    // SAFETY: by 1. and 2.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
}

/// Whether written instructions can be made visible on this architecture.
pub(crate) const CAN_PUBLISH_INSTRUCTIONS: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64"));

/// Returns when every core fetches the instructions that this thread has written at `start`.
///
/// On x86 instruction fetches are coherent with stores. Old bytes could only be in the pipeline of a
/// core that is executing them, and nobody executes what is being written.
///
/// # Safety
///
/// 1. `len` bytes at `start` are mapped and readable.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) unsafe fn publish_instructions(_start: NonNull<u8>, _len: usize) {}

/// Returns when every core fetches the instructions that this thread has written at `start`.
///
/// The written lines are cleaned to where instruction fetches look, and what was fetched from there
/// before is dropped, on all cores (Arm Architecture Reference Manual, B2.4.4 "Concurrent
/// modification and execution of instructions"). What a core has in its pipeline goes when it
/// synchronises its context: the kernel lets every core do so that runs a thread of this process.
///
/// # Safety
///
/// 1. `len` bytes at `start` are mapped and readable.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn publish_instructions(start: NonNull<u8>, len: usize) {
    #[cfg(target_vendor = "apple")]
    {
        unsafe extern "C" {
            fn sys_icache_invalidate(start: *mut core::ffi::c_void, len: usize);
        }
        // SAFETY: by 1.
        unsafe { sys_icache_invalidate(start.as_ptr().cast(), len) };
    }
    #[cfg(not(target_vendor = "apple"))]
    {
        // SAFETY: by 1.
        unsafe { aarch64::clean_and_invalidate(start.as_ptr().addr(), len) };
        aarch64::synchronise_cores();
    }
}

#[cfg(all(target_arch = "aarch64", not(target_vendor = "apple")))]
mod aarch64 {
    use core::arch::asm;

    /// # Safety
    ///
    /// 1. `len` bytes at `start` are mapped and readable.
    pub(super) unsafe fn clean_and_invalidate(start: usize, len: usize) {
        let line_sizes: u64;
        // SAFETY: the system lets user code read this register; nothing else is touched.
        unsafe { asm!("mrs {}, ctr_el0", out(reg) line_sizes, options(nomem, nostack)) };
        let data_line = 4_usize << ((line_sizes >> 16) & 0xf);
        let instruction_line = 4_usize << (line_sizes & 0xf);
        let end = start + len;
        for line in (start & !(data_line - 1)..end).step_by(data_line) {
            // SAFETY: by 1. (a line does not reach across a page); no value changes.
            unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack)) };
        }
        // SAFETY: waits for the above.
        unsafe { asm!("dsb ish", options(nostack)) };
        for line in (start & !(instruction_line - 1)..end).step_by(instruction_line) {
            // SAFETY: by 1. as above; no value changes.
            unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack)) };
        }
        // SAFETY: waits for the above, on all cores, and synchronises this one.
        unsafe { asm!("dsb ish", "isb", options(nostack)) };
    }

    /// Makes every core that runs a thread of this process synchronise its context.
    ///
    /// Without the system call (before Linux 4.16, or another system) cores do so when they next
    /// enter and leave the kernel.
    pub(super) fn synchronise_cores() {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            const SYNC_CORE: libc::c_int = libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE;
            const REGISTER: libc::c_int = libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
            // SAFETY: these commands take no pointers; an unknown one is an error, not a fault.
            let call = |command: libc::c_int| unsafe {
                libc::syscall(libc::SYS_membarrier, command, 0, 0)
            };
            // Refused until the process has said that it will use it.
            if call(SYNC_CORE) != 0 {
                call(REGISTER);
                call(SYNC_CORE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn what_discarded_pages_held_is_gone() {
        let len = round_up(1).expect("a page");
        let start = map(3 * len).expect("memory");
        // SAFETY: fresh pages of our own.
        unsafe { start.write_bytes(0xcc, 3 * len) };
        // SAFETY: (`protect`) 1. mapped above; 2. nobody writes to them.
        unsafe { protect(start, 3 * len, Use::ReadExecute) }.expect("executable");
        // SAFETY: the second of three pages.
        let middle = unsafe { start.add(len) };
        // SAFETY: (`discard`) 1. mapped above; 2. it is only looked whether it is gone.
        unsafe { discard(middle, len) };
        // SAFETY: mapped above, readable, and initialised, with zeros where they were discarded.
        let bytes = unsafe { core::slice::from_raw_parts(start.as_ptr(), 3 * len) };
        let expected = |at| if (len..2 * len).contains(&at) { 0 } else { 0xcc };
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == expected(at)));
        // SAFETY: (`unmap`) 1. mapped above; 2. `bytes` is used no more.
        unsafe { unmap(start, 3 * len) };
    }

    #[test]
    fn pages_are_written_then_run() {
        let len = round_up(1).expect("a page");
        assert_eq!((round_up(0), round_up(len + 1)), (Some(0), Some(2 * len)));
        assert_eq!(round_up(usize::MAX), None);
        let start = map(len).expect("memory");
        // SAFETY: fresh pages of our own.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        #[cfg(target_arch = "x86_64")]
        bytes[..6].copy_from_slice(&[0xb8, 42, 0, 0, 0, 0xc3]); // mov eax, 42; ret
        #[cfg(target_arch = "aarch64")]
        bytes[..8].copy_from_slice(&[0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]); // mov w0, 42; ret
        // SAFETY: (`protect`) 1. mapped above; 2. `bytes` is used no more.
        unsafe { protect(start, len, Use::ReadExecute) }.expect("executable");
        // SAFETY: (`publish_instructions`) 1. mapped above.
        unsafe { publish_instructions(start, len) };
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        {
            // SAFETY: the two instructions above are such a function.
            let code =
                unsafe { core::mem::transmute::<*mut u8, extern "C" fn() -> i32>(start.as_ptr()) };
            assert_eq!(code(), 42);
        }
        // SAFETY: (`unmap`) 1. mapped above; 2. nobody uses it.
        unsafe { unmap(start, len) };
        assert_eq!(map(usize::MAX - len + 1), Err(libc::ENOMEM));
        assert_eq!(map_aligned(len, usize::MAX / 2 + 1), Err(libc::ENOMEM));
        for align in [0, 3, len + 1, 3 * len, usize::MAX] {
            assert_eq!(map_aligned(len, align), Err(libc::EINVAL), "{align}");
        }
        for align in [1, len, 4 * len, 1 << 21] {
            let start = map_aligned(3 * len, align).expect("memory");
            assert_eq!(start.as_ptr().addr() % align, 0);
            // SAFETY: (`unmap`) 1. mapped above; 2. nobody uses it.
            unsafe { unmap(start, 3 * len) };
        }
    }
}
