//! Systems whose kernel does not tell of a fork: advice about a page that is cleared in children is
//! refused, as before Linux 4.14, or accepted without effect, as by emulators. Children of the C
//! library's `fork` have to know all the same.
//!
//! A filter for system calls makes such a system, for the rest of a process's life. So each test runs
//! again in a process of its own, whose first call of the crate comes behind the filter.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "fork, a filter for system calls, and a page")]

mod children;

use children::{end_children_that_panic, leave, status_for};
use pcmap::{CodeMap, Registration};
use std::env;
use std::process::Command;
use std::ptr;
use std::sync::Barrier;
use std::thread;

static MAP: CodeMap<u32> = CodeMap::new();

/// What is set in a process that a test runs in again.
const AGAIN: &str = "PCMAP_FORK_UNNOTICED";

/// Seconds after which a child is taken to hang.
const PATIENCE: libc::c_uint = 20;

/// What `madvise` gives for advice about forks.
#[derive(Clone, Copy, Debug)]
enum Advice {
    /// 0, and does nothing.
    HasNoEffect,
    /// `EINVAL`.
    IsRefused,
}

/// From here on this thread, and those that it starts, are on such a system.
fn install(advice: Advice) {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const UNLESS_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const NUMBER: u32 = 0;
    const THIRD_ARGUMENT: u32 = 16 + 2 * 8; // its low half
    let error = match advice {
        Advice::HasNoEffect => 0,
        Advice::IsRefused => libc::EINVAL as u32,
    };
    let step = |code: u32, skip_unless: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: skip_unless,
        k,
    };
    let mut steps = [
        step(LOAD, 0, NUMBER),
        step(UNLESS_EQUAL, 3, libc::SYS_madvise as u32),
        step(LOAD, 0, THIRD_ARGUMENT),
        step(UNLESS_EQUAL, 1, libc::MADV_WIPEONFORK as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | error),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: takes numbers only.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(promised, 0);
    // SAFETY: a valid program, which the kernel copies.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "seccomp: {}", std::io::Error::last_os_error());
}

/// Forks; the child does `work`. Its exit status.
fn status_of_child(work: impl FnOnce()) -> libc::c_int {
    // SAFETY: the child goes on with what glibc keeps usable after a fork, the crate under test, and
    // `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no preconditions; its default action ends the child.
        unsafe { libc::alarm(PATIENCE) };
        work();
        leave(0);
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place, and `pid` is our child.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "fork, or waitpid: {}", std::io::Error::last_os_error());
    status
}

/// A check in a child: the line it stands on becomes the exit status.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            leave(status_for(line!()));
        }
    };
}

/// The filter does what it should: a page that is to be wiped is not.
fn check_that_the_kernel_is_of_no_help(advice: Advice) {
    // SAFETY: a fresh mapping.
    let page = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), 1, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    // SAFETY: the page was just mapped.
    let outcome = unsafe { libc::madvise(page, 1, libc::MADV_WIPEONFORK) };
    assert_eq!(outcome, if matches!(advice, Advice::HasNoEffect) { 0 } else { -1 });
    // SAFETY: as above.
    unsafe { page.cast::<u32>().write(7) };
    let status = status_of_child(|| {
        // SAFETY: the child has it too.
        ensure!(unsafe { page.cast::<u32>().read() } == 7);
    });
    assert_eq!(status, 0, "wiped in spite of the filter");
}

/// Runs `scenario` on each such system, in processes that run only `test`.
fn on_each_system(test: &str, scenario: impl FnOnce()) {
    let all = [(Advice::HasNoEffect, "has no effect"), (Advice::IsRefused, "is refused")];
    if let Ok(again) = env::var(AGAIN) {
        let known = all.into_iter().find(|(_, name)| *name == again);
        let (advice, _) = known.expect("one of these");
        end_children_that_panic();
        install(advice);
        check_that_the_kernel_is_of_no_help(advice);
        scenario();
        return;
    }
    for (_, name) in all {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["--exact", test, "--test-threads=1", "--nocapture"]).env(AGAIN, name);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "advice {name}: {output:?}");
        assert!(said.contains("1 passed"), "advice {name}: {said}");
    }
}

fn register(page: usize, value: u32) -> Registration<'static, u32> {
    let Ok(code) = MAP.register(page * 0x1000..(page + 1) * 0x1000, value) else {
        leave(status_for(line!()));
    };
    code
}

fn found(page: usize) -> Option<u32> {
    MAP.lookup(page * 0x1000 + 7, |hit| *hit.value())
}

/// Forks while `stop` holds a thread of this process.
fn fork_beside<R: Send>(stop: impl FnOnce(&dyn Fn()) -> R + Send, child: impl FnOnce()) {
    let (stopped, forked) = (Barrier::new(2), Barrier::new(2));
    let status = thread::scope(|scope| {
        scope.spawn(|| {
            stop(&|| {
                stopped.wait();
                forked.wait();
            })
        });
        stopped.wait();
        let status = status_of_child(child);
        forked.wait();
        status
    });
    assert_eq!(status, 0, "a signal, or 256 times the line % 251 + 1");
}

/// A child registers and unregisters, with a lost reader in it: what is its own goes.
fn live_on(first: u32) {
    for value in first..first + 50 {
        let code = register(100, value);
        ensure!(found(100) == Some(value));
        let retirement = code.unregister();
        ensure!(found(100).is_none());
        if value % 2 == 0 {
            retirement.wait();
        }
    }
    // What the lost reader holds is from before the fork. Once all of that is replaced, garbage does not grow.
    let waits_after = |writes| {
        for value in 0..writes {
            drop(register(101, value));
        }
        MAP.synchronize();
        MAP.stats().retired
    };
    let waits = waits_after(200);
    ensure!(waits_after(400) <= waits);
}

#[test]
fn a_reader_that_is_lost_in_the_fork() {
    on_each_system("a_reader_that_is_lost_in_the_fork", || {
        let (one, _other) = (register(1, 1), register(2, 2));
        let inside = |stop: &dyn Fn()| MAP.lookup(0x1007, |_| stop());
        fork_beside(inside, || {
            one.unregister().wait();
            ensure!(found(1).is_none() && found(2) == Some(2));
            live_on(0);
        });
    });
}

#[test]
fn children_of_children() {
    on_each_system("children_of_children", || {
        let _code = register(1, 1);
        let inside = |stop: &dyn Fn()| MAP.lookup(0x1007, |_| stop());
        fork_beside(inside, || {
            live_on(0);
            fork_beside(inside, || {
                live_on(1000);
                fork_beside(inside, || live_on(2000));
                live_on(3000);
            });
            live_on(4000);
        });
        // The parent is as it was.
        live_on(5000);
        assert_eq!(MAP.stats().retired, 0);
    });
}

/// A process that has never written does nothing to notice forks; its child does.
#[test]
fn a_child_that_makes_the_first_call() {
    on_each_system("a_child_that_makes_the_first_call", || {
        let status = status_of_child(|| {
            let _code = register(1, 1);
            let inside = |stop: &dyn Fn()| MAP.lookup(0x1007, |_| stop());
            fork_beside(inside, || live_on(0));
        });
        assert_eq!(status, 0);
    });
}
