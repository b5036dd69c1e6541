#![expect(unsafe_code, reason = "follows the published pointer")]
//! One version of the map: a tree that does not change any more, and its number.

use super::limbo::{Garbage, Kind};
use super::tree::Tree;
use super::try_box::{OutOfMemory, try_box_with};
use crate::sync::Liveness;
use core::mem::offset_of;
use core::ptr;

/// What the published pointer leads to.
#[repr(C)] // what a lookup reads comes first
pub(crate) struct Version<T> {
    pub(crate) tree: Tree<T>,
    /// How many versions came before and with it.
    pub(crate) sequence: u64,
    pub(super) life: Liveness,
    garbage: Garbage,
}

impl<T> Version<T> {
    /// A version that is born in this era.
    pub(crate) fn try_new(
        tree: Tree<T>,
        sequence: u64,
        born: u64,
    ) -> Result<Box<Self>, OutOfMemory> {
        let garbage = Garbage::new(Kind::Version, born, 0);
        try_box_with(|| Self { tree, sequence, life: Liveness::new(), garbage })
    }

    /// Stands for a version without ranges, so that an empty map takes no memory: a pointer to nothing, which
    /// carries the number.
    pub(super) const fn empty(sequence: u64) -> *mut Self {
        ptr::without_provenance_mut((sequence as usize) << 1 | 1)
    }

    /// The version, if that is one.
    ///
    /// Signal-safe: follows a pointer.
    ///
    /// # Safety
    ///
    /// 1. `raw` is from `empty`, or a version that is alive throughout `'a`.
    #[inline(always)]
    pub(super) unsafe fn peek<'a>(raw: *mut Self) -> Option<&'a Self> {
        if raw.addr() & 1 != 0 {
            return None;
        }
        // SAFETY: by 1. alive.
        let version = unsafe { &*raw };
        version.life.read();
        Some(version)
    }

    /// The number of such a version or stand-in.
    ///
    /// # Safety
    ///
    /// 1. As for `peek`.
    pub(super) unsafe fn sequence_of(raw: *mut Self) -> u64 {
        // SAFETY: (`Version::peek`) 1. by 1.
        unsafe { Self::peek(raw) }.map_or((raw.addr() >> 1) as u64, |version| version.sequence)
    }

    /// Its header.
    pub(crate) fn garbage(version: *mut Self) -> *mut Garbage {
        version.wrapping_byte_add(offset_of!(Self, garbage)).cast()
    }

    /// The version of a header of kind [`Kind::Version`].
    pub(crate) fn of_garbage(garbage: *mut Garbage) -> *mut Self {
        garbage.wrapping_byte_sub(offset_of!(Self, garbage)).cast()
    }
}
