//! What differs between architectures: the registers of a signal frame by name, how to copy such a
//! frame, and a little assembly:
//!
//! - `enter` calls a guest, and notes how to come back without it: the [`Recovery`];
//! - `leave` goes back to a recovery point at once;
//! - `handler_entry` is what the kernel calls, and `depart` how it goes on as another handler: the
//!   [`Departure`];
//! - `call_handler` calls a signal handler.
//!
//! `enter` puts what the calling convention asks to be preserved on the stack, notes the stack
//! pointer and an address in itself, and calls. What is called returns, and `enter` with it; or the
//! thread is sent to that address with that stack pointer, by a handler that changes the registers
//! of the interrupted code or by `leave`: there the same registers are taken from the same stack, and
//! the frames in between are simply gone. It is no `setjmp`: it returns once, nothing is saved but
//! what this one address needs, and no register is restored that the compiler does not expect to be.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod frame_setup;
#[cfg(target_arch = "x86_64")]
mod general_protection;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::*;

/// How to come back to a call of `enter`, as long as it has not returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// The stack pointer.
    pub(crate) sp: usize,
    /// Where to go on.
    pub(crate) pc: usize,
}

/// What `enter` returns when the thread came back by the recovery point.
pub(crate) const RECOVERED: usize = 1;

/// What a `handler_entry!` does when its body has returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// A copy of the kernel's frame, to leave that for; 0: it returns.
    frame: usize,
    /// The handler that is called with the copy.
    handler: usize,
}

impl Departure {
    /// It returns.
    pub(crate) const NONE: Self = Self { frame: 0, handler: 0 };

    /// It becomes a call of `handler` with the frame.
    pub(crate) const fn to(handler: usize, frame: usize) -> Self {
        Self { frame, handler }
    }
}

/// How many bytes of an instruction [`accesses_by_stack_pointer`] looks at.
pub(crate) const MOST_BYTES: usize = 4;

/// Where the return address is in a function without a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(dead_code, reason = "each architecture has one of them")]
pub(crate) enum Unframed {
    /// So many bytes above the stack pointer.
    OnStack(usize),
    /// In the link register.
    Linked,
}

/// Whether a function has its frame at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "there the text tells"))]
pub(crate) enum Setup {
    Done,
    /// Not yet, or no more.
    Not(Unframed),
    /// It has set one up; the text does not tell whether it has taken that down.
    Perhaps,
    /// The text does not show that it ever has one.
    Untold,
}

/// What an instruction before a return address calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(target_arch = "aarch64", expect(dead_code, reason = "there nothing is in doubt"))]
pub(crate) enum Call {
    /// A function at this address.
    Of(usize),
    /// What a register or memory says.
    Indirect,
    /// It is no call.
    None,
}

/// The registers that a stack walk begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    /// The frame pointer.
    pub(crate) fp: usize,
    /// The link register, where there is one; else 0.
    pub(crate) link: usize,
}
