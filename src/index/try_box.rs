#![expect(unsafe_code, reason = "the allocation that `Box::try_new` will make one day")]
//! A box, or the value back: `Box::new` aborts when memory runs out.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::alloc::Layout;

/// Boxes what `make` gives, which is made in its place. `None`: there is no memory, and `make` was not
/// called.
#[inline(always)]
pub(crate) fn try_box_with<X>(make: impl FnOnce() -> X) -> Option<Box<X>> {
    const { assert!(size_of::<X>() != 0, "nothing to allocate") };
    // SAFETY: the layout's size is not zero, as was just asserted.
    let memory = unsafe { std::alloc::alloc(Layout::new::<X>()) };
    let place = NonNull::new(memory.cast::<X>())?;
    // SAFETY: freshly allocated for an `X`, and nobody else has it. (Were `make` to panic, the memory
    // would be lost, and nothing else.)
    unsafe { place.write(make()) };
    // SAFETY: allocated by the global allocator with the layout of `X`, and initialised.
    Some(unsafe { Box::from_raw(place.as_ptr()) })
}

/// Boxes `value`; without memory for it, it comes back.
pub(crate) fn try_box<X>(value: X) -> Result<Box<X>, X> {
    let mut value = ManuallyDrop::new(value);
    // SAFETY: taken out here or below, not both: `make` is called if there is memory, and then only.
    match try_box_with(|| unsafe { ManuallyDrop::take(&mut value) }) {
        Some(boxed) => Ok(boxed),
        None => Err(ManuallyDrop::into_inner(value)),
    }
}
