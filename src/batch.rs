//! Many ranges on their way into the index, such that all of them can be handed back.

use crate::error::Refused;
use crate::index::Index;
use crate::index::address_range::{CodeRange, RangeError};
use crate::index::entry::Item;

/// A batch: values in the order they came, then entries made of them, last first.
pub(crate) struct Batch<T> {
    ranges: Vec<CodeRange>,
    values: Vec<T>,
    items: Vec<Item<T>>,
}

impl<T> Batch<T> {
    pub(crate) const fn new() -> Self {
        Self { ranges: Vec::new(), values: Vec::new(), items: Vec::new() }
    }

    /// Takes everything from `items`, up to the first invalid range.
    pub(crate) fn fill<R>(
        &mut self,
        items: &mut impl Iterator<Item = (R, T)>,
    ) -> Result<(), Refused>
    where
        R: TryInto<CodeRange>,
        R::Error: Into<RangeError>,
    {
        loop {
            // Room first: what is taken from the iterator must be kept.
            self.ranges.try_reserve(1).map_err(|_| Refused::OutOfMemory)?;
            self.values.try_reserve(1).map_err(|_| Refused::OutOfMemory)?;
            let Some((range, value)) = items.next() else { return Ok(()) };
            self.values.push(value);
            self.ranges
                .push(range.try_into().map_err(|error| Refused::InvalidRange(error.into()))?);
        }
    }

    /// Inserts all, in one publication; gives the sequence number of the version that has them (0:
    /// there was nothing to insert), and a vector with room for one thing per entry.
    pub(crate) fn insert_into<R>(&mut self, index: &Index<T>) -> Result<(u64, Vec<R>), Refused> {
        let mut results = Vec::new();
        results.try_reserve_exact(self.values.len()).map_err(|_| Refused::OutOfMemory)?;
        let mut sorted = Vec::new();
        sorted.try_reserve_exact(self.values.len()).map_err(|_| Refused::OutOfMemory)?;
        self.items.try_reserve_exact(self.values.len()).map_err(|_| Refused::OutOfMemory)?;
        while let Some(value) = self.values.pop() {
            match Item::try_new(self.ranges[self.values.len()], value) {
                Ok(item) => self.items.push(item),
                Err(value) => {
                    self.values.push(value);
                    return Err(Refused::OutOfMemory);
                }
            }
        }
        sorted.extend(self.items.iter().filter(|item| !item.range.is_empty()).cloned());
        sorted.sort_unstable_by_key(|item| item.range);
        let sequence = if sorted.is_empty() { 0 } else { index.insert(&sorted)? };
        Ok((sequence, results))
    }

    /// The inserted entries, in the order that their ranges came in.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.items.into_iter().rev()
    }

    /// All values back, in the order they came, of a batch that was not inserted.
    pub(crate) fn into_values(mut self) -> Vec<T> {
        // The values left the vector one by one, so there is room for each.
        while let Some(item) = self.items.pop() {
            self.values.push(item.take_back());
        }
        self.values
    }
}
