#![expect(unsafe_code, reason = "reads what the kernel tells a handler")]
//! Which signal a handler was called for, where it comes from, and which address it is about.

use core::ffi::{c_int, c_void};

/// The signals that a fault of an instruction arrives as, with their names.
pub(crate) const FAULTS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGTRAP, "SIGTRAP"),
];

/// What kind of fault a signal reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An access to memory: SIGSEGV, SIGBUS.
    Access,
    /// A breakpoint instruction.
    Breakpoint,
    /// An instruction that cannot be executed, or its operands: SIGILL, SIGFPE.
    Operation,
}

/// A signal as a handler gets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signal {
    pub(crate) number: c_int,
    code: c_int,
    address: usize,
}

impl Signal {
    /// Signal-safe.
    ///
    /// # Safety
    ///
    /// 1. `info` is what the kernel gave the handler of `number`, one of [`FAULTS`], installed with
    ///    `SA_SIGINFO`.
    #[inline]
    pub(crate) unsafe fn from_handler(number: c_int, info: *const c_void) -> Self {
        let info: *const libc::siginfo_t = info.cast();
        // SAFETY: by 1. the kernel has written it.
        let info = unsafe { &*info };
        // SAFETY: by 1. the union holds the fields of a fault, or those of a signal that was sent,
        // which lie there too: numbers, whatever they mean.
        let address = unsafe { info.si_addr() };
        Self { number, code: info.si_code, address: address.addr() }
    }

    /// What fault of the interrupted instruction it reports; none if a process sent it, whose codes are
    /// not positive, or if it is about something else. Signal-safe, as `is_raised` is.
    ///
    /// Of some faults the kernel tells no cause, and neither of what it forces on a thread for reasons of its
    /// own, such as a frame of another signal that did not fit on the stack. `is_raised` says whether the
    /// instruction may have raised that.
    #[inline]
    pub(crate) fn fault(self, is_raised: impl FnOnce(c_int) -> bool) -> Option<Kind> {
        if !is_forced(self.number, self.code) {
            return None;
        }
        if self.is_untold() && !is_raised(self.number) {
            return None;
        }
        match self.number {
            libc::SIGSEGV | libc::SIGBUS => Some(Kind::Access),
            libc::SIGTRAP if is_breakpoint_code(self.code) => Some(Kind::Breakpoint),
            libc::SIGTRAP => None,
            _ => Some(Kind::Operation),
        }
    }

    /// Whether it reports an access to where no memory is, or none that may be accessed so: as to what lies
    /// beyond the end of a stack. Signal-safe.
    #[inline]
    pub(crate) fn finds_no_memory(self) -> bool {
        self.number == libc::SIGSEGV && matches!(self.code, SEGV_MAPERR | SEGV_ACCERR)
    }

    /// Whether the kernel does not tell the cause.
    #[inline]
    pub(crate) fn is_untold(self) -> bool {
        self.code == SI_KERNEL
    }

    /// The address that could not be accessed, if the processor gave one. Signal-safe.
    ///
    /// x86-64 gives none that it cannot form, and none of an access that is not aligned; AArch64 need not
    /// give that of an access that the memory has refused.
    #[inline]
    pub(crate) fn address(self) -> Option<usize> {
        // A bit for each code with which there is one; there need not be. (No `match`, as it may become a jump
        // through a table.)
        let (always, maybe) = if self.number == libc::SIGSEGV {
            (1 << SEGV_MAPERR | 1 << SEGV_ACCERR | 1 << SEGV_PKUERR | 1 << SEGV_MTESERR, 0)
        } else if self.number == libc::SIGBUS {
            (1 << BUS_ADRERR | 1 << BUS_MCEERR_AR, 1 << BUS_ADRALN | 1 << BUS_OBJERR)
        } else {
            (0, 0)
        };
        let code = 1_u64.checked_shl(self.code.cast_unsigned()).unwrap_or(0);
        let known = always & code != 0 || maybe & code != 0 && self.address != 0;
        known.then_some(self.address)
    }
}

// `linux/include/uapi/asm-generic/siginfo.h`; not all C libraries' bindings have them.
const TRAP_BRKPT: c_int = 1;
const SEGV_MAPERR: c_int = 1;
const SEGV_ACCERR: c_int = 2;
const SEGV_PKUERR: c_int = 4;
const SEGV_MTESERR: c_int = 9;
const BUS_ADRALN: c_int = 1;
const BUS_ADRERR: c_int = 2;
const BUS_OBJERR: c_int = 3;
const BUS_MCEERR_AR: c_int = 4;
pub(crate) const SI_KERNEL: c_int = 0x80;

/// Whether a SIGTRAP with this `si_code` is that of a breakpoint instruction: on x86-64 Linux says no more
/// than that it comes from the kernel. Single steps and watchpoints have other codes.
#[inline]
pub(crate) const fn is_breakpoint_code(code: c_int) -> bool {
    code == TRAP_BRKPT || code == SI_KERNEL
}

