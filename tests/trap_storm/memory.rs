#![expect(unsafe_code, reason = "asks the allocator to give memory back")]
//! How much memory the process has, once everything that can be given back has been.

use pcmap::registry::process_code_map;
use std::fs;

/// Resident pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    pub(crate) all: u64,
    /// But for those of files, which come and go as the system needs memory for others.
    pub(crate) own: u64,
}

/// What is resident when what a burst of garbage left in the allocator is out of it.
pub(crate) fn settled() -> Resident {
    process_code_map().synchronize();
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: has no preconditions.
        unsafe { libc::malloc_trim(0) };
    }
    let statm = fs::read_to_string("/proc/self/statm").expect("the system tells");
    let mut words = statm.split(' ').skip(1).map(|pages| pages.parse::<u64>().expect("a number"));
    let mut next = || words.next().expect("resident pages, and those of files");
    let (all, of_files) = (next(), next());
    Resident { all, own: all - of_files }
}
