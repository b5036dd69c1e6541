#![expect(unsafe_code, reason = "the trap flag, in a signal handler's context")]
//! Runs a piece of work one instruction at a time.
//!
//! An `int3` begins and another ends it: the handler sets, or clears, the trap flag of the context
//! it returns to. While the flag is set, the processor traps after each instruction, and the kernel
//! delivers SIGTRAP on that thread. (The kernel clears the flag for the handler itself.)

use crate::allocator;
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Once;
use std::{mem, ptr};

/// The trap flag's bit in the flags register.
const TRAP_FLAG: libc::greg_t = 0x100;

/// A moment between two instructions of the work.
pub(crate) struct Boundary {
    /// From 1.
    pub(crate) number: usize,
    /// The instruction that comes next.
    pub(crate) pc: usize,
    pub(crate) in_allocator: bool,
}

/// What a visit of a boundary wants next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next boundary.
    Step,
    /// The work is to run to its end without being stepped.
    Run,
}

/// What was stepped over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    pub(crate) boundaries: usize,
    /// How many of them were inside the allocator.
    pub(crate) in_allocator: usize,
}

type Visit = dyn Fn(&Boundary) -> Then;

#[derive(Clone, Copy)]
struct Stepping {
    /// The visit, as long as [`step`] is running on this thread.
    visit: Option<*const Visit>,
    /// Whether the work has begun and not ended.
    at_work: bool,
    last_pc: usize,
    steps: Steps,
}

const NOT_STEPPING: Stepping = Stepping {
    visit: None,
    at_work: false,
    last_pc: 0,
    steps: Steps { boundaries: 0, in_allocator: 0 },
};

thread_local! {
    // Neither lazy nor destroyed, so the handler may use it.
    static STEPPING: Cell<Stepping> = const { Cell::new(NOT_STEPPING) };
}

/// Runs `work`, and `visit` at each boundary in it, in a signal handler on this thread.
///
/// The boundaries inside one repeated string instruction count as one.
pub(crate) fn step<R>(visit: &dyn Fn(&Boundary) -> Then, work: impl FnOnce() -> R) -> (R, Steps) {
    /// Ends the stepping however the work ends.
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            trap();
        }
    }

    install();
    assert!(STEPPING.get().visit.is_none(), "the visit of a boundary cannot be stepped");
    // SAFETY: only the lifetime changes; it is not used beyond this call, see below.
    let visit = unsafe { mem::transmute::<&dyn Fn(&Boundary) -> Then, &'static Visit>(visit) };
    STEPPING.set(Stepping { visit: Some(ptr::from_ref(visit)), ..NOT_STEPPING });
    let result = {
        let _end = End;
        trap();
        work()
    };
    let steps = STEPPING.replace(NOT_STEPPING).steps;
    (result, steps)
}

/// Traps, and so begins or ends the stepping.
#[inline(never)]
fn trap() {
    // SAFETY: the handler is installed; it changes the trap flag, and nothing else of the context.
    // (The compiler takes it that memory changes here.)
    unsafe { std::arch::asm!("int3") };
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        let handler: extern "C" fn(_, _, _) = on_trap;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        // SAFETY: the handler has the signature that the flags promise, and is signal-safe as far
        // as the visit is.
        let status = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
        assert_eq!(status, 0, "sigaction: {}", std::io::Error::last_os_error());
    });
}

extern "C" fn on_trap(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the address of this thread's errno, always.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let errno_before = unsafe { *errno };
    // SAFETY: what the kernel gave to this handler.
    let code = unsafe { (*info).si_code };
    // SAFETY: the context of this very handler, which nobody else uses.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let pc = registers[libc::REG_RIP as usize] as usize;
    let flags = &mut registers[libc::REG_EFL as usize];

    let mut now = STEPPING.get();
    if code != libc::TRAP_TRACE {
        now.at_work = !now.at_work;
        STEPPING.set(now);
        *flags = if now.at_work { *flags | TRAP_FLAG } else { *flags & !TRAP_FLAG };
    } else if pc != now.last_pc
        && let Some(visit) = now.visit
    {
        let in_allocator = allocator::is_inside();
        now.last_pc = pc;
        now.steps.boundaries += 1;
        now.steps.in_allocator += usize::from(in_allocator);
        STEPPING.set(now);
        // SAFETY: lent to `step`, which this thread is in.
        let visit = unsafe { &*visit };
        if visit(&Boundary { number: now.steps.boundaries, pc, in_allocator }) == Then::Run {
            *flags &= !TRAP_FLAG;
        }
    }
    // SAFETY: as above.
    unsafe { *errno = errno_before };
}
