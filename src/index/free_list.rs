#![expect(unsafe_code, reason = "hands over blocks of memory")]
//! Memory of nodes that were freed, kept for the next writes.
//!
//! A write makes a node of each height and frees as many a few writes later, all of some kilobytes.
//! An allocator may give such blocks back to the system each time and fetch them again (glibc's does
//! when they lie at the end of its heap: a write then costs ten times as much, in page faults). So
//! a map keeps a few, and gives them back when it is asked to reclaim.

use crate::memory::OutOfMemory;
use crate::sync::{AtomicPtr, FREE_PER_SIZE, const_fn, dispose_memory, edge, filled};
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// Blocks up to this size are the allocator's business: it keeps such by itself.
const SMALL: usize = 1024;
/// Larger ones are rounded up to a multiple of this, so that many fit many.
const GRAIN: usize = 256;
/// What nodes are aligned to: their slots have words and 64-bit numbers.
const ALIGNMENT: usize =
    if align_of::<u64>() > align_of::<usize>() { align_of::<u64>() } else { align_of::<usize>() };
/// So many sizes above the small ones.
const SIZES: usize = 32;
/// Blocks up to this size are kept.
pub(crate) const LARGEST: usize = SMALL + SIZES * GRAIN;

/// A few blocks of each size.
pub(crate) struct FreeList {
    blocks: [[AtomicPtr<u8>; FREE_PER_SIZE]; SIZES],
}

/// The layout that a block is allocated with.
pub(crate) fn rounded(layout: Layout) -> Layout {
    if layout.size() <= SMALL {
        return layout;
    }
    let size = layout.size().next_multiple_of(GRAIN);
    Layout::from_size_align(size, layout.align()).unwrap_or(layout)
}

impl FreeList {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self { blocks: filled!(filled!(AtomicPtr::new(ptr::null_mut()); FREE_PER_SIZE); SIZES) }
        }
    }

    /// The places for blocks of this (rounded) layout.
    #[inline]
    fn places(&self, layout: Layout) -> &[AtomicPtr<u8>] {
        let size = layout.size().checked_sub(SMALL + 1).map(|size| size / GRAIN);
        size.and_then(|size| self.blocks.get(size)).map_or(&[], |places| places)
    }

    /// A block with this layout, which is rounded: a free one, or a new one.
    ///
    /// Wait-free, except the allocator.
    #[inline]
    pub(crate) fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, OutOfMemory> {
        for place in self.places(layout) {
            // Only who sees a block takes it: most places are empty most of the time.
            if place.load(edge::lost()).is_null() {
                continue;
            }
            // Ordering [take_block]: Acquire; pairs with Release in `free`.
            //   seen: what was done with the block before comes before what is done with it now.
            let block = NonNull::new(place.swap(ptr::null_mut(), edge::take_block()));
            if let Some(block) = block {
                return Ok(block);
            }
        }
        debug_assert!(layout.size() != 0 && layout == rounded(layout));
        debug_assert_eq!(layout.align(), ALIGNMENT);
        // SAFETY: the size is not zero.
        let block = unsafe { std::alloc::alloc(layout) };
        NonNull::new(block).ok_or(OutOfMemory { bytes: layout.size() })
    }

    /// Keeps a block, or frees it.
    ///
    /// Wait-free, except the allocator.
    ///
    /// # Safety
    ///
    /// 1. It was allocated with this layout, which is rounded, and nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn free(&self, block: *mut u8, layout: Layout) {
        for place in self.places(layout) {
            // Ordering [put_block]: Release; pairs with Acquire in `allocate`.
            //   failed: there is another block.
            let none = ptr::null_mut();
            if place.load(edge::lost()).is_null()
                && place.compare_exchange(none, block, edge::put_block(), edge::lost()).is_ok()
            {
                return;
            }
        }
        // SAFETY: (`dispose_memory`) 1. by 1.
        unsafe { dispose_memory(block, layout) };
    }

    /// Frees the blocks that are kept.
    pub(crate) fn clear(&self) {
        for (size, places) in self.blocks.iter().enumerate() {
            let size = SMALL + (size + 1) * GRAIN;
            for place in places {
                // Ordering [take_block]: Acquire; as in `allocate`.
                let block = place.swap(ptr::null_mut(), edge::take_block());
                let layout = Layout::from_size_align(size, ALIGNMENT);
                if let (false, Ok(layout)) = (block.is_null(), layout) {
                    // SAFETY: (`dispose_memory`) 1. kept by `free` among those of this size, and all
                    // blocks are aligned alike.
                    unsafe { dispose_memory(block, layout) };
                }
            }
        }
    }
}

impl Drop for FreeList {
    fn drop(&mut self) {
        self.clear();
    }
}
