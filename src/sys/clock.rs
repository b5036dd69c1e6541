#![expect(unsafe_code, reason = "clock_gettime and nanosleep")]
//! Nanoseconds that never go back, for saying how long garbage has waited; and a pause.

/// Nanoseconds since some moment before this process, to a few milliseconds; at least 1.
///
/// The coarse clock, where there is one: it is read at every write.
pub(crate) fn coarse_nanos() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for a timespec; the clock exists on this system.
    unsafe { libc::clock_gettime(CLOCK, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64).max(1)
}

/// Lets other threads go on for about `length`, in the calls that block; for less if a signal comes.
///
/// `std::thread::sleep` goes on sleeping after a signal for what the kernel says remains, which
/// includes the timer's slack (50 microseconds on Linux): signals that come faster than that, as a
/// profiler's may, keep it from ever returning.
pub(crate) fn pause(length: core::time::Duration) {
    let length = libc::timespec {
        // Not by its name, which the bindings for musl deprecate.
        tv_sec: length.as_secs() as _,
        tv_nsec: length.subsec_nanos() as libc::c_long,
    };
    // SAFETY: `length` is a valid timespec, and what remains is not asked for.
    unsafe { libc::nanosleep(&raw const length, core::ptr::null_mut()) };
}
