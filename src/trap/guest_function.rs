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
    ($($name:ident)*) => {
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
            #[expect(non_snake_case, reason = "arguments are called as their types")]
            unsafe fn call_with(self, ($($name,)*): ($($name,)*)) -> R {
                // SAFETY: by 1.
                unsafe { self($($name),*) }
            }
        }
    };
}

of_arguments!();
of_arguments!(A);
of_arguments!(A B);
of_arguments!(A B C);
of_arguments!(A B C D);
of_arguments!(A B C D E);
of_arguments!(A B C D E F);
of_arguments!(A B C D E F G);
of_arguments!(A B C D E F G H);
