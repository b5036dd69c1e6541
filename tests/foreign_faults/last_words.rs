#![expect(unsafe_code, reason = "traces a process")]
//! How a process dies, as a debugger, or whoever reads its core file, sees it: the signal that ends it, what
//! the kernel tells about it, and the instruction that the thread is at.

use std::env;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::{mem, ptr};

/// The last signal that was delivered to any thread of a process that it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastWords {
    signal: libc::c_int,
    code: libc::c_int,
    /// Bytes from the program counter on. (Its value differs from run to run.)
    instruction: libc::c_long,
    /// Whether the address that the kernel tells is 0, or that of the instruction.
    at: [bool; 2],
}

fn trace(request: libc::c_uint, process: libc::pid_t, data: *mut libc::c_void) -> libc::c_long {
    // SAFETY: the child is stopped; where there is an answer, `data` has room for it.
    let answer = unsafe { libc::ptrace(request, process, ptr::null_mut::<u8>(), data) };
    assert_ne!(answer, -1, "{}", Error::last_os_error());
    answer
}

/// Of the stopped thread.
fn look(thread: libc::pid_t) -> LastWords {
    // SAFETY: zeros are written over.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    trace(libc::PTRACE_GETSIGINFO, thread, (&raw mut info).cast());
    // SAFETY: zeros are written over.
    let mut registers: libc::user_regs_struct = unsafe { mem::zeroed() };
    trace(libc::PTRACE_GETREGS, thread, (&raw mut registers).cast());
    let pc = ptr::with_exposed_provenance_mut::<u8>(registers.rip as usize);
    let none = ptr::null_mut::<u8>();
    // SAFETY: asks for a word at the program counter; -1 if there is none.
    let instruction = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, thread, pc, none) };
    // SAFETY: an address, or something else.
    let address = unsafe { info.si_addr() }.cast::<u8>();
    LastWords {
        signal: info.si_signo,
        code: info.si_code,
        instruction,
        at: [address.is_null(), address == pc],
    }
}

/// Runs a scenario to its end.
pub(crate) fn of(name: &str, installed: &str) -> Option<LastWords> {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["child", name, installed]).env("RUST_BACKTRACE", "0");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let traced = || {
        let none = ptr::null_mut::<u8>();
        // SAFETY: asks to be traced by the parent.
        match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    };
    // SAFETY: a system call, which may be made between `fork` and `exec`.
    unsafe { command.pre_exec(traced) };
    let child = command.spawn().expect("a process").id() as libc::pid_t;
    let mut last = None;
    let mut is_first = true;
    loop {
        let mut status = 0;
        // SAFETY: room for a status.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        assert!(thread > 0, "{}", Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            if thread == child {
                return last;
            }
            continue;
        }
        let event = status >> 16 != 0;
        let mut deliver = libc::WSTOPSIG(status);
        if mem::take(&mut is_first) {
            // It has become this program. Its threads are to be traced, too.
            let threads = libc::PTRACE_O_TRACECLONE as usize;
            trace(libc::PTRACE_SETOPTIONS, child, ptr::without_provenance_mut(threads));
            deliver = 0;
        } else if event || deliver == libc::SIGSTOP {
            // A thread has begun.
            deliver = 0;
        } else {
            last = Some(look(thread));
        }
        let deliver = ptr::without_provenance_mut::<u8>(deliver as usize);
        // A thread that another has ended in between cannot be asked to go on.
        // SAFETY: a child of ours.
        unsafe { libc::ptrace(libc::PTRACE_CONT, thread, ptr::null_mut::<u8>(), deliver) };
    }
}
