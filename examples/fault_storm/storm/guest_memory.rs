#![expect(unsafe_code, reason = "maps pages that fault")]
//! The memory that guests read: one page that can be, and two that cannot.
//!
//! ```text
//! base             + 1 page          + 2 pages         + 3 pages
//! | words          | hole            | guard           |
//! | readable       | behind the end  | no access       |
//! |                | of the file:    | at all:         |
//! |                | SIGBUS          | SIGSEGV         |
//! ```
//!
//! All of it stays mapped to the end, so that nothing else can come to lie where guests fault.

use super::random::Random;
use std::fs::File;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

/// The memory, and a copy of its words to predict loads from.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    base: usize,
    words: Vec<u64>,
}

const PAGES: usize = 3;
const WORD: usize = size_of::<u64>();

impl GuestMemory {
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn map() -> Result<Self, Error> {
        let page = page_size();
        let mut random = Random::stream(u64::MAX / 3);
        let words: Vec<u64> = (0..page / WORD).map(|_| random.next()).collect();
        // SAFETY: the name is a C string.
        let file = unsafe { libc::memfd_create(c"guest memory".as_ptr(), libc::MFD_CLOEXEC) };
        if file < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let mut file = unsafe { File::from_raw_fd(file) };
        file.write_all(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())?;
        let (flags, len) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, PAGES * page);
        // SAFETY: a new mapping, at a place of the system's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let (flags, len) = (libc::MAP_SHARED | libc::MAP_FIXED, 2 * page);
        // SAFETY: replaces the first two pages of the mapping above, which nobody uses yet.
        let file = unsafe { libc::mmap(base, len, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        if file == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self { base: base.addr(), words })
    }

    /// The address guests are given.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// The word at an offset that is a multiple of its size; nothing where a load faults.
    pub(crate) fn word(&self, offset: u64) -> Option<u64> {
        self.words.get(offset as usize / WORD).copied()
    }

    /// The byte at an offset; nothing where a load faults.
    pub(crate) fn byte(&self, offset: u64) -> Option<u8> {
        self.word(offset).map(|word| word.to_ne_bytes()[offset as usize % WORD])
    }

    /// The offset of a word, readable or not.
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        (random.below(PAGES * self.words.len()) * WORD) as u64
    }

    /// The offset of a readable word.
    pub(crate) fn draw_readable(&self, random: &mut Random) -> u64 {
        (random.below(self.words.len()) * WORD) as u64
    }
}

pub(crate) fn page_size() -> usize {
    // SAFETY: asks for a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the system has a page size")
}
