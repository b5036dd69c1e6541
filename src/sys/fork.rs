#![expect(unsafe_code, reason = "a page that the kernel clears in children")]
//! Noticing that the process was forked: a number that differs between a process and its children.
//!
//! On Linux the number stands on a page that the kernel gives to children as zeros
//! (`MADV_WIPEONFORK`, Linux 4.14): that holds for `fork`, `_Fork` and a bare `clone` alike, needs
//! no lock of the C library, costs one load to ask, and a `vfork` child, which shares the memory,
//! is rightly not taken for another process. Process ids would not do: they are reused, they
//! differ in a `vfork` child, and asking is a system call.
//!
//! Where the page cannot be had, `pthread_atfork` counts forks made through the C library.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// The number last given to a process in this line of descent.
static LAST: AtomicUsize = AtomicUsize::new(0);
/// The page with this process's number, or null.
static PAGE: AtomicPtr<AtomicUsize> = AtomicPtr::new(ptr::null_mut());

/// Stands in [`PAGE`] for "the kernel refused"; not an address.
const REFUSED: *mut AtomicUsize = ptr::without_provenance_mut(1);

/// The number of this process: never 0, and not that of any process it was forked from.
///
/// Lock-free (on Linux). Not for handlers: the first call maps a page.
pub(crate) fn generation() -> usize {
    if cfg!(miri) {
        return 1; // its abstract machine cannot fork, and has none of the calls below
    }
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        // One decision for the whole process, whichever thread makes it.
        let mine = map_wiped_page().unwrap_or(REFUSED);
        page = match PAGE.compare_exchange(page, mine, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => mine,
            Err(theirs) => {
                unmap(mine);
                theirs
            }
        };
    }
    if page == REFUSED {
        return generation_by_atfork();
    }
    // SAFETY: neither null nor `REFUSED`, so the start of a page that was mapped, zeroed, and
    // never unmapped once it is in `PAGE`; zero is a valid number.
    let number = unsafe { &*page };
    match number.load(Ordering::Relaxed) {
        0 => {
            let mine = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            match number.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => mine,
                Err(theirs) => theirs,
            }
        }
        known => known,
    }
}

/// The bytes in a page.
fn page_size() -> usize {
    // SAFETY: `sysconf` has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn map_wiped_page() -> Option<*mut AtomicUsize> {
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            page_size(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the page was just mapped, with that size.
    if unsafe { libc::madvise(page, page_size(), libc::MADV_WIPEONFORK) } != 0 {
        unmap(page.cast());
        return None;
    }
    Some(page.cast())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn map_wiped_page() -> Option<*mut AtomicUsize> {
    None
}

/// Unmaps a page of `map_wiped_page` that nobody else was given.
fn unmap(page: *mut AtomicUsize) {
    if page != REFUSED {
        // SAFETY: mapped by `map_wiped_page`, and handed to nobody.
        unsafe { libc::munmap(page.cast(), page_size()) };
    }
}

/// Counts forks in a child's `pthread_atfork` handler.
///
/// Until one thread has completed the registration every thread registers, so that none relies on
/// one that stopped (the C library's own lock is out of our hands); counting a fork twice does no
/// harm.
fn generation_by_atfork() -> usize {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    extern "C" fn count_fork() {
        LAST.fetch_add(1, Ordering::Relaxed);
    }
    if !REGISTERED.load(Ordering::Relaxed) {
        // SAFETY: the handler only adds to an atomic.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        REGISTERED.store(true, Ordering::Relaxed);
    }
    LAST.load(Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::{generation, generation_by_atfork};

    /// Forks, and hands the child's answer back as its exit status.
    fn in_child(answer: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child calls only `answer` (atomics and loads) and `_exit`.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let status = i32::from(!answer());
            // SAFETY: leaves the child at once, running nothing of the test harness.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place, and `pid` is our child.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    #[test]
    #[cfg_attr(miri, ignore = "forks")]
    fn a_child_has_a_number_of_its_own() {
        let parent = generation();
        let by_atfork = generation_by_atfork();
        assert_ne!(parent, 0);
        assert!(in_child(|| generation() != parent && generation() == generation()));
        assert!(in_child(|| generation_by_atfork() != by_atfork));
        assert!(in_child(|| {
            let child = generation();
            child != parent && in_child(|| generation() != child && generation() != parent)
        }));
        assert_eq!(generation(), parent);
    }
}
