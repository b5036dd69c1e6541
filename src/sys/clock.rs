#![expect(unsafe_code, reason = "clock_gettime: `Instant` is not a number that fits an atomic")]
//! Nanoseconds that never go back, for saying how long garbage has waited.

/// Nanoseconds since some moment before this process (`CLOCK_MONOTONIC`); at least 1.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for a timespec; this clock exists on every Unix.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64).max(1)
}
