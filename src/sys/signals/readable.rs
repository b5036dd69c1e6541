#![expect(unsafe_code, reason = "asks the system about memory")]
//! Whether memory can be read: for ordinary code, for the answer takes a system call.

use crate::sys::pages::last_error;
use core::ptr;

/// Whether the aligned word at an address can be read. Nothing is changed, but that a stack which the system
/// lets grow may have grown so far.
pub(crate) fn is_readable(at: usize) -> bool {
    /// Compares a word, and moves those who wait for it: none here, and to the same word.
    const COMPARE: libc::c_int = libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG;
    let word = ptr::with_exposed_provenance::<u32>(at & !(size_of::<usize>() - 1));
    // SAFETY: the system reads the word, or says that it cannot; it wakes nobody, and moves nobody.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word, COMPARE, 0, 0_usize, word, 0) };
    // Another value than 0 is there.
    answer == 0 || last_error() == libc::EAGAIN
}

#[cfg(test)]
mod tests {
    use super::is_readable;
    use crate::sys::pages::{Use, map, protect, round_up, unmap};

    #[test]
    fn only_what_is_there_and_not_protected() {
        let page = round_up(1).expect("a page");
        let start = map(2 * page).expect("memory");
        let at = start.as_ptr().addr();
        let local = 5_u64;
        for readable in [at, at + page, at + 2 * page - 1, (&raw const local).addr()] {
            assert!(is_readable(readable));
        }
        // SAFETY: (`protect`) 1. the first page; 2. nobody uses it.
        unsafe { protect(start, page, Use::Nothing) }.expect("protected");
        assert!(!is_readable(at) && !is_readable(at + page - 1) && is_readable(at + page));
        // SAFETY: (`unmap`) 1. the whole mapping; 2. nobody uses it.
        unsafe { unmap(start, 2 * page) };
        assert!(!is_readable(8) && !is_readable(usize::MAX));
    }
}
