#![expect(unsafe_code, reason = "the allocation that `Box::try_new` will make one day")]
//! A box, or the value back: `Box::new` aborts when memory runs out.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::alloc::Layout;

/// There is no heap memory. Nothing has changed.
///
/// ```
/// let error = pcmap::OutOfMemory { bytes: 4096 };
/// assert_eq!(error.to_string(), "out of memory: 4096 bytes were asked for");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {bytes} bytes were asked for")]
pub struct OutOfMemory {
    /// How many bytes were asked for.
    pub bytes: usize,
}

impl OutOfMemory {
    /// For so many `X`.
    pub(crate) const fn of<X>(count: usize) -> Self {
        Self { bytes: count.saturating_mul(size_of::<X>()) }
    }
}

/// Boxes `value`; without memory for it, it comes back.
pub(crate) fn try_box<X>(value: X) -> Result<Box<X>, X> {
    let mut value = ManuallyDrop::new(value);
    // SAFETY: taken out here or below, not both: `make` is called if there is memory, and then only.
    match try_box_with(|| unsafe { ManuallyDrop::take(&mut value) }) {
        Ok(boxed) => Ok(boxed),
        Err(_) => Err(ManuallyDrop::into_inner(value)),
    }
}

/// Boxes what `make` gives, which is made in its place. Without memory `make` is not called.
#[inline(always)]
pub(crate) fn try_box_with<X>(make: impl FnOnce() -> X) -> Result<Box<X>, OutOfMemory> {
    const { assert!(size_of::<X>() != 0, "nothing to allocate") };
    // SAFETY: the layout's size is not zero, as was just asserted.
    let memory = unsafe { std::alloc::alloc(Layout::new::<X>()) };
    let place = NonNull::new(memory.cast::<X>()).ok_or(OutOfMemory::of::<X>(1))?;
    // SAFETY: freshly allocated for an `X`, and nobody else has it. (Were `make` to panic, the memory
    // would be lost, and nothing else.)
    unsafe { place.write(make()) };
    // SAFETY: allocated by the global allocator with the layout of `X`, and initialised.
    Ok(unsafe { Box::from_raw(place.as_ptr()) })
}
