//! A read-side critical section: the time in which a reader holds what it loads.

use super::eras::Eras;
use crate::sync::{AtomicUsize, edge};

/// While it lives, nothing is freed that was reachable when it was entered.
pub(crate) struct Section<'a> {
    eras: &'a Eras,
    /// Where the reader is counted, on one side of one shard of the current era. `None`: everywhere.
    readers: Option<&'a AtomicUsize>,
    /// The number of the era that it was entered in.
    number: u64,
    /// Counted everywhere: on both sides of this shard of the first so many objects.
    shard: usize,
    objects: usize,
}

impl<'a> Section<'a> {
    #[inline(always)]
    pub(super) fn here(eras: &'a Eras, readers: &'a AtomicUsize, number: u64) -> Self {
        Self { eras, readers: Some(readers), number, shard: 0, objects: 0 }
    }

    pub(super) fn everywhere(eras: &'a Eras, shard: usize, objects: usize, number: u64) -> Self {
        Self { eras, readers: None, number, shard, objects }
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
        match self.readers {
            // Ordering [leave]: Release; pairs with Acquire in `Era::is_quiet`.
            //   seen:     all reads of this section come before the freeing that it allows;
            //   not seen: the count is not zero yet.
            Some(readers) => {
                readers.fetch_sub(1, edge::leave());
            }
            None => self.eras.leave_everywhere(self.shard, self.objects),
        }
    }
}
