#![cfg_attr(unix, expect(unsafe_code, reason = "system calls"))]
//! What publishing code costs anyway: a page is mapped, made executable, and unmapped.

/// The three calls, on one page that nobody touches.
#[cfg(unix)]
pub(crate) fn map_protect_unmap() {
    use std::ptr;

    const PAGE: usize = 4096;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: a new mapping, at a place of the system's choice.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, protection, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED, "no page");
    // SAFETY: the page just mapped.
    let protected = unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) };
    assert_eq!(protected, 0, "no executable page");
    // SAFETY: the same page, which nothing refers to.
    let unmapped = unsafe { libc::munmap(page, PAGE) };
    assert_eq!(unmapped, 0, "the page stays");
}
