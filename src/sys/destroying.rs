#![expect(unsafe_code, reason = "a list of stack frames, linked through a thread-local")]
//! Whether this thread is in the midst of destroying a map's garbage.
//!
//! A value's destructor may call into the map, whose calls take out garbage, whose destructors may
//! call into the map: the outermost call does it all, so that the stack stays shallow. For writers
//! only; the thread-local is a plain pointer, without initialisation or destructor.

use core::cell::Cell;
use core::ptr;

/// One call that is destroying.
struct Frame {
    owner: usize,
    outer: *const Frame,
}

thread_local! {
    static INNERMOST: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

/// Takes its frame off the list, also when a destructor panics.
struct Leave(*const Frame);

impl Drop for Leave {
    fn drop(&mut self) {
        INNERMOST.set(self.0);
    }
}

/// Runs `run`, unless a call for the same owner (an address) is under way on this thread.
pub(crate) fn unless_destroying<R>(owner: usize, run: impl FnOnce() -> R) -> Option<R> {
    let outer = INNERMOST.get();
    let mut frame = outer;
    // SAFETY: null, or a frame of a caller of this, which is alive below on this thread's stack.
    while let Some(under_way) = unsafe { frame.as_ref() } {
        if under_way.owner == owner {
            return None;
        }
        frame = under_way.outer;
    }
    let frame = Frame { owner, outer };
    let _leave = Leave(outer);
    INNERMOST.set(&raw const frame);
    Some(run())
}

#[cfg(test)]
mod tests {
    use super::unless_destroying;
    use std::panic::catch_unwind;

    #[test]
    fn once_per_owner_and_thread() {
        let nested = unless_destroying(1, || {
            let other = unless_destroying(2, || unless_destroying(1, || ()).is_some());
            (unless_destroying(1, || ()).is_some(), other)
        });
        assert_eq!(nested, Some((false, Some(false))));
        assert!(catch_unwind(|| unless_destroying(1, || panic!("in a destructor"))).is_err());
        assert_eq!(unless_destroying(1, || 7), Some(7));
    }
}
