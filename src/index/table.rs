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
            if removed || slot.entry.is_buried() {
                left_out += 1;
            } else {
                place(&mut slots, &slot.entry, false)?;
            }
        }
        for entry in add {
            place(&mut slots, entry, true)?;
        }
        Ok(Successor { table: Self { slots }, left_out })
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
            let (added, existing) = if added { (range, last.range) } else { (last.range, range) };
            return Err(Refusal::Overlap { added, existing });
        }
    }
    slots.push(Slot { range, entry: entry.clone() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::explore;

    fn range(start: usize, end: usize) -> CodeRange {
        CodeRange::try_from(start..end).expect("a range")
    }

    fn entry(start: usize, end: usize) -> Shared<Entry<usize>> {
        Shared::try_new(Entry::new(range(start, end), start)).ok().expect("memory")
    }

    fn with(table: &Table<usize>, add: &[Shared<Entry<usize>>]) -> Result<Table<usize>, Refusal> {
        table.successor(&Change { add, remove: &[] }).map(|successor| successor.table)
    }

    #[test]
    fn every_address_is_found_in_its_slot_and_nowhere_else() {
        explore(|| {
            for n in 0..9 {
                // Slots of length 3 at multiples of 4 or, every third, touching the next.
                let entries: Vec<_> = (0..n)
                    .map(|i| entry(8 + i * 4, 8 + i * 4 + 3 + usize::from(i % 3 == 0)))
                    .collect();
                let table = with(&Table::empty(), &entries).expect("no overlap");
                for pc in 0..8 + n * 4 + 8 {
                    let expected = entries.iter().find(|entry| entry.range.contains(pc));
                    let found = table.find(Pc::new(pc)).map(|slot| slot.range);
                    assert_eq!(found, expected.map(|entry| entry.range), "n = {n}, pc = {pc}");
                }
            }
        });
    }

    #[test]
    fn overlaps_are_refused_with_both_ranges() {
        explore(|| {
            let table = with(&Table::empty(), &[entry(10, 20), entry(30, 40)]).expect("apart");
            let refused = |added: (usize, usize)| {
                with(&table, &[entry(added.0, added.1)]).err().map(|refusal| match refusal {
                    Refusal::Overlap { added: a, existing } => {
                        assert_eq!(a, range(added.0, added.1));
                        existing.start()
                    }
                    Refusal::OutOfMemory => panic!("there is memory"),
                })
            };
            assert_eq!(refused((0, 10)), None);
            assert_eq!(refused((20, 30)), None);
            assert_eq!(refused((40, 50)), None);
            assert_eq!(refused((0, 11)), Some(10));
            assert_eq!(refused((12, 13)), Some(10));
            assert_eq!(refused((10, 20)), Some(10));
            assert_eq!(refused((19, 31)), Some(10));
            assert_eq!(refused((39, 41)), Some(30));
            assert_eq!(refused((0, 50)), Some(10));
            let batch = [entry(21, 25), entry(24, 26)];
            assert!(matches!(with(&table, &batch), Err(Refusal::Overlap { .. })));
        });
    }

    #[test]
    fn one_pass_adds_removes_and_tidies() {
        explore(|| {
            let old = [entry(10, 20), entry(20, 30), entry(30, 40), entry(40, 50)];
            let table = with(&Table::empty(), &old).expect("no overlap");
            old[3].bury();
            let stranger = entry(10, 20); // the same range, but not in the table
            let successor = table
                .successor(&Change {
                    add: &[entry(0, 5), entry(22, 28), entry(40, 60)],
                    remove: &[stranger, old[1].clone()],
                })
                .expect("what is in the way is removed or buried");
            let starts: Vec<_> =
                successor.table.slots().iter().map(|slot| slot.range.start()).collect();
            assert_eq!(starts, [0, 10, 22, 30, 40]);
            assert_eq!(successor.left_out, 2);
        });
    }
}