/// Whether a signal with this `si_code` was raised by the kernel.
#[inline]
pub(crate) const fn is_from_kernel(code: c_int) -> bool {
    code > 0
}

/// Whether the kernel reports something that the interrupted instruction has not done: memory that was
/// found to be broken and that nobody has touched yet, an access of some time ago (AArch64's memory tags,
/// if they are checked asynchronously), or a count of a `perf` event. The kernel forces none of them on
/// anybody: they can be ignored.
#[inline]
pub(crate) const fn is_elsewhere(number: c_int, code: c_int) -> bool {
    /// `linux/include/uapi/asm-generic/siginfo.h`, as above.
    const BUS_MCEERR_AO: c_int = 5;
    const SEGV_MTEAERR: c_int = 8;
    const TRAP_PERF: c_int = 6;
    matches!(
        (number, code),
        (libc::SIGBUS, BUS_MCEERR_AO) | (libc::SIGSEGV, SEGV_MTEAERR) | (libc::SIGTRAP, TRAP_PERF)
    )
}

/// Whether the kernel forces a signal with this `si_code` on the thread: then it ends the process, also if it
/// is ignored, unless there is a handler.
#[inline]
pub(crate) const fn is_forced(number: c_int, code: c_int) -> bool {
    is_from_kernel(code) && !is_elsewhere(number, code)
}

/// The signal's name, if it is one of [`FAULTS`].
pub(crate) fn name(number: c_int) -> Option<&'static str> {
    FAULTS.iter().find(|(known, _)| *known == number).map(|&(_, name)| name)
}

/// Whether the signal is that of breakpoints.
pub(crate) fn is_breakpoint(number: c_int) -> bool {
    number == libc::SIGTRAP
}

#[cfg(test)]
mod tests {
    use super::{Kind, Signal};

    #[test]
    fn only_what_the_instruction_did_is_its_fault() {
        let fault = |number, code| Signal { number, code, address: 0 }.fault(|_| true);
        for code in [1, 2, 3, 4, 0x80] {
            assert_eq!(fault(libc::SIGSEGV, code), Some(Kind::Access));
            assert_eq!(fault(libc::SIGILL, code), Some(Kind::Operation));
        }
        // What the kernel forces on the thread, and the instruction has not raised.
        let forced = |number, code| Signal { number, code, address: 0 }.fault(|_| false);
        assert_eq!((forced(libc::SIGSEGV, 0x80), forced(libc::SIGTRAP, 0x80)), (None, None));
        assert_eq!(forced(libc::SIGSEGV, 1), Some(Kind::Access));
        // Sent: `kill`, `sigqueue`, `tgkill`.
        for code in [0, -1, -6] {
            for number in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
                assert_eq!(fault(number, code), None);
            }
        }
        // Broken memory: in use, and not.
        assert_eq!((fault(libc::SIGBUS, 4), fault(libc::SIGBUS, 5)), (Some(Kind::Access), None));
        // An access of some time ago, and one of now.
        assert_eq!((fault(libc::SIGSEGV, 8), fault(libc::SIGSEGV, 9)), (None, Some(Kind::Access)));
        // No memory, or of no use; a key that forbids it; no address is told; an unaligned access.
        let no_memory = |number, code| Signal { number, code, address: 0 }.finds_no_memory();
        assert_eq!(
            [1, 2, 4, 0x80].map(|it| no_memory(libc::SIGSEGV, it)),
            [true, true, false, false]
        );
        assert!(!no_memory(libc::SIGBUS, 1));
        // A breakpoint; a single step; a watchpoint.
        let traps = [1, 0x80, 2, 4].map(|code| fault(libc::SIGTRAP, code).is_some());
        assert_eq!(traps, [true, true, false, false]);
    }

    #[test]
    fn an_address_is_told_where_there_is_one() {
        let address = |number, code, address| Signal { number, code, address }.address();
        for at in [0, 8] {
            for code in [1, 2, 4, 9] {
                assert_eq!(address(libc::SIGSEGV, code, at), Some(at));
            }
            for code in [2, 4] {
                assert_eq!(address(libc::SIGBUS, code, at), Some(at));
            }
            // Not given; of a shadow stack; of an instruction.
            let others = [
                (libc::SIGSEGV, 0x80),
                (libc::SIGBUS, 0x80),
                (libc::SIGSEGV, 10),
                (libc::SIGILL, 2),
            ];
            for (number, code) in others {
                assert_eq!(address(number, code, at), None);
            }
            // Not aligned, or refused by the memory: some processors tell it.
            for code in [1, 3] {
                assert_eq!(address(libc::SIGBUS, code, at), (at != 0).then_some(at));
            }
        }
    }
}
