#![expect(unsafe_code, reason = "ends processes")]
//! Children of `fork` in tests: a child has but one thread of a harness that it must not disturb, so
//! it says by its exit status what it found.

use std::sync::Once;

/// The exit status of a child that panicked.
pub(crate) const PANICKED: u32 = 254;

/// The exit status that stands for a failed check on a line: one byte, and not zero.
pub(crate) const fn status_for(line: u32) -> u32 {
    line % 251 + 1
}

/// Ends a child, running nothing of the harness.
pub(crate) fn leave(status: u32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status as i32) }
}

/// From now on a child that panics ends, with [`PANICKED`], instead of unwinding into the harness.
///
/// For the parent, before it forks: so a child takes no lock for this (the hook is behind one, which
/// another thread may hold at the fork), and there is no moment at which it hangs without an alarm.
pub(crate) fn end_children_that_panic() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let parent = std::process::id();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::process::id() != parent {
                leave(PANICKED);
            }
            hook(panic);
        }));
    });
}
