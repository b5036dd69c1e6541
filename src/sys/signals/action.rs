#![expect(unsafe_code, reason = "sigaction, and calls of handlers")]
//! What is installed for a signal: asking, installing, and calling a handler as the kernel would.

use super::ending::end_without_room;
use super::interrupted::Interrupted;
use super::machine::{self, Departure};
use crate::sys::pages::{ErrorNumber, last_error};
use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::{mem, ptr};

/// A handler as the kernel calls it: signal, information about it, interrupted context.
///
/// It may unwind if what it hands the signal on to does: into the interrupted code, by way of the
/// kernel's frame, as that would have without ours.
pub(crate) type Handler = unsafe extern "C-unwind" fn(c_int, *mut c_void, *mut c_void);

/// What a handler was called with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) info: *mut c_void,
    pub(crate) context: *mut c_void,
    /// Where its stack was: if the kernel has called it, the kernel's frame.
    pub(crate) frame: usize,
}

/// How many signals the kernel knows.
const SIGNALS: c_int = 64;

/// What is installed for a signal.
#[derive(Clone, Copy)]
pub(crate) struct Action(libc::sigaction);

impl Action {
    /// The default action.
    pub(crate) fn default() -> Self {
        // SAFETY: all zero is a valid action: the default, no flags, an empty mask.
        Self(unsafe { mem::zeroed() })
    }

    /// The trap runtime's.
    ///
    /// - `SA_SIGINFO`: the handler needs the interrupted registers, to read and to change, and the
    ///   fault's address.
    /// - `SA_ONSTACK`: the thread's own stack is the guest's, and may be what faulted.
    /// - `SA_RESTART` as it was before, or if the signal was ignored: a signal that somebody sends and
    ///   that is passed on is not to end a system call that it did not end before. (A fault ends none.)
    /// - No `SA_NODEFER`: the handler does not fault. If it did all the same, with its signal blocked,
    ///   the kernel ends the process on the spot, which beats handling it for ever.
    /// - No `SA_RESETHAND`: there will be more faults.
    /// - An empty mask: a profiler's signal may interrupt the handler; it only looks things up.
    pub(crate) fn of_runtime(handler: Handler, before: &Self) -> Self {
        let mut action = Self::default();
        action.0.sa_sigaction = handler as usize;
        action.0.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if before.is_ignore() || before.0.sa_flags & libc::SA_RESTART != 0 {
            action.0.sa_flags |= libc::SA_RESTART;
        }
        action
    }

    /// What is installed for a signal.
    pub(crate) fn installed(signal: c_int) -> Result<Self, ErrorNumber> {
        Self::exchange(signal, None)
    }

    /// Installs it; gives what was installed before.
    pub(crate) fn install(&self, signal: c_int) -> Result<Self, ErrorNumber> {
        Self::exchange(signal, Some(self))
    }

