#![expect(unsafe_code, reason = "asks the C library to call at a fork")]
//! Which process of a line of forks this is, for handlers: a child has the memory of threads that it does
//! not have.

use crate::sys::pages::ErrorNumber;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many forks this process is away from the one that asked first. (Forks that the C library does not
/// know of, such as a bare `clone`, are not counted.)
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// A generation.
#[derive(Debug)]
pub(crate) struct Stamp(AtomicUsize);

impl Stamp {
    /// This process.
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(GENERATION.load(Ordering::Relaxed)))
    }

    /// Whether it is this process's. Signal-safe: two loads.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.0.load(Ordering::Relaxed) == GENERATION.load(Ordering::Relaxed)
    }

    /// Makes it this process's.
    pub(crate) fn renew(&self) {
        self.0.store(GENERATION.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Makes this process another than the one that it was forked from.
pub(crate) fn begin() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Has `in_child` called in each child from now on, on its one thread; at least once.
///
/// # Errors
///
/// What the C library says.
pub(crate) fn at_fork(in_child: extern "C" fn()) -> Result<(), ErrorNumber> {
    static ASKED: AtomicBool = AtomicBool::new(false);
    if ASKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: `in_child` may be called anywhere.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => {
            ASKED.store(true, Ordering::Relaxed);
            Ok(())
        }
        error => Err(error),
    }
}
