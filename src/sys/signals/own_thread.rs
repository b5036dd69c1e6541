//! A pointer of the thread's own, for ordinary code: handlers do not use it.
//!
//! In a library that was loaded at run time a thread-local may have to be allocated when a thread
//! first touches it, and again when another library is loaded; so a handler finds its thread by a
//! register, and only calls that are made outside of handlers look here.

use core::cell::Cell;
use core::ptr;

thread_local! {
    /// Neither initialised at run time nor destroyed.
    static OWN: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// What this thread set last; null at first.
pub(crate) fn get<T>() -> *const T {
    OWN.get().cast()
}

/// Sets it. There is one pointer, of one type, in the whole crate.
pub(crate) fn set<T>(own: *const T) {
    OWN.set(own.cast());
}
