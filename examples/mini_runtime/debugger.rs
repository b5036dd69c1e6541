#![expect(unsafe_code, reason = "signals, and the stack of generated code")]
//! What happens at a breakpoint: a SIGTRAP handler that notes where the thread is, and lets it go on.
//!
//! The handler does only what handlers may: it asks the process's code map whether the program
//! counter is in code of ours, and walks the stack by frame pointers as long as it is. What the
//! addresses mean is asked later, by the ordinary thread that has the store.

use pcmap::registry::{breakpoint_address, process_code_map};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{io, mem, ptr};

const DEEPEST: usize = 8;

/// Breakpoints that the process has stopped at.
static STOPS: AtomicUsize = AtomicUsize::new(0);
/// Where the last one was: program counters from the innermost function outwards.
static DEPTH: AtomicUsize = AtomicUsize::new(0);
static PCS: [AtomicUsize; DEEPEST] = [const { AtomicUsize::new(0) }; DEEPEST];

/// How often the process has stopped at a breakpoint so far.
pub(crate) fn stops() -> usize {
    STOPS.load(SeqCst)
}

/// The stack at the last breakpoint: program counters, innermost first.
pub(crate) fn last_stack() -> Vec<usize> {
    let depth = DEPTH.load(SeqCst).min(DEEPEST);
    PCS[..depth].iter().map(|pc| pc.load(SeqCst)).collect()
}

/// Installs the handler.
pub(crate) fn install() -> io::Result<()> {
    // SAFETY: zeros are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler is safe to run wherever a breakpoint stops a thread.
    match unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the third argument is a context, this handler's alone.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let pc = breakpoint_address(machine::pc(registers));
    let reader = process_code_map().enter();
    if reader.lookup(pc).is_none() {
        // Not ours. A real handler would pass it on to the one before it.
        // SAFETY: a system call that handlers may make, as `abort` is.
        unsafe { libc::abort() };
    }
    PCS[0].store(pc, SeqCst);
    let mut depth = 1;
    // A return address is behind its call: the byte before it is in the calling function.
    // SAFETY: (`return_address`) 1. stopped where a function of ours begins.
    let mut caller = unsafe { machine::return_address(registers) }.wrapping_sub(1);
    let mut frame = machine::frame_pointer(registers);
    while reader.lookup(caller).is_some() && depth < DEEPEST {
        PCS[depth].store(caller, SeqCst);
        depth += 1;
        // SAFETY: code of ours keeps frame pointers, and `caller` is in it: this is its frame.
        let [outer, return_address] = unsafe { *ptr::with_exposed_provenance::<[usize; 2]>(frame) };
        (frame, caller) = (outer, return_address.wrapping_sub(1));
    }
    DEPTH.store(depth, SeqCst);
    STOPS.fetch_add(1, SeqCst);
    machine::go_on(registers);
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use libc::{REG_RBP, REG_RIP, REG_RSP, mcontext_t};

    pub(crate) fn pc(registers: &mcontext_t) -> usize {
        registers.gregs[REG_RIP as usize] as usize
    }

    pub(crate) fn frame_pointer(registers: &mcontext_t) -> usize {
        registers.gregs[REG_RBP as usize] as usize
    }

    /// # Safety
    ///
    /// 1. The thread is at the first instruction of a function.
    pub(crate) unsafe fn return_address(registers: &mcontext_t) -> usize {
        let place = registers.gregs[REG_RSP as usize] as usize;
        // SAFETY: by 1. the call has just put it there.
        unsafe { *std::ptr::with_exposed_provenance(place) }
    }

    /// The processor is behind the breakpoint already, where the instruction that does nothing ends.
    pub(crate) fn go_on(_: &mut mcontext_t) {}
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use libc::mcontext_t;

    pub(crate) fn pc(registers: &mcontext_t) -> usize {
        registers.pc as usize
    }

    pub(crate) fn frame_pointer(registers: &mcontext_t) -> usize {
        registers.regs[29] as usize
    }

    /// # Safety
    ///
    /// 1. The thread is at the first instruction of a function.
    pub(crate) unsafe fn return_address(registers: &mcontext_t) -> usize {
        registers.regs[30] as usize
    }

    /// The instruction that does nothing is skipped.
    pub(crate) fn go_on(registers: &mut mcontext_t) {
        registers.pc += 4;
    }
}
