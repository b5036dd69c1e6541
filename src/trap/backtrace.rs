#![expect(unsafe_code, reason = "reads the stacks of guests")]
//! Walking a guest's stack by its frame pointers, in a handler.
//!
//! Each function that keeps a frame pointer stores the caller's, and above that the return address:
//! both lie where the frame pointer points. The walk believes nothing: a frame pointer is followed
//! only inside of the stack that guests of this call have used, only upwards, and a return address
//! counts only if the code map knows it. So it ends by itself where guests end, it takes at most as
//! many steps as there is room for, and all that it reads is mapped: what a guest that has overflowed its
//! stack has beyond the end is not read, and if the walk leads there, it says that it is cut. Beyond where guests end, at a host
//! function that another guest has called, it goes on with that, if the host function has told where it
//! was called.
//!
//! A function that has not set up its frame yet, or has taken it down already, has its caller's frame
//! pointer: the frame that this leads to is the caller's caller's, and the caller would be left out.
//! (An overflow of the stack is found there, mostly.) The text tells where frames are set up and taken down
//! (`machine::setup`); where it leaves a doubt, the calls before the two return addresses in question may
//! settle it; and where they do not, the trace does not claim to be complete.

use super::host_call::Suspension;
use crate::registry::ResidentCode;
use crate::sys::signals::machine::{self, Call, Registers, Setup, Unframed};
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

/// Writes the program counters of the guest's frames to `into`, innermost first, and then those of guests
/// further out, beyond the host functions that they called; gives how many, and whether these are all.
/// Signal-safe.
///
/// # Safety
///
/// 1. `stack` is memory that may be read, in whole words from its first multiple of a word on.
/// 2. `suspended` is null or the innermost suspension of this thread.
#[inline]
pub(crate) unsafe fn walk(
    reader: &Reader<'_, ResidentCode>,
    from: Registers,
    stack: Range<usize>,
    suspended: *const Suspension,
    into: &mut [usize],
) -> (usize, bool) {
    let mut walk =
        Walk { reader, into, count: 0, complete: true, certain: true, innermost: from.sp };
    walk.note(from.pc);
    // SAFETY: (`unframed`) 1. by 1.
    if let Some(pc) = unsafe { walk.unframed(from, &stack) } {
        walk.note(pc);
    }
    // SAFETY: (`follow`) 1. by 1.
    unsafe { walk.follow(from.fp, &stack) };
    // SAFETY: (`go_outwards`) 1. by 2.
    unsafe { walk.go_outwards(suspended) };
    (walk.count, walk.complete && walk.certain)
}

/// The same for a guest that waits for a host function. Each frame is at a return address.
///
/// # Safety
///
/// 1. `suspended` is the innermost suspension of this thread.
pub(crate) unsafe fn walk_suspended(
    reader: &Reader<'_, ResidentCode>,
    suspended: &Suspension,
    into: &mut [usize],
) -> (usize, bool) {
    let mut walk =
        Walk { reader, into, count: 0, complete: true, certain: true, innermost: usize::MAX };
    // SAFETY: (`go_outwards`) 1. by 1.
    unsafe { walk.go_outwards(suspended) };
    (walk.count, walk.complete)
}

/// A walk under way.
struct Walk<'w, 'r> {
    reader: &'w Reader<'r, ResidentCode>,
    into: &'w mut [usize],
    count: usize,
    complete: bool,
    /// No frame may be missing between the first two.
    certain: bool,
    /// The stack pointer of the innermost frame.
    innermost: usize,
}

impl Walk<'_, '_> {
    /// Notes guests that wait for host functions.
    ///
    /// # Safety
    ///
    /// 1. `suspended` is null or a suspension of this thread that is not over.
    #[inline]
    unsafe fn go_outwards(&mut self, suspended: *const Suspension) {
        // Each adds a frame, or is the last.
        let mut next = suspended;
        // SAFETY: by 1., or the one further out of such: it lies in the frame of a host function that has
        // not returned.
        while let Some(suspension) = unsafe { next.as_ref() }
            && self.complete
        {
            match suspension.exit().and_then(|exit| Some((exit, self.known(exit.return_address)?)))
            {
                Some((exit, pc)) => {
                    self.note(pc);
                    // SAFETY: (`follow`) 1. stack of this thread, from a younger frame than the guest's up
                    // to where that was called.
                    unsafe { self.follow(exit.frame_pointer, &suspension.guest_stack()) };
                }
                None => self.complete = false,
            }
            next = suspension.outer();
        }
    }

    /// Notes a frame, if there is room.
    #[inline]
    fn note(&mut self, pc: usize) {
        match self.into.get_mut(self.count) {
            Some(place) if self.complete => {
                *place = pc;
                self.count += 1;
            }
            _ => self.complete = false,
        }
    }

    /// Where a guest returns to, if what is stored is that.
    #[inline]
    fn known(&self, stored: usize) -> Option<usize> {
        let pc = machine::return_address(stored);
        self.reader.lookup(pc.wrapping_sub(1)).is_some().then_some(pc)
    }

