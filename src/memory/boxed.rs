#![expect(unsafe_code, reason = "the allocation that `Box::try_new` will make one day")]
//! A box, or the value back: `Box::new` aborts when memory runs out.

use super::OutOfMemory;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::alloc::Layout;

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
