#![expect(unsafe_code, reason = "the allocation that `Box::try_new` will make one day")]
//! A box, or the value back: `Box::new` aborts when memory runs out.

use core::ptr::NonNull;
use std::alloc::Layout;

/// Boxes `value`; without memory for it, it comes back.
pub(crate) fn try_box<X>(value: X) -> Result<Box<X>, X> {
    const { assert!(size_of::<X>() != 0, "nothing to allocate") };
    // SAFETY: the layout's size is not zero, as was just asserted.
    let memory = unsafe { std::alloc::alloc(Layout::new::<X>()) };
    let Some(place) = NonNull::new(memory.cast::<X>()) else {
        return Err(value);
    };
    // SAFETY: freshly allocated for an `X`, and nobody else has it.
    unsafe { place.write(value) };
    // SAFETY: allocated by the global allocator with the layout of `X`, and initialised.
    Ok(unsafe { Box::from_raw(place.as_ptr()) })
}
