#![expect(unsafe_code, reason = "maps a stack and hands it to the kernel")]
//! The stack that a thread's handlers run on: a guest may have used up the thread's own.
//!
//! Handlers nest on it: that of a fault, a profiler's on top, and whatever was installed before ours
//! and is handed a fault that is none of ours. A frame with the vector state of a large x86-64 takes
//! some ten kilobytes. The page below is a guard, so that a handler that needs more faults, and does
//! not write over somebody's memory.

use crate::sys::pages::{self, ErrorNumber, Use, round_up};
use core::ops::Range;
use core::ptr::{self, NonNull};

/// Room for handlers' own frames, beside those that the kernel makes.
const ROOM: usize = 64 << 10;
/// Frames of the kernel's that may be on the stack at a time.
const NESTED: usize = 4;

/// How long a stack has to be to be sufficient, in bytes.
pub(crate) fn sufficient() -> usize {
    ROOM + NESTED * frame_size()
}

/// What the kernel needs for one frame, in bytes.
fn frame_size() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // `AT_MINSIGSTKSZ`, since Linux 5.14; 0 before.
        const KEY: libc::c_ulong = 51;
        // SAFETY: asks for a number; an unknown key gives 0.
        let told = unsafe { libc::getauxval(KEY) } as usize;
        told.max(libc::MINSIGSTKSZ)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    libc::MINSIGSTKSZ
}

/// The calling thread's alternate stack, if it has one.
pub(crate) fn current() -> Option<Range<usize>> {
    let mut current = none();
    // SAFETY: only asks, and there is room for the answer.
    let answer = unsafe { libc::sigaltstack(ptr::null(), &raw mut current) };
    range(&current).filter(|_| answer == 0)
}

/// What the kernel tells of a stack, as addresses; `None` for none. Signal-safe.
pub(crate) fn range(stack: &libc::stack_t) -> Option<Range<usize>> {
    let start = stack.ss_sp.addr();
    let end = start.checked_add(stack.ss_size)?;
    (stack.ss_flags & libc::SS_DISABLE == 0 && start < end).then_some(start..end)
}

const fn none() -> libc::stack_t {
    libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 }
}

/// An alternate stack of our own, in force for the thread that made it until it is dropped there.
pub(crate) struct AlternateStack {
    /// The guard page, then the stack.
    pages: NonNull<u8>,
    len: usize,
    guard: usize,
    /// What the thread had before.
    before: libc::stack_t,
}

impl AlternateStack {
    /// # Errors
    ///
    /// What the system says; nothing has changed.
    pub(crate) fn install() -> Result<Self, ErrorNumber> {
        let guard = round_up(1).ok_or(libc::ENOMEM)?;
        let size = round_up(sufficient()).ok_or(libc::ENOMEM)?;
        let len = guard.checked_add(size).ok_or(libc::ENOMEM)?;
        let pages = pages::map(len)?;
        // Gives the pages back if the rest fails.
        let mut stack = Self { pages, len, guard, before: none() };
        // SAFETY: (`protect`) 1. the first page of the new mapping; 2. nobody uses it.
        let installed = unsafe { pages::protect(pages, guard, Use::Nothing) }
            .and_then(|()| set(&stack.as_kernel_wants()));
        match installed {
            Ok(before) => {
                stack.before = before;
                Ok(stack)
            }
            Err(error) => {
                stack.unmap();
                core::mem::forget(stack);
                Err(error)
            }
        }
    }

    /// Its addresses: half-open, without the guard.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.pages.as_ptr().addr();
        start + self.guard..start + self.len
    }

    fn as_kernel_wants(&self) -> libc::stack_t {
        let ss_sp = self.pages.as_ptr().wrapping_add(self.guard).cast();
        libc::stack_t { ss_sp, ss_flags: 0, ss_size: self.len - self.guard }
    }

    /// For a thread that is no more, and left it: whatever is in force is another thread's.
    pub(crate) fn unmap_left(self) {
        self.unmap();
        core::mem::forget(self);
    }

    fn unmap(&self) {
        // SAFETY: (`unmap`) 1. the whole mapping; 2. it is not in force, so no handler is on it.
        unsafe { pages::unmap(self.pages, self.len) };
    }
}

/// Puts a stack in force; gives the one before.
fn set(stack: &libc::stack_t) -> Result<libc::stack_t, ErrorNumber> {
    let mut before = none();
    // SAFETY: memory of `stack` is nobody else's, by the callers; there is room for the answer.
    match unsafe { libc::sigaltstack(stack, &raw mut before) } {
        0 => Ok(before),
        _ => Err(pages::last_error()),
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        let goes = match current() {
            // If somebody has put another stack in force since, that one stays. So does the memory of
            // this one, for whoever it was was told of it, and may put it back.
            Some(other) if other != self.range() => false,
            Some(_) => set(&self.before).is_ok(),
            None => true,
        };
        if goes {
            self.unmap();
        }
    }
}

impl core::fmt::Debug for AlternateStack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AlternateStack").field("range", &self.range()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{AlternateStack, current, sufficient};

    #[test]
    fn in_force_while_it_lives() {
        let before = current();
        let stack = AlternateStack::install().expect("memory");
        assert_eq!(current(), Some(stack.range()));
        assert!(stack.range().len() >= sufficient());
        let inner = AlternateStack::install().expect("memory");
        assert_eq!(current(), Some(inner.range()));
        drop(inner);
        assert_eq!(current(), Some(stack.range()));
        drop(stack);
        assert_eq!(current(), before);
    }
}
