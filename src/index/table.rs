//! The immutable table of one version: entries sorted by address.
//!
//! Invariant: the slots are sorted by start, none is empty, and no two overlap; so they are
//! sorted by end too, and an address lies in at most one.

use super::Refusal;
use super::address_range::{CodeRange, Pc};
use super::entry::Entry;
use super::shared::Shared;

/// One entry in a table: the bounds, where the search reads them, and the entry itself.
pub(crate) struct Slot<T> {
    pub(crate) range: CodeRange,
    pub(crate) entry: Shared<Entry<T>>,
}

/// Entries sorted by address.
pub(crate) struct Table<T> {
    slots: Vec<Slot<T>>,
}

/// A table built from another, and what was left behind.
pub(crate) struct Successor<T> {
    pub(crate) table: Table<T>,
    /// How many entries of the predecessor it lacks: removed ones and buried ones.
    pub(crate) left_out: usize,
    /// How many of those were buried.
    pub(crate) tidied: usize,
}

/// What a write does to a table. Both lists are sorted by start.
pub(crate) struct Change<'c, T> {
    pub(crate) add: &'c [Shared<Entry<T>>],
    pub(crate) remove: &'c [Shared<Entry<T>>],
}

impl<T> Table<T> {
    pub(crate) const fn empty() -> Self {
        Self { slots: Vec::new() }
    }

    /// The memory that the slots take, in bytes (entries are counted apart).
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T>>()
    }

    /// All slots, in address order.
    pub(crate) fn slots(&self) -> &[Slot<T>] {
        &self.slots
    }

    /// The index of the last slot that starts at or before `pc`; 0 if there is none.
    ///
    /// Wait-free: ceil(log2(n)) steps of one comparison each, whatever the answer.
    ///
    /// Signal-safe: reads this table only; `get` in place of indexing leaves no panic.
    #[inline]
    pub(crate) fn last_at_or_before(&self, pc: Pc) -> usize {
        let mut low = 0_usize;
        let mut len = self.slots.len();
        // The answer lies in `low..low + len`, or is 0 because every slot starts behind `pc`.
        while len > 1 {
            let half = len / 2;
            let middle = low.wrapping_add(half);
            if self.slots.get(middle).is_some_and(|slot| slot.range.start() <= pc.address()) {
                low = middle;
            }
            len = len.wrapping_sub(half);
        }
        low
    }

    /// The slot whose range contains `pc`.
    ///
    /// Wait-free and signal-safe, as [`Table::last_at_or_before`] is.
    #[inline]
    pub(crate) fn find(&self, pc: Pc) -> Option<&Slot<T>> {
        self.slots.get(self.last_at_or_before(pc)).filter(|slot| slot.range.contains(pc))
    }

    /// The table after `change`, in one pass; buried entries are left out as well.
    ///
    /// Entries to remove that are not in the table are passed over.
    pub(crate) fn successor(&self, change: &Change<'_, T>) -> Result<Successor<T>, Refusal> {
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(self.slots.len() + change.add.len())
            .map_err(|_| Refusal::OutOfMemory)?;
        let mut left_out = 0;
        let mut tidied = 0;
        let mut add = change.add.iter().peekable();
        let mut remove = change.remove.iter().peekable();

        for slot in &self.slots {
            while let Some(entry) = add.next_if(|entry| entry.range.start() < slot.range.start()) {
                place(&mut slots, entry, true)?;
            }
            while remove.next_if(|entry| entry.range.start() < slot.range.start()).is_some() {}
            let removed = remove
                .peek()
                .is_some_and(|entry| core::ptr::eq(entry.as_raw(), slot.entry.as_raw()));
            let buried = slot.entry.is_buried();
            if removed || buried {
                left_out += 1;
                tidied += usize::from(buried);
            } else {
                place(&mut slots, &slot.entry, false)?;
            }
        }
        for entry in add {
            place(&mut slots, entry, true)?;
        }
        Ok(Successor { table: Self { slots }, left_out, tidied })
    }
}

/// Appends an entry that starts at or behind everything already in `slots`, if it overlaps none.
fn place<T>(
    slots: &mut Vec<Slot<T>>,
    entry: &Shared<Entry<T>>,
    added: bool,
) -> Result<(), Refusal> {
    let range = entry.range;
    if let Some(last) = slots.last() {
        if last.range.overlaps(range) {
            let (added, existing) =
                if added { (range, last.range) } else { (last.range, range) };
            return Err(Refusal::Overlap { added, existing });
        }
    }
    slots.push(Slot { range, entry: entry.clone() });
    Ok(())
}
