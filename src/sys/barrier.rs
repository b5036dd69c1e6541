#![cfg_attr(
    all(not(target_arch = "x86_64"), any(target_os = "linux", target_os = "android")),
    expect(unsafe_code, reason = "the membarrier system call")
)]
//! Making a publication visible to threads that were not told of it.
//!
//! A thread may run code whose address reached it by a racy path, with no synchronisation edge to
//! the thread that registered it. Its lookup must find the code all the same (and must not find it
//! after unregistering).

/// Returns when every running thread of the process will see what this thread has published.
///
/// On x86-64 the locked exchanges that publish have done that already: stores become visible to
/// all at once and in order, and loads are not reordered with loads.
#[cfg(target_arch = "x86_64")]
pub(crate) fn publication_barrier() {}

/// Returns when every running thread of the process will see what this thread has published.
///
/// Elsewhere a load may be served from before the publication although the same thread has seen
/// what came after it; the kernel runs a full barrier on every core that runs one of our threads.
/// Without the system call (before Linux 4.3, or another system) a fence is all that can be had.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn publication_barrier() {
    use core::sync::atomic::{Ordering, fence};

    fence(Ordering::SeqCst);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // SAFETY: these commands take no pointers; an unknown one is an error, not a fault.
        let call =
            |command: libc::c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
        if call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0 {
            return;
        }
        // Not registered yet in this process, or not known to this kernel.
        call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
        if call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0 {
            call(libc::MEMBARRIER_CMD_GLOBAL);
        }
    }
}
