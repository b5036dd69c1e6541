//! A read-side critical section: the time in which a reader holds what it loads.

use super::eras::Eras;
use crate::sync::{AtomicUsize, edge};

/// While it lives, nothing is freed that was reachable when it was entered.
pub(crate) struct Section<'a> {
    eras: &'a Eras,
    counted: Counted<'a>,
    /// The number of the era that it was entered in.
    number: u64,
}

/// Where the reader is counted.
pub(super) enum Counted<'a> {
    /// On one side of one shard of the current era.
    Here(&'a AtomicUsize),
    /// On both sides of this shard of the first so many objects.
    Everywhere { shard: usize, objects: usize },
}

impl<'a> Section<'a> {
    #[inline(always)]
    pub(super) fn new(eras: &'a Eras, counted: Counted<'a>, number: u64) -> Self {
        Self { eras, counted, number }
    }

    /// The era that what is made in this section is born in.
    pub(crate) fn era(&self) -> u64 {
        self.number
    }
}

impl Drop for Section<'_> {
    /// Leaves. Wait-free: one subtraction. Signal-safe: atomics of the map only.
    #[inline(always)]
    fn drop(&mut self) {
        match self.counted {
            // Ordering [leave]: Release; pairs with Acquire in `Era::is_quiet`.
            //   seen:     all reads of this section come before the freeing that it allows;
            //   not seen: the count is not zero yet.
            Counted::Here(readers) => {
                readers.fetch_sub(1, edge::leave());
            }
            Counted::Everywhere { shard, objects } => self.eras.leave_everywhere(shard, objects),
        }
    }
}
