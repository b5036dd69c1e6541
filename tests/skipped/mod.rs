#![expect(unsafe_code, reason = "has something done when the process ends")]
//! Says at the end of a run what it has skipped, where the harness does not capture it.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

static SKIPPED: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
    // SAFETY: a function of the right kind, which lives as long as the program.
    let registered = unsafe { libc::atexit(report) };
    assert_eq!(registered, 0, "the end of the process can be told of");
    Mutex::default()
});

extern "C" fn report() {
    let skipped = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner);
    for what in &*skipped {
        // Not by a macro, whose output is captured. There is nowhere to report a failure.
        let _ = writeln!(io::stderr(), "SKIPPED: {what}");
    }
}

/// Notes that something was not tested, and which tool is missing for it.
pub(crate) fn skipped(what: &str) {
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
}
