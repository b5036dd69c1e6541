#![expect(unsafe_code, reason = "follows the published pointer")]
//! One version of the map: a tree that does not change any more, and its number.
//!
//! A version stands in the header of its root node. So a write makes one block less, and a lookup
//! follows one pointer less.

use super::node::Node;
use super::tree::Tree;
use core::ptr;

/// What the published pointer leads to, in a node.
#[repr(C)] // what a lookup reads comes first
pub(crate) struct Version<T> {
    /// Its root is the node that this is in. (A node that is not the root of a version has no more than
    /// that here.)
    pub(crate) tree: Tree<T>,
    /// How many versions came before and with it.
    pub(crate) sequence: u64,
}

impl<T> Version<T> {
    /// Stands for a version without ranges, so that an empty map takes no memory: a pointer to nothing, which
    /// carries the number.
    pub(super) const fn empty(sequence: u64) -> *mut Node<T> {
        ptr::without_provenance_mut((sequence as usize) << 1 | 1)
    }

    /// The version, if that is one.
    ///
    /// Signal-safe: follows a pointer.
    ///
    /// # Safety
    ///
    /// 1. `raw` is from `empty`, or the root of a version that is alive throughout `'a`.
    #[inline(always)]
    pub(super) unsafe fn peek<'a>(raw: *mut Node<T>) -> Option<&'a Self> {
        if raw.addr() & 1 != 0 {
            return None;
        }
        // SAFETY: by 1. alive.
        let root = unsafe { &*raw };
        root.life.read();
        Some(&root.version)
    }

    /// The number of such a version or stand-in.
    ///
    /// # Safety
    ///
    /// 1. As for `peek`.
    pub(super) unsafe fn sequence_of(raw: *mut Node<T>) -> u64 {
        // SAFETY: (`Version::peek`) 1. by 1.
        unsafe { Self::peek(raw) }.map_or((raw.addr() >> 1) as u64, |version| version.sequence)
    }
}