    /// The caller of the innermost function, if that has no frame. If that cannot be told, the walk is not
    /// certain.
    ///
    /// # Safety
    ///
    /// 1. `stack` is memory that may be read.
    #[inline]
    unsafe fn unframed(&mut self, from: Registers, stack: &Range<usize>) -> Option<usize> {
        let reader = self.reader;
        let Some(Function { hit, start }) = function(reader, from.pc) else {
            self.certain = false;
            return None;
        };
        let at = from.pc.wrapping_sub(start);
        let setup = machine::setup(|offset| byte(hit, start.wrapping_add(offset)), at);
        let mut stored_at = |at| {
            // SAFETY: (`read`) 1. by 1.
            let stored = unsafe { self.read(stack, at) };
            self.known(stored?)
        };
        match setup {
            Setup::Done => None,
            Setup::Not(Unframed::OnStack(offset)) => stored_at(from.sp.wrapping_add(offset)),
            Setup::Not(Unframed::Linked) => self.known(from.link),
            doubt => {
                // Without a frame, a return address is on top of the stack.
                let top = stored_at(from.sp);
                // With a frame, the caller's; or else the caller's caller's.
                let next = from.fp.checked_add(WORD).and_then(stored_at);
                let lacks = self.lacks_frame(start, doubt == Setup::Perhaps, top, next);
                self.certain &= lacks.is_some();
                top.filter(|_| lacks == Some(true))
            }
        }
    }

    /// Whether the function at `start` has no frame, by the calls before two return addresses: on top of the
    /// stack, and where the frame pointer leads to. `has_one` says that it has a frame somewhere.
    fn lacks_frame(
        &self,
        start: usize,
        has_one: bool,
        top: Option<usize>,
        next: Option<usize>,
    ) -> Option<bool> {
        let caller = top.and_then(|top| Some(function(self.reader, top)?.start));
        // A function that calls itself looks the same with and without a frame.
        let by_itself = caller == Some(start);
        let next = next.map(|next| self.call_before(next));
        let is_called = |function| next == Some(Call::Of(function));
        match top.map_or(Call::None, |top| self.call_before(top)) {
            _ if is_called(start) && !by_itself => Some(false),
            Call::None => has_one.then_some(false),
            Call::Of(other) if other != start => has_one.then_some(false),
            _ if by_itself => None,
            Call::Of(_) => Some(true),
            Call::Indirect => caller.is_some_and(is_called).then_some(true),
        }
    }

    /// What is called before a return address.
    #[inline]
    fn call_before(&self, pc: usize) -> Call {
        let text = self.reader.lookup(pc.wrapping_sub(1));
        text.map_or(Call::None, |hit| {
            machine::call_before(pc, |before| byte(hit, pc.wrapping_sub(before)))
        })
    }

    /// A word of the stack, if it is in it. Where guests have been, but not what may be read, the walk is cut.
    ///
    /// # Safety
    ///
    /// 1. `stack` is memory that may be read, in whole words from its first multiple of a word on.
    #[inline]
    unsafe fn read(&mut self, stack: &Range<usize>, at: usize) -> Option<usize> {
        let end = at.checked_add(WORD)?;
        self.complete &= !(self.innermost..stack.start).contains(&at);
        let inside = at.is_multiple_of(WORD) && stack.start <= at && end <= stack.end;
        // SAFETY: by 1., an aligned word in it.
        inside.then(|| unsafe { core::ptr::with_exposed_provenance::<usize>(at).read_volatile() })
    }

    /// Notes the callers of the frame that a frame pointer leads to.
    ///
    /// # Safety
    ///
    /// 1. `stack` is memory that may be read.
    #[inline]
    unsafe fn follow(&mut self, mut fp: usize, stack: &Range<usize>) {
        while self.complete {
            // SAFETY: (`read`) 1. by 1.
            let stored = fp.checked_add(WORD).and_then(|at| unsafe { self.read(stack, at) });
            let Some(pc) = stored.and_then(|stored| self.known(stored)) else { break };
            self.note(pc);
            // SAFETY: (`read`) 1. by 1.
            match unsafe { self.read(stack, fp) } {
                Some(next) if next > fp => fp = next,
                _ => break,
            }
        }
    }
}

/// A function in code that was hit.
struct Function<'h> {
    hit: Hit<'h, ResidentCode>,
    start: usize,
}

/// The function that an address is in, and where it starts.
#[inline]
fn function<'h>(reader: &'h Reader<'_, ResidentCode>, pc: usize) -> Option<Function<'h>> {
    let hit = reader.lookup(pc)?;
    let function = hit.value().function_at(hit.offset())?;
    let start = hit.range().start().wrapping_add(function.range.start().get() as usize);
    Some(Function { hit, start })
}

/// A byte of the code that was hit, if it is in it. Signal-safe.
#[inline]
fn byte(hit: Hit<'_, ResidentCode>, at: usize) -> Option<u8> {
    // SAFETY: text of a mapping that stays while the hit lives: it may be read.
    hit.range()
        .contains(at)
        .then(|| unsafe { core::ptr::with_exposed_provenance::<u8>(at).read_volatile() })
}

/// The first bytes of the instruction at `pc`, which is in the code that was hit. Signal-safe.
#[inline]
pub(crate) fn instruction<const BYTES: usize>(
    hit: Hit<'_, ResidentCode>,
    pc: usize,
) -> [u8; BYTES] {
    let mut instruction = [0; BYTES];
    for (byte, at) in instruction.iter_mut().zip(pc..hit.range().end()) {
        // SAFETY: text of a mapping that stays while the hit lives: it may be read.
        *byte = unsafe { core::ptr::with_exposed_provenance::<u8>(at).read_volatile() };
    }
    instruction
}
