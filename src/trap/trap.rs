//! A trap: what it was, where, and on what stack.

use super::backtrace::TrapFrame;
use super::fault::{Cause, Fault};
use crate::registry::{
    FrameInfo, FuncKey, ModuleRegistry, SourceOffset, TextOffset, process_code_map,
};
use crate::sys::signals::signal;
use core::fmt;

/// A guest has trapped: the error of [`GuestThread::catch_traps`](super::GuestThread::catch_traps).
///
/// It knows what the code map knew when the trap was caught, and refers to nothing: the code may go.
/// Modules and names of functions are asked of the store's registry ([`Trap::frame_infos`]), while it
/// has the code.
///
/// All methods, but for what says otherwise: constant time, no allocation, no errors, no panics.
#[derive(Clone)]
pub struct Trap {
    cause: Cause,
    signal: Option<i32>,
    address: Option<usize>,
    pc: Option<usize>,
    offset: Option<TextOffset>,
    function: Option<FuncKey>,
    source: Option<SourceOffset>,
    pcs: Vec<usize>,
    complete: bool,
}

impl Trap {
    /// From the handler's note; asks the code map for the rest.
    pub(crate) fn of(fault: &Fault) -> Self {
        let offset = TextOffset::try_from(fault.offset).ok();
        let signal = (fault.signal != 0).then_some(fault.signal);
        let pc = (signal.is_some() || fault.frames > 0).then_some(fault.pc);
        let at = pc.map_or(0, |pc| TrapFrame { pc, innermost: signal.is_some() }.lookup_address());
        let found = process_code_map().lookup(at, |hit| {
            let tables = hit.value().tables();
            Some((tables.function_at(offset?)?.key, tables.source_at(offset?)))
        });
        let (function, source) = found.flatten().unzip();
        let told = fault.pcs.get(..fault.frames).unwrap_or_default();
        // Without memory there is a trap without a backtrace.
        let mut pcs = Vec::new();
        let room = pcs.try_reserve_exact(told.len()).is_ok();
        if room {
            pcs.extend_from_slice(told);
        }
        Self {
            cause: fault.cause,
            signal,
            address: fault.address,
            pc,
            offset,
            function,
            source: source.flatten(),
            pcs,
            complete: fault.complete && room,
        }
    }

    /// Why it trapped.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// The number of the signal that the fault arrived as; none if a host function has ended the guest.
    pub fn signal(&self) -> Option<i32> {
        self.signal
    }

    /// The address that could not be accessed, if it was an access (SIGSEGV or SIGBUS), and the processor
    /// gave the address. (x86-64 gives none that it cannot form, such as `1 << 62`, and none of an access
    /// that is not aligned where it has to be.)
    pub fn faulting_address(&self) -> Option<usize> {
        self.address
    }

    /// The absolute address of the instruction that trapped. If a host function has ended the guest, that
    /// behind the call, if it has told where that is
    /// ([`host_trap_from`](super::host_trap_from), [`host_call_from`](super::host_call_from)).
    pub fn pc(&self) -> Option<usize> {
        self.pc
    }

    /// Where the instruction is in the image's text; of a call, an offset inside of it.
    pub fn text_offset(&self) -> Option<TextOffset> {
        self.offset
    }

    /// The function that it is in, if it is in one; its key has the module's index in the image.
    pub fn function(&self) -> Option<FuncKey> {
        self.function
    }

    /// The place in the source, if the image knows.
    pub fn source_offset(&self) -> Option<SourceOffset> {
        self.source
    }

    /// The frames of guests, the innermost first: one at least, unless there was no memory for them, or a host function
    /// has ended the guest and has not told where it was called. Those
    /// of the ended call; and then, if a guest had called the host function that made it, that one's, and
    /// so on.
    ///
    /// They are found by frame pointers. A function without one hides its caller, unless it is the innermost and
    /// its caller can be told; a chain that is broken ends the frames of its call. A host function ends the backtrace, unless it runs in
    /// [`host_call_from`](super::host_call_from).
    pub fn frames(&self) -> impl ExactSizeIterator<Item = TrapFrame> + '_ {
        let frame = |(i, &pc)| TrapFrame { pc, innermost: i == 0 && self.signal.is_some() };
        self.pcs.iter().enumerate().map(frame)
    }

    /// Whether there are no more frames than are told: at most [`MOST_FRAMES`](super::MOST_FRAMES) are,
    /// and none beyond a host function in [`host_call`](super::host_call()). Nor, if the innermost function may
    /// have no frame of its own where it trapped and nothing tells: then its caller may be missing.
    pub fn has_all_frames(&self) -> bool {
        self.complete
    }

    /// The frames as the store's registry knows them: module, function, name, source. None for a
    /// frame in a trampoline, or in code that is not the store's. O(log n) a step.
    ///
    /// While the store has the code: what comes to lie at an address later is taken for it.
    pub fn frame_infos<'r>(
        &'r self,
        registry: &'r ModuleRegistry,
    ) -> impl ExactSizeIterator<Item = (TrapFrame, Option<FrameInfo<'r>>)> {
        self.frames().map(|frame| (frame, registry.lookup_frame_info(frame.lookup_address())))
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Code(code) => write!(f, "{code}")?,
            Cause::StackOverflow => f.write_str("stack overflow")?,
            Cause::Breakpoint => f.write_str("breakpoint")?,
            Cause::Host(code) => write!(f, "{code} of the host")?,
        }
        if let Some(number) = self.signal {
            write!(f, " ({})", signal::name(number).unwrap_or("a signal"))?;
        }
        if let Some(pc) = self.pc {
            write!(f, " at {pc:#x}")?;
        }
        if let Some(function) = self.function {
            write!(f, " in function {function}")?;
        }
        if let Some(source) = self.source {
            write!(f, ", {source}")?;
        }
        match self.address {
            Some(address) => write!(f, ", accessing {address:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trap")
            .field("cause", &self.cause)
            .field("signal", &self.signal.and_then(signal::name))
            .field("pc", &format_args!("{:x?}", self.pc))
            .field("address", &self.address)
            .field("text_offset", &self.offset)
            .field("function", &self.function)
            .field("source", &self.source)
            .field("frames", &self.pcs.len())
            .field("complete", &self.complete)
            .finish()
    }
}

impl core::error::Error for Trap {}
