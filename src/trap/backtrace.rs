#![expect(unsafe_code, reason = "reads the stacks of guests")]
//! Walking a guest's stack by its frame pointers, in a handler.
//!
//! Each function that keeps a frame pointer stores the caller's, and above that the return address:
//! both lie where the frame pointer points. The walk believes nothing: a frame pointer is followed
//! only inside of the stack that guests of this call have used, only upwards, and a return address
//! counts only if the code map knows it. So it ends by itself where guests end, it takes at most as
//! many steps as there is room for, and all that it reads is mapped.
//!
//! A function that has not set up its frame yet, or has taken it down already, has its caller's frame
//! pointer: the frame that this leads to is the caller's caller's, and the caller would be left out.
//! (An overflow of the stack is found there, mostly.) The instruction tells, for only prologues and
//! epilogues have these: `machine::unframed`.

use crate::registry::ResidentCode;
use crate::sys::signals::machine::{self, MOST_BYTES, Registers, Unframed};
use crate::{Hit, Reader};
use core::ops::Range;

/// The most frames that a backtrace has.
pub const MOST_FRAMES: usize = 64;

/// A frame of a guest in a backtrace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapFrame {
    pub(crate) pc: usize,
    pub(crate) innermost: bool,
}

impl TrapFrame {
    /// The absolute address at which the frame goes on, or would have: in the innermost frame that of
    /// the instruction that trapped, in others that behind a call.
    ///
    /// Constant time; signal-safe.
    pub fn pc(&self) -> usize {
        self.pc
    }

    /// An address in the instruction that the frame is at: for asking which function it is in, and
    /// where in the source. Behind a call that does not return another function may begin.
    ///
    /// Constant time; signal-safe.
    pub fn lookup_address(&self) -> usize {
        if self.innermost { self.pc } else { self.pc.wrapping_sub(1) }
    }
}

const WORD: usize = size_of::<usize>();

/// Writes the program counters of the guest's frames to `into`, innermost first; gives how many, and
/// whether there was room for all. Signal-safe.
///
/// # Safety
///
/// 1. `stack` is memory that may be read, in whole words from its first multiple of a word on.
#[inline]
pub(crate) unsafe fn walk(
    reader: &Reader<'_, ResidentCode>,
    from: Registers,
    stack: Range<usize>,
    into: &mut [usize],
) -> (usize, bool) {
    let read = |at: usize| {
        let end = at.checked_add(WORD)?;
        let inside = at.is_multiple_of(WORD) && stack.start <= at && end <= stack.end;
        // SAFETY: by 1., an aligned word in it.
        inside.then(|| unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() })
    };
    // Where guests return to, and whether there is one.
    let known = |stored: usize| {
        let pc = machine::return_address(stored);
        reader.lookup(pc.wrapping_sub(1)).is_some().then_some(pc)
    };
    let mut count = 0;
    let mut note = |pc: usize| match into.get_mut(count) {
        Some(place) => {
            *place = pc;
            count += 1;
            true
        }
        None => false,
    };
    let mut complete = note(from.pc);
    let caller = match unframed(reader, from.pc) {
        Some(Unframed::OnStack(offset)) => from.sp.checked_add(offset).and_then(read),
        Some(Unframed::Linked) => Some(from.link),
        None => None,
    };
    if let Some(pc) = caller.and_then(known) {
        complete = complete && note(pc);
    }
    let mut fp = from.fp;
    while complete {
        let Some(pc) = fp.checked_add(WORD).and_then(read).and_then(known) else { break };
        complete = note(pc);
        match read(fp) {
            Some(next) if next > fp => fp = next,
            _ => break,
        }
    }
    (count, complete)
}

/// Where the return address is, if the function at `pc` has no frame at that instruction.
#[inline]
fn unframed(reader: &Reader<'_, ResidentCode>, pc: usize) -> Option<Unframed> {
    let hit = reader.lookup(pc)?;
    let offset = hit.offset();
    let function = hit.value().function_at(offset);
    let first = function.is_some_and(|it| it.range.start().get() as usize == offset);
    machine::unframed(instruction(hit, pc), first)
}

/// The first bytes of the instruction at `pc`, which is in the code that was hit. Signal-safe.
#[inline]
pub(crate) fn instruction(hit: Hit<'_, ResidentCode>, pc: usize) -> [u8; MOST_BYTES] {
    let mut instruction = [0; MOST_BYTES];
    for (byte, at) in instruction.iter_mut().zip(pc..hit.range().end()) {
        // SAFETY: text of a mapping that stays while the hit lives: it may be read.
        *byte = unsafe { core::ptr::with_exposed_provenance::<u8>(at).read_volatile() };
    }
    instruction
}
