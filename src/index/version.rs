//! One version of the map: a tree that does not change any more, and its number.

use super::limbo::{Garbage, Kind};
use super::tree::Tree;
use super::try_box::{OutOfMemory, try_box_with};
use crate::sync::Liveness;
use core::mem::offset_of;

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

    /// Its header.
    pub(crate) fn garbage(version: *mut Self) -> *mut Garbage {
        version.wrapping_byte_add(offset_of!(Self, garbage)).cast()
    }

    /// The version of a header of kind [`Kind::Version`].
    pub(crate) fn of_garbage(garbage: *mut Garbage) -> *mut Self {
        garbage.wrapping_byte_sub(offset_of!(Self, garbage)).cast()
    }
}
