#![expect(
    unsafe_code,
    reason = "a page that the kernel clears in children, and a handler for forks"
)]
//! Noticing that the process was forked: a number that differs between a process and its children.
//!
//! The number is 0 until it is asked for. Two ways lead back to 0 in a child; either one is enough:
//!
//! - *The page* (Linux 4.14). The number has a page of the library's own data to itself. The kernel is
//!   advised to give that page to children as zeros (`MADV_WIPEONFORK`). This holds for `fork`, `_Fork`
//!   and a bare `clone`, and no lock of the C library is involved.
//! - *The handler*. `pthread_atfork` has the C library clear the number in each child of its `fork`.
//!   This holds where the page is not to be had, and where the advice is accepted without effect, as
//!   emulators of Linux do.
//!
//! A `vfork` child shares the memory. Neither way takes it for another process, and rightly so. Process
//! ids would not do: they are reused, they differ in a `vfork` child, and asking is a system call.
//!
//! Nothing is left of either when the library is unloaded. The page goes with the library's data. The
//! C library forgets the handlers of a library that it unloads: those of Linux, Android and FreeBSD know
//! whose they are (and musl unloads nothing).

use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A number that nothing else shares a page with.
///
/// Advice is for whole pages of the machine, and must not reach what lies next to the number. Pages
/// have 4 KiB on x86, and up to 64 KiB elsewhere.
#[cfg_attr(
    all(
        any(target_os = "linux", target_os = "android"),
        any(target_arch = "x86_64", target_arch = "x86")
    ),
    repr(align(0x1000))
)]
#[cfg_attr(
    all(
        any(target_os = "linux", target_os = "android"),
        not(any(target_arch = "x86_64", target_arch = "x86"))
    ),
    repr(align(0x1_0000))
)]
struct Apart(AtomicUsize);

/// The number of this process, or 0 while it has none. All zeros, so that it does not lie on a page of
/// the library's file: those cannot be wiped.
static NUMBER: Apart = Apart(AtomicUsize::new(0));

/// The number last given to a process in this line of descent. Children inherit it.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// Whether a way back to 0 is in place. Children inherit that too, with the way.
static NOTICED: AtomicBool = AtomicBool::new(false);

/// The number of this process: never 0, and not one that a process had which this one was forked from.
///
/// One load, except the first call in a process. That one is lock-free as far as the C library's
/// `pthread_atfork` is, which has a lock; in children it makes no such call. Not for handlers.
#[inline]
pub(crate) fn generation() -> usize {
    if cfg!(miri) {
        return 1; // its abstract machine cannot fork, and has none of the calls below
    }
    // Acquire: pairs with Release in `give_number`. Who has the number, and forks, forks behind all
    // that was done to notice it.
    match NUMBER.0.load(Ordering::Acquire) {
        0 => first_call(),
        known => known,
    }
}

#[cold]
fn first_call() -> usize {
    // Until one thread has completed this every thread does it all, so that none relies on one that
    // stopped. To do it again does no harm, in a child that was forked in between no more than here.
    if !NOTICED.load(Ordering::Acquire) {
        let by_page = ask_for_wiping();
        let by_handler = register_handler();
        if !by_page && !by_handler {
            // A number that is kept would be inherited unnoticed. The next call tries again.
            return LAST.load(Ordering::Relaxed) + 1;
        }
        NOTICED.store(true, Ordering::Release);
    }
    give_number()
}

/// Gives this process a number, unless it has one.
///
/// A handler may fork behind the addition. Then parent and child may both get this same number: that
/// is no number which one of them had before.
fn give_number() -> usize {
    let mine = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    match NUMBER.0.compare_exchange(0, mine, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => mine,
        Err(theirs) => theirs,
    }
}

/// Advises the kernel to wipe the number in children; says whether it agreed.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn ask_for_wiping() -> bool {
    // SAFETY: `sysconf` has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // On larger pages than these the number has neighbours, which must stay as they are. (Where a
    // loader did not align it, the kernel refuses.)
    if !usize::try_from(page).is_ok_and(|page| page <= size_of::<Apart>()) {
        return false;
    }
    let start = (&raw const NUMBER).cast_mut().cast();
    // SAFETY: one page, all of it `NUMBER`'s; what is on it changes in children only, to a valid number.
    unsafe { libc::madvise(start, page as usize, libc::MADV_WIPEONFORK) == 0 }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn ask_for_wiping() -> bool {
    false
}

/// Has the C library clear the number in children; says whether it will.
fn register_handler() -> bool {
    /// Runs in the child, whose only thread this is, before `fork` returns to its caller.
    ///
    /// What ran before it in the child may have been given a number already. It will get another one,
    /// as if there had been two forks.
    extern "C" fn clear() {
        NUMBER.0.store(0, Ordering::Relaxed);
    }
    // `fork` takes the lock that this takes. A signal handler that forks must not find it taken by the
    // thread that it interrupted.
    with_signals_blocked(|| {
        // SAFETY: the handler only stores to an atomic, and is there for as long as it is registered:
        // the C library forgets it before this library is unmapped.
        unsafe { libc::pthread_atfork(None, None, Some(clear)) == 0 }
    })
}

