#![expect(unsafe_code, reason = "forks")]
//! A process for a test that may end it.

use std::io::Error;

/// How a process ended: its status, or the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Status(i32),
    Signal(i32),
}

/// Runs `body` in a child process with this thread only.
pub(crate) fn in_child(body: impl FnOnce()) -> Ending {
    // SAFETY: the child runs `body`, which takes no lock that another thread of the harness may hold
    // (the C library's allocator is usable in a child), and leaves at once.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", Error::last_os_error());
    if pid == 0 {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err();
        // SAFETY: leaves the child at once, running nothing of the test harness.
        unsafe { libc::_exit(i32::from(panicked)) };
    }
    let mut status = 0;
    // SAFETY: a child of ours, and room for its status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) {
        Ending::Signal(libc::WTERMSIG(status))
    } else {
        Ending::Status(libc::WEXITSTATUS(status))
    }
}
