//! How much stack a host function finds: asked for before it begins, so that a guest cannot leave it with
//! too little, which would end the process.

use super::error::PrepareError;
use crate::sys::signals::readable::is_readable;
use crate::sys::signals::thread_stack::page_size;
use core::cell::Cell;

/// How much of the stack guests leave to host functions.
///
/// A host function begins only if so much is left; else the guest that has called it ends by a stack overflow
/// ([`Cause::StackOverflow`](super::Cause::StackOverflow)). Guests themselves may go on to where the stack ends.
///
/// ```
/// # use pcmap::trap::{GuestThread, StackLimits, TrapHandler, TrapOptions};
/// # let thread = GuestThread::prepare(&TrapHandler::install(TrapOptions::new())?)?;
/// // Host functions that need little, and no use of the stack 512 KiB from here.
/// let here = 0_u8;
/// let lowest = (&raw const here).addr() - (512 << 10);
/// let limits = StackLimits::new().host_reserve(16 << 10).lowest(lowest);
/// let result = thread.catch_traps_within(limits, |activation| Ok(1));
/// # assert_eq!(result.unwrap(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackLimits {
    reserve: usize,
    lowest: Option<usize>,
}

impl StackLimits {
    /// 64 KiB for host functions, down to where the stack ends. Constant time; signal-safe.
    pub const fn new() -> Self {
        Self { reserve: 64 << 10, lowest: None }
    }

    /// How many bytes a host function finds at least, less what its own frame takes up to
    /// [`host_call`](super::host_call()). Constant time; signal-safe.
    ///
    /// A panic needs some kilobytes, and with a printed backtrace some ten.
    pub const fn host_reserve(mut self, bytes: usize) -> Self {
        self.reserve = bytes;
        self
    }

    /// The lowest address that host functions and what they call may use, in place of where the stack
    /// ends: a limit above the real end, or the bounds of a stack as the embedder knows them. The address is
    /// believed, and nothing is asked of the system. Constant time; signal-safe.
    pub const fn lowest(mut self, address: usize) -> Self {
        self.lowest = Some(address);
        self
    }
}

impl Default for StackLimits {
    fn default() -> Self {
        Self::new()
    }
}

/// How many bytes preparing a thread needs: most of it is for a registration in a code map. (Measured are 35 KiB,
/// and 53 KiB without optimisation: `tests/traps/stack_needs.rs`.)
const TO_PREPARE: usize = if cfg!(debug_assertions) { 64 << 10 } else { 40 << 10 };

/// What a thread knows of its stack, and what is asked of it.
#[derive(Debug)]
pub(crate) struct StackRoom {
    limits: Cell<StackLimits>,
    /// From here up to where the thread was prepared the stack was seen to be there.
    seen: Cell<usize>,
    page: usize,
}

impl StackRoom {
    /// For the calling thread, if enough is left to prepare it.
    pub(crate) fn to_prepare() -> Result<Self, PrepareError> {
        let (here, page) = (here(), page_size());
        let seen = Cell::new(here & page.wrapping_neg());
        let room = Self { limits: Cell::new(StackLimits::new()), seen, page };
        if room.see(here.saturating_sub(TO_PREPARE)) {
            return Ok(room);
        }
        let left = here.saturating_sub(room.seen.get());
        Err(PrepareError::StackTooSmall { needed: TO_PREPARE, left })
    }

    pub(crate) fn limits(&self) -> StackLimits {
        self.limits.get()
    }

    pub(crate) fn set_limits(&self, limits: StackLimits) {
        self.limits.set(limits);
    }

    /// Whether a host function finds what it is to find. A few comparisons; a system call for each page that
    /// was not seen yet, which lets the first thread's stack grow so far.
    #[inline]
    pub(crate) fn suffices(&self) -> bool {
        let limits = self.limits.get();
        match here().checked_sub(limits.reserve) {
            None => false,
            Some(down_to) => match limits.lowest {
                Some(lowest) => lowest <= down_to,
                None => self.seen.get() <= down_to || self.see(down_to),
            },
        }
    }

    /// Looks at pages that were not seen yet.
    #[cold]
    fn see(&self, down_to: usize) -> bool {
        while self.seen.get() > down_to {
            match self.seen.get().checked_sub(self.page) {
                Some(next) if is_readable(next) => self.seen.set(next),
                _ => return false,
            }
        }
        true
    }
}

/// An address in the caller's frame, or near it.
#[inline]
fn here() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}
