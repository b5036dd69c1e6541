#![expect(unsafe_code, reason = "writes to memory that becomes executable, and reads it")]
//! One region of memory for code, given back when its last owner lets go of it.
//!
//! A mapping begins writable, in the hands of one owner ([`Draft`]). Published it is executable and
//! may be shared: with the code map, whose entries keep it mapped as long as a handler may hold a
//! hit. Those other owners never look at its bytes. Only the one `CodeMemory` that holds it reads
//! them and, with exclusive access to itself, has it written again.

use super::code_allocator::{AllocatorHandle, MemoryError};
use crate::sys::pages;
use core::ptr::NonNull;
use core::slice;

/// A region of an allocator; given back when dropped.
#[derive(Debug)]
struct Region {
    bytes: NonNull<[u8]>,
    allocator: AllocatorHandle,
}

// SAFETY: it owns its memory, memory is of no thread, and allocators are `Send` and `Sync`.
unsafe impl Send for Region {}
// SAFETY: through a shared reference the memory is only read, and changed by calls whose callers
// vouch for being alone with it.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: (`deallocate`) 1. from `allocate` of this allocator, and dropped once; 2. whoever
        // uses the bytes borrows an owner of the region; who runs the code promised to hold one.
        unsafe { self.allocator.get().deallocate(self.bytes) };
    }
}

/// Memory that is being written.
#[derive(Debug)]
pub(crate) struct Draft(Region);

impl Draft {
    /// Room for `len` bytes, which is not 0, at a multiple of `align`, a power of two.
    pub(crate) fn allocate(
        len: usize,
        align: usize,
        allocator: &AllocatorHandle,
    ) -> Result<Self, MemoryError> {
        if !pages::CAN_PUBLISH_INSTRUCTIONS {
            return Err(MemoryError::Architecture);
        }
        let bytes = allocator.get().allocate(len, align)?;
        bytes.cast::<u8>().as_ptr().expose_provenance();
        Ok(Self(Region { bytes, allocator: allocator.clone() }))
    }

    /// The bytes: as many as were asked for.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: (`CodeAllocator`) 1. initialised and writable, and nobody else's; borrowed with
        // `self`, which nobody shares.
        unsafe { &mut *self.0.bytes.as_ptr() }
    }

    /// Ends writing: the code may be executed.
    pub(crate) fn publish(self) -> Result<Mapping, MemoryError> {
        let mapping = Mapping(self.0);
        // SAFETY: (`Mapping::make_executable`) 1. writable since it was allocated; 2. a draft has
        // no other owner, and `bytes` are borrowed no more.
        unsafe { mapping.make_executable() }?;
        Ok(mapping)
    }
}

/// Memory that holds published code.
#[derive(Debug)]
pub(crate) struct Mapping(Region);

impl Mapping {
    /// The address of the first byte.
    pub(crate) fn start(&self) -> usize {
        self.0.bytes.cast::<u8>().as_ptr().addr()
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes.len()
    }

    pub(crate) fn allocator(&self) -> &AllocatorHandle {
        &self.0.allocator
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// 1. Nobody writes to them while the slice is in use.
    pub(crate) unsafe fn bytes(&self) -> &[u8] {
        let Region { bytes, .. } = &self.0;
        // SAFETY: (`CodeAllocator`) 1. and 2. initialised, and readable in either state; by 1. not
        // written meanwhile; alive as long as `self` is.
        unsafe { slice::from_raw_parts(bytes.cast().as_ptr(), bytes.len()) }
    }

    /// Writes `new` at `offset`; nothing, if it does not fit there.
    ///
    /// # Safety
    ///
    /// 1. The memory is writable.
    /// 2. Nobody else reads or writes it during the call.
    pub(crate) unsafe fn write(&self, offset: usize, new: &[u8]) {
        if offset.checked_add(new.len()).is_none_or(|end| end > self.len()) {
            return;
        }
        // SAFETY: inside of the region, by the check above.
        let place = unsafe { self.0.bytes.cast::<u8>().add(offset) };
        // SAFETY: as many bytes, all inside of the region; by 1. and 2. they may be written, and
        // `new`, which somebody reads, is no part of them.
        unsafe { place.as_ptr().copy_from_nonoverlapping(new.as_ptr(), new.len()) };
    }

    /// Ends writing, and makes what was written visible to instruction fetches on every core.
    ///
    /// # Safety
    ///
    /// 1. The memory is writable.
    /// 2. Nobody writes to it until it is made writable again.
    pub(crate) unsafe fn make_executable(&self) -> Result<(), MemoryError> {
        let Region { bytes, allocator } = &self.0;
        // SAFETY: (`make_executable`) 1. of this allocator, by 1. writable, not given back as long
        // as `self` is alive; 2. by 2.
        unsafe { allocator.get().make_executable(*bytes) }?;
        // SAFETY: (`publish_instructions`) 1. readable in either state.
        unsafe { pages::publish_instructions(bytes.cast(), bytes.len()) };
        Ok(())
    }

    /// Ends executing.
    ///
    /// # Safety
    ///
    /// 1. The memory is executable.
    /// 2. Nobody executes it until it is made executable again.
    pub(crate) unsafe fn make_writable(&self) -> Result<(), MemoryError> {
        let Region { bytes, allocator } = &self.0;
        // SAFETY: (`make_writable`) 1. of this allocator, by 1. executable, not given back as long
        // as `self` is alive; 2. by 2.
        unsafe { allocator.get().make_writable(*bytes) }
    }
}