    fn exchange(signal: c_int, new: Option<&Self>) -> Result<Self, ErrorNumber> {
        let mut before = Self::default();
        let new = new.map_or(ptr::null(), |action| &raw const action.0);
        // SAFETY: `new` is null or a whole action, there is room for the other one; what a handler may
        // do is its installer's to answer for.
        match unsafe { libc::sigaction(signal, new, &raw mut before.0) } {
            0 => Ok(before),
            _ => Err(last_error()),
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_DFL
    }

    pub(crate) fn is_ignore(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_IGN
    }

    pub(crate) fn is_handler(&self, handler: Handler) -> bool {
        self.0.sa_sigaction == handler as usize
    }

    /// Whether the kernel calls its handler as [`Action::of_runtime`] asks for. (`signal` installs a handler
    /// without these flags, also one that it has given back before.)
    pub(crate) fn is_called_right(&self) -> bool {
        const NEEDED: c_int = libc::SA_SIGINFO | libc::SA_ONSTACK;
        self.0.sa_flags & (NEEDED | libc::SA_RESETHAND) == NEEDED
    }

    /// Whether it is good for one signal only (`SA_RESETHAND`).
    pub(crate) fn is_for_once(&self) -> bool {
        self.0.sa_flags & libc::SA_RESETHAND != 0
    }

    /// Calls its handler for `signal` as the kernel would have: with its mask, on the stack it asked
    /// for. If that is not this stack, it is not called yet: the departure is. Signal-safe as far as the
    /// handler is.
    ///
    /// # Safety
    ///
    /// 1. It is a handler, and was installed for `signal`.
    /// 2. The delivery is that of this signal.
    pub(crate) unsafe fn call(&self, signal: c_int, delivery: Delivery) -> Departure {
        let Delivery { info, context, frame } = delivery;
        // SAFETY: (`from_handler`) 1. by 2.; 2. used in this expression only.
        let elsewhere = self.room_for(&unsafe { Interrupted::from_handler(context) }, delivery);
        // Where the kernel cannot write its frame of a SIGSEGV, the process ends. (Of another signal it would
        // try a SIGSEGV, which is what a copy that does not fit faults with.)
        if signal == libc::SIGSEGV && elsewhere.as_ref().is_some_and(|room| !is_writable(room)) {
            // SAFETY: (`end_without_room`) 1. by 2.
            unsafe { end_without_room(context) };
            return Departure::NONE;
        }
        let copy = elsewhere.map(|room| {
            // SAFETY: (`copy_frame`) 1. and 2. by `room_for`.
            unsafe { machine::copy_frame(frame, info, context, room.end) }
        });
        // SAFETY: (`interrupted_mask`) 1. by 2.
        let mut mask = unsafe { interrupted_mask(context) };
        let blocks_itself = self.0.sa_flags & libc::SA_NODEFER == 0;
        for other in 1..=SIGNALS {
            if self.masks(other) || (other == signal && blocks_itself) {
                // SAFETY: adds a signal that exists to a set of ours.
                unsafe { libc::sigaddset(&raw mut mask, other) };
            }
        }
        let mut ours = mask;
        // SAFETY: two sets of ours; a handler may change its thread's mask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, &raw mut ours) };
        if let Some(copy) = copy {
            return Departure::to(self.0.sa_sigaction, copy);
        }
        // SAFETY: (`call_handler`) 1. by 1. and 2. The kernel, too, calls handlers that were installed
        // without `SA_SIGINFO` with three arguments.
        unsafe { machine::call_handler(signal, info, context, self.0.sa_sigaction) };
        // SAFETY: what was in force when this began.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const ours, ptr::null_mut()) };
        Departure::NONE
    }

    /// Where the kernel would have put its frame, if that is not on this stack: below the range's end, not
    /// further than its start.
    ///
    /// Without `SA_ONSTACK` that is the interrupted one, and the alternate stack is free: handlers that
    /// interrupt this one use it from its end, so nothing may be left on it. If it was not the kernel
    /// that called, whoever did has chosen the stack, and wants to be returned to.
    ///
    /// Nor if the copy would come to lie on the alternate stack, which is in use: because the interrupted
    /// code is on it (for the kernel also with its stack pointer at the end, or no further behind it than
    /// the red zone is long), or because its own stack begins where that ends.
    fn room_for(&self, interrupted: &Interrupted<'_>, delivery: Delivery) -> Option<Range<usize>> {
        let Delivery { info, context, frame } = delivery;
        let sp = interrupted.registers().sp;
        let alternate = interrupted.alternate_stack()?;
        let most = alternate.end.saturating_sub(frame).saturating_add(BESIDES);
        let in_the_way = alternate.start..alternate.end.saturating_add(most);
        let moves = self.0.sa_flags & libc::SA_ONSTACK == 0
            && machine::is_kernels_frame(frame, info, context)
            && alternate.contains(&frame)
            && !in_the_way.contains(&sp);
        moves.then_some(sp.wrapping_sub(most)..sp)
    }

    /// Whether its mask has a signal.
    fn masks(&self, signal: c_int) -> bool {
        // SAFETY: asks about a signal that exists.
        unsafe { libc::sigismember(&raw const self.0.sa_mask, signal) == 1 }
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        self.0.sa_sigaction == other.0.sa_sigaction
            && self.0.sa_flags == other.0.sa_flags
            && (1..=SIGNALS).all(|signal| self.masks(signal) == other.masks(signal))
    }
}

/// The most that a frame is away from the stack pointer: the red zone, and what it is aligned by.
const BESIDES: usize = 256;

/// Whether a part of the interrupted stack that is not in use but for the red zone at its end can be
/// written. Signal-safe.
fn is_writable(part: &Range<usize>) -> bool {
    const SMALLEST_PAGE: usize = 4096;
    let len = part.end.wrapping_sub(part.start);
    let inner = (BESIDES..len).step_by(SMALLEST_PAGE);
    inner.chain([len]).map(|below| part.end.wrapping_sub(below)).all(|at| {
        let at = ptr::with_exposed_provenance_mut::<c_void>(at);
        let none = ptr::null::<c_void>();
        let bytes = SIGNALS as usize / 8;
        // SAFETY: the kernel writes the mask there, where nobody has anything; or says that it cannot.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, none, at, bytes) == 0 }
    })
}

/// The mask of the interrupted code: what the kernel adds a handler's own to. Only as much as the
/// kernel wrote: its set is shorter than the C library's.
///
/// # Safety
///
/// 1. `context` is what the kernel gave the handler that is running.
unsafe fn interrupted_mask(context: *mut c_void) -> libc::sigset_t {
    // SAFETY: all zero is the empty set.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    let context: *const libc::ucontext_t = context.cast();
    // SAFETY: by 1. it is in the kernel's frame; only the address is taken.
    let saved = unsafe { &raw const (*context).uc_sigmask };
    let bytes = SIGNALS as usize / 8;
    // SAFETY: both are at least that long, and apart.
    unsafe { ptr::copy_nonoverlapping(saved.cast::<u8>(), (&raw mut mask).cast(), bytes) };
    mask
}
