#![expect(unsafe_code, reason = "pthread_self")]
//! Telling threads apart.

/// A number that no other thread of this process has while this one lives, below 2^48 (and the same
/// in the child that this thread forks).
///
/// The address of the thread's descriptor, which is aligned: its lowest bits say nothing.
pub(crate) fn identity() -> u64 {
    // SAFETY: `pthread_self` has no preconditions.
    (unsafe { libc::pthread_self() } as u64) >> 4
}
