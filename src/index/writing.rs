#![expect(unsafe_code, reason = "takes apart what was never shared")]
//! What a map has from its first write on: the chain's first version, the cell of owned snapshots,
//! and reclamation.

use super::reclamation::Reclamation;
use super::shared::Shared;
use super::try_box::try_box;
use super::version::{Raw, Version};
use super::{MapId, Refusal};
use crate::sync::{ArcSwapAny, AtomicUsize, Liveness, unique_number};

/// What only writers and owners of snapshots use; made by the first write.
pub(super) struct Writing<T> {
    pub(super) life: Liveness,
    /// The first version, for publishing it; not to be followed once something is published.
    pub(super) root: Raw<T>,
    /// Owned snapshots come from here: it holds the version that the last one was taken of, until
    /// that is displaced and somebody reclaims.
    pub(super) cell: ArcSwapAny<Option<Shared<Version<T>>>>,
    /// How often a version was put there, and up to which of these times it was seen empty again.
    pub(super) put_in_cell: AtomicUsize,
    pub(super) seen_empty: AtomicUsize,
    pub(super) reclamation: Reclamation<T>,
    pub(super) id: MapId,
    /// How many burials (see `Index::buried`) a linked version accounts for.
    pub(super) tidied: AtomicUsize,
}

impl<T> Writing<T> {
    pub(super) fn try_new() -> Result<Box<Self>, Refusal> {
        let root = Shared::try_new(Version::root()).map_err(|_| Refusal::OutOfMemory)?;
        let writing = Self {
            life: Liveness::new(),
            root: root.as_raw(),
            cell: ArcSwapAny::new(None),
            put_in_cell: AtomicUsize::new(0),
            seen_empty: AtomicUsize::new(0),
            reclamation: Reclamation::new(root),
            id: MapId(unique_number()),
            tidied: AtomicUsize::new(0),
        };
        try_box(writing).map_err(|writing| {
            Self::discard(writing);
            Refusal::OutOfMemory
        })
    }

    /// Drops what was never installed, with the chain of one version that it began.
    pub(super) fn discard(self) {
        // SAFETY: (`Reclamation::finish`) 1. consumed; 2. nobody else has seen it.
        unsafe { self.reclamation.finish() };
    }
}
