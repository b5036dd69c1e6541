#![expect(unsafe_code, reason = "calls function pointers")]
//! Functions that can be called through an activation: pointers to functions of C's calling
//! convention, with up to eight arguments.
//!
//! Arguments and results are `Copy`: a trap gives up the frame that holds them, and nothing of it is
//! dropped.

/// A function of a guest, to be called with a tuple of arguments.
///
/// Implemented for `unsafe extern "C" fn(A, …) -> R` of up to eight arguments, all of them and the
/// result `Copy`.
///
/// # Safety
///
/// Implemented here only.
pub unsafe trait GuestFunction<Arguments: Copy>: Copy + sealed::Sealed<Arguments> {
    /// What it returns.
    type Output: Copy;

    /// Calls it.
    ///
    /// # Safety
    ///
    /// 1. As the function asks.
    #[doc(hidden)]
    unsafe fn call_with(self, arguments: Arguments) -> Self::Output;
}

mod sealed {
    /// Keeps implementations here.
    pub trait Sealed<Arguments> {}
}

macro_rules! of_arguments {
    ($($argument:ident: $name:ident),*) => {
        impl<R: Copy, $($name: Copy),*> sealed::Sealed<($($name,)*)>
            for unsafe extern "C" fn($($name),*) -> R
        {
        }

        // SAFETY: here.
        unsafe impl<R: Copy, $($name: Copy),*> GuestFunction<($($name,)*)>
            for unsafe extern "C" fn($($name),*) -> R
        {
            type Output = R;

            #[inline]
            unsafe fn call_with(self, ($($argument,)*): ($($name,)*)) -> R {
                // SAFETY: by 1.
                unsafe { self($($argument),*) }
            }
        }
    };
}

of_arguments!();
of_arguments!(a: A);
of_arguments!(a: A, b: B);
of_arguments!(a: A, b: B, c: C);
of_arguments!(a: A, b: B, c: C, d: D);
of_arguments!(a: A, b: B, c: C, d: D, e: E);
of_arguments!(a: A, b: B, c: C, d: D, e: E, f: F);
of_arguments!(a: A, b: B, c: C, d: D, e: E, f: F, g: G);
of_arguments!(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H);
