#![expect(
    unsafe_code,
    reason = "a trait whose implementors vouch for memory, and the system's pages"
)]
//! Where memory for code comes from, and how it is made executable.
//!
//! A program that has its own ways (a pool near its other code, a sandbox that asks a broker for
//! executable pages, huge pages) implements [`CodeAllocator`]; everybody else uses
//! [`SystemPages`]. What no implementor need care for is the coherence of instruction caches:
//! `CodeMemory` sees to that after the memory was made executable.

use crate::sys::pages::{self, Use};
use core::fmt;
use core::ptr::NonNull;
use std::sync::Arc;

/// Memory for code was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No memory could be had.
    #[error("no memory for {len} bytes of code (system error {os_error})")]
    Allocate {
        /// How many bytes were asked for.
        len: usize,
        /// The system's error number, or 0.
        os_error: i32,
    },
    /// The memory could not be made executable.
    #[error("code could not be made executable (system error {os_error})")]
    MakeExecutable {
        /// The system's error number, or 0.
        os_error: i32,
    },
    /// The memory could not be made writable for patching.
    #[error("code could not be made writable (system error {os_error})")]
    MakeWritable {
        /// The system's error number, or 0.
        os_error: i32,
    },
    /// It is not known how written instructions are made visible on this architecture.
    #[error("this architecture is not supported")]
    Architecture,
}

/// Supplies memory for code, and changes what it may be used for.
///
/// A *region* is what one call of [`allocate`](Self::allocate) gave. It is writable first; every
/// region is made executable, some are made writable again and then executable again, and all are
/// given back, in either state. No region is ever used while it is both.
///
/// Regions are given back on ordinary threads, but perhaps not on the thread that got them: when a
/// code map takes out garbage, inside of a registration, say. So no method may call into a code
/// map. None is called in a signal handler. In the midst of a removal there is nobody who could
/// deal with a panic, so none may leave a method.
///
/// # Safety
///
/// An implementor vouches for these:
///
/// 1. `allocate(len, align)` gives a region of exactly `len` bytes at a multiple of `align`,
///    initialised, readable and writable and not executable, that nobody else uses until it is
///    given back.
/// 2. After `make_executable` has returned `Ok` the region is readable and executable, and holds
///    the same bytes; after `make_writable` it is readable and writable, and holds the same bytes.
/// 3. After either has returned an error the region is as before.
/// 4. The region stays mapped, and where it is, until it is given back.
/// 5. No method unwinds.
pub unsafe trait CodeAllocator: Send + Sync {
    /// A region of `len` bytes, which is not 0, at a multiple of `align`, which is a power of two.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], and nothing has changed.
    fn allocate(&self, len: usize, align: usize) -> Result<NonNull<[u8]>, MemoryError>;

    /// Ends writing: from here on the region may be executed.
    ///
    /// # Safety
    ///
    /// 1. The region is one of this allocator, writable, and not given back.
    /// 2. Nobody writes to it until it is made writable again.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], and nothing has changed.
    unsafe fn make_executable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError>;

    /// Ends executing: from here on the region may be written.
    ///
    /// # Safety
    ///
    /// 1. The region is one of this allocator, executable, and not given back.
    /// 2. Nobody executes it until it is made executable again.
    ///
    /// # Errors
    ///
    /// [`MemoryError`], and nothing has changed.
    unsafe fn make_writable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError>;

    /// Takes a region back, whatever its state.
    ///
    /// # Safety
    ///
    /// 1. The region is one of this allocator, and is given back once.
    /// 2. Nobody reads, writes or executes it any more.
    unsafe fn deallocate(&self, region: NonNull<[u8]>);
}

/// Pages from the system: whole pages of its own for each region.
///
/// Linux joins neighbouring pages with the same protection into one mapping, and splits it where the
/// protection of some of them changes, or where they go. A process that has as many mappings as it
/// may (`vm.max_map_count`) meets that as an error `ENOMEM`, and nothing has changed:
///
/// - [`MemoryError::Allocate`] and [`MemoryError::MakeExecutable`]: no more code is loaded.
/// - [`MemoryError::MakeWritable`]: code is not patched.
/// - [`MemoryError::MakeExecutable`] for code that was being patched, only if what lies next to it is
///   writable at that time, too: otherwise the way back joins what the way there split.
///
/// A region that cannot be unmapped for this reason stays mapped: its memory goes back to the system,
/// unless it is locked, and its addresses are lost until the process ends.
///
/// ```
/// use pcmap::registry::{CodeAllocator, MemoryError, SystemPages};
///
/// let error = SystemPages.allocate(usize::MAX, 16).unwrap_err();
/// assert!(matches!(error, MemoryError::Allocate { len: usize::MAX, .. }));
/// let error = SystemPages.allocate(10, 4097).unwrap_err(); // not a power of two
/// assert!(matches!(error, MemoryError::Allocate { len: 10, .. }));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemPages;

// SAFETY: 1. a fresh private mapping, of which nobody else knows; the system zeroes it. 2. is
// what `mprotect` does. 3. All pages of a region have the same protection at any time, so they lie in
// one mapping of the system's, which `mprotect` splits around them before it changes any of them.
// 4. Only `deallocate` unmaps it. 5. None of these calls panics.
unsafe impl CodeAllocator for SystemPages {
    fn allocate(&self, len: usize, align: usize) -> Result<NonNull<[u8]>, MemoryError> {
        let refused = |os_error| MemoryError::Allocate { len, os_error };
        let pages = pages::round_up(len).filter(|&pages| pages != 0).ok_or(refused(0))?;
        let start = pages::map_aligned(pages, align).map_err(refused)?;
        Ok(NonNull::slice_from_raw_parts(start, len))
    }

    unsafe fn make_executable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        let (start, len) = mapping_of(region);
        // SAFETY: (`protect`) 1. by 1. a mapping made by `allocate`; 2. by 2.
        unsafe { pages::protect(start, len, Use::ReadExecute) }
            .map_err(|os_error| MemoryError::MakeExecutable { os_error })
    }

    unsafe fn make_writable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        let (start, len) = mapping_of(region);
        // SAFETY: (`protect`) 1. by 1. a mapping made by `allocate`; 2. by 2.
        unsafe { pages::protect(start, len, Use::ReadWrite) }
            .map_err(|os_error| MemoryError::MakeWritable { os_error })
    }

    unsafe fn deallocate(&self, region: NonNull<[u8]>) {
        let (start, len) = mapping_of(region);
        // SAFETY: (`unmap`) 1. by 1. a mapping made by `allocate`; 2. by 2.
        unsafe { pages::unmap(start, len) };
    }
}

/// The mapping that a region is the beginning of.
fn mapping_of(region: NonNull<[u8]>) -> (NonNull<u8>, usize) {
    // `allocate` computed the same number, so there is one.
    (region.cast(), pages::round_up(region.len()).unwrap_or(region.len()))
}

/// One of the allocators of a process, shared by those who may have to give something back to it.
#[derive(Clone, Default)]
pub(crate) enum AllocatorHandle {
    #[default]
    System,
    Own(Arc<dyn CodeAllocator>),
}

impl AllocatorHandle {
    pub(crate) fn get(&self) -> &dyn CodeAllocator {
        match self {
            Self::System => &SystemPages,
            Self::Own(allocator) => &**allocator,
        }
    }
}

impl fmt::Debug for AllocatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "SystemPages",
            Self::Own(_) => "an allocator of the program",
        })
    }
}