/// Runs `run` while signals wait: all but those of faults, which do not.
fn with_signals_blocked<R>(run: impl FnOnce() -> R) -> R {
    const FAULTS: [libc::c_int; 5] =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
    let (mut blocked, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: a place for a set, which this fills in.
    unsafe { libc::sigfillset(blocked.as_mut_ptr()) };
    for fault in FAULTS {
        // SAFETY: a set, and a signal.
        unsafe { libc::sigdelset(blocked.as_mut_ptr(), fault) };
    }
    // SAFETY: a set, and a place for another.
    let changed = unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), before.as_mut_ptr()) == 0
    };
    let result = run();
    if changed {
        // SAFETY: the call above has filled it in.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    result
}

#[cfg(all(test, not(miri)))]
mod tests {
    #[cfg(target_os = "linux")]
    use super::NUMBER;
    use super::generation;

    /// Has `make` make a child, and hands the child's answer back as its exit status.
    fn in_child_of(make: impl FnOnce() -> libc::pid_t, answer: impl FnOnce() -> bool) -> bool {
        let pid = make();
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            let status = i32::from(!answer());
            // SAFETY: leaves the child at once, running nothing of the test harness.
            unsafe { libc::_exit(status) };
        }
        let mut status = 0;
        // SAFETY: `status` is a valid place, and `pid` is our child.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        waited == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }

    /// A child that both ways are open to. Like the others it only loads, calls the system, and ends.
    fn in_child(answer: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child does nothing that another thread of this process may have a lock for.
        in_child_of(|| unsafe { libc::fork() }, answer)
    }

    /// A child that the C library knows nothing of, so that no handler runs.
    #[cfg(target_os = "linux")]
    fn in_unknown_child(answer: impl FnOnce() -> bool) -> bool {
        let (flags, none) = (libc::SIGCHLD as libc::c_long, 0 as libc::c_long);
        let make = || {
            // SAFETY: a fork, with the parent's stack; the child does as in `in_child`.
            unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) as libc::pid_t }
        };
        in_child_of(make, answer)
    }

    /// Asks the kernel for `advice` about the number.
    #[cfg(target_os = "linux")]
    fn advise(advice: libc::c_int) -> bool {
        let start = (&raw const NUMBER).cast_mut().cast();
        // SAFETY: all of it is the number's, and its pages stay.
        unsafe { libc::madvise(start, size_of_val(&NUMBER), advice) == 0 }
    }

    #[test]
    fn signals_wait_while_the_handler_is_registered() {
        let blocked = || {
            let mut set = core::mem::MaybeUninit::uninit();
            // SAFETY: asks only; a place for a set.
            let asked = unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), set.as_mut_ptr())
            };
            assert_eq!(asked, 0);
            [libc::SIGUSR1, libc::SIGPROF, libc::SIGSEGV, libc::SIGTRAP].map(|signal| {
                // SAFETY: the call above has filled the set in.
                unsafe { libc::sigismember(set.as_ptr(), signal) == 1 }
            })
        };
        let before = blocked();
        assert_eq!(super::with_signals_blocked(blocked), [true, true, false, false]);
        assert_eq!(blocked(), before);
    }

    fn has_a_number_of_its_own(parent: usize) -> bool {
        let child = generation();
        child != 0 && child != parent && generation() == child
    }

    #[test]
    fn a_child_has_a_number_of_its_own() {
        let parent = generation();
        assert_ne!(parent, 0);
        assert!(in_child(|| has_a_number_of_its_own(parent)));
        assert!(in_child(|| {
            let child = generation();
            let is_new = |number| has_a_number_of_its_own(number) && generation() != parent;
            child != parent && in_child(|| is_new(child)) && generation() == child
        }));
        assert!(in_child(|| in_child(|| has_a_number_of_its_own(parent))));
        assert_eq!(generation(), parent);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn by_the_page_alone() {
        let parent = generation();
        assert!(in_unknown_child(|| has_a_number_of_its_own(parent)));
        assert!(in_unknown_child(|| {
            let child = generation();
            child != parent && in_unknown_child(|| has_a_number_of_its_own(child))
        }));
        assert_eq!(generation(), parent);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn by_the_handler_alone() {
        let parent = generation();
        assert!(in_child(|| {
            let child = generation();
            let kept = advise(libc::MADV_KEEPONFORK);
            // Without handlers there is nothing left to notice by: the advice is gone, indeed.
            let unnoticed = in_unknown_child(|| generation() == child);
            let noticed = in_child(|| {
                let grandchild = generation();
                let is_new = has_a_number_of_its_own(child);
                is_new && grandchild != parent && in_child(|| has_a_number_of_its_own(grandchild))
            });
            child != parent && kept && unnoticed && noticed && generation() == child
        }));
        assert_eq!(generation(), parent);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_child_that_shares_the_memory_is_the_same_process() {
        let parent = generation();
        let shared = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // As `vfork`, with a stack of its own: this one is not disturbed.
        let mut stack = vec![0_u64; 8192];
        extern "C" fn child(parent: *mut libc::c_void) -> libc::c_int {
            i32::from(generation() != parent.addr())
        }
        let argument = std::ptr::without_provenance_mut(parent);
        let top = stack.as_mut_ptr_range().end.cast();
        // SAFETY: the child has a stack, and only loads; the parent waits until it has ended.
        let pid = unsafe { libc::clone(child, top, shared, argument) };
        assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: `status` is a valid place, and `pid` is our child.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0);
        assert_eq!(generation(), parent);
    }
}
