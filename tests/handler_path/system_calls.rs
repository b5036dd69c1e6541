#![expect(unsafe_code, reason = "a filter of system calls")]
//! A filter that kills the process at any system call but the return from a signal (and the exit).

use crate::child::{Ending, in_child};
use crate::trap_guests::{Guest, Guests, prepared};
use pcmap::trap::GuestThread;

/// Makes every other system call of this process deadly (`SECCOMP_RET_KILL_PROCESS`).
pub(crate) fn forbid() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, (jt, jf)| libc::sock_filter { code, jt, jf, k };
    // The number of the call is what a filter finds first.
    let mut program = [
        step(LOAD, 0, (0, 0)),
        step(IS, libc::SYS_rt_sigreturn as u32, (1, 0)),
        step(IS, libc::SYS_exit_group as u32, (0, 1)),
        step(RETURN, libc::SECCOMP_RET_ALLOW, (0, 0)),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, (0, 0)),
    ];
    let program = libc::sock_fprog { len: 5, filter: program.as_mut_ptr() };
    // SAFETY: asks that this process gains no more rights.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a whole program, which the kernel copies.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(set, 0);
}

fn call(thread: &GuestThread, guest: Guest, with: (i64, i64, i64)) -> bool {
    // SAFETY: (`call`) 1. kept by the caller; 2. to 4. it calls itself at most.
    thread.catch_traps(|activation| unsafe { activation.call(guest, with) }).is_err()
}

pub(crate) fn exit(well: bool) -> ! {
    // SAFETY: ends the process by the one other call that is allowed.
    unsafe { libc::_exit(i32::from(!well)) }
}

#[test]
fn the_check_bites() {
    let ending = in_child(|| {
        forbid();
        // SAFETY: has no preconditions.
        unsafe { libc::getppid() };
        exit(true);
    });
    assert_eq!(ending, Ending::Signal(libc::SIGSYS));
}

#[test]
fn a_trap_makes_no_system_call() {
    let ending = in_child(|| {
        let (guests, thread) = (Guests::load(), prepared());
        let [load, unreachable, divide, descend] =
            ["load", "unreachable", "divide", "descend"].map(|name| guests.guest(name));
        let itself = guests.address("descend");
        // The allocator of the C library has its memory, and the code map its.
        let warm = (0..100).all(|_| call(&thread, load, (0, 0, 0)));
        forbid();
        let well = warm
            && (0..10_000).all(|_| {
                call(&thread, load, (0, 0, 0))
                    && call(&thread, unreachable, (0, 0, 0))
                    && call(&thread, divide, (1, 0, 0))
                    && call(&thread, descend, (itself, 50, 0))
            });
        exit(well);
    });
    assert_eq!(ending, Ending::Status(0));
}
