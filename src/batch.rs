//! Many ranges on their way into the index, such that all of them can be handed back.

use crate::address_range::{CodeRange, RangeError};
use crate::error::Refused;
use crate::index::Index;
use crate::index::entry::Item;
use crate::index::slot::Slot;
use crate::memory::OutOfMemory;

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
            let more = self.values.len() + 1;
            self.ranges.try_reserve(1).map_err(|_| OutOfMemory::of::<CodeRange>(more))?;
            self.values.try_reserve(1).map_err(|_| OutOfMemory::of::<T>(more))?;
            let Some((range, value)) = items.next() else { return Ok(()) };
            self.values.push(value);
            self.ranges
                .push(range.try_into().map_err(|error| Refused::InvalidRange(error.into()))?);
        }
    }

    /// Inserts all, in one publication; gives a vector with room for one thing per entry.
    pub(crate) fn insert_into<R>(&mut self, index: &Index<T>) -> Result<Vec<R>, Refused> {
        let len = self.values.len();
        let mut results = Vec::new();
        results.try_reserve_exact(len).map_err(|_| OutOfMemory::of::<R>(len))?;
        let mut sorted = Vec::new();
        sorted.try_reserve_exact(len).map_err(|_| OutOfMemory::of::<Slot<T>>(len))?;
        self.items.try_reserve_exact(len).map_err(|_| OutOfMemory::of::<Item<T>>(len))?;
        while let Some(value) = self.values.pop() {
            match Item::try_new(self.ranges[self.values.len()], value) {
                Ok(item) => self.items.push(item),
                Err((error, value)) => {
                    self.values.push(value);
                    return Err(error.into());
                }
            }
        }
        sorted.extend(self.items.iter().filter(|item| !item.range.is_empty()).map(Slot::of_item));
        sorted.sort_unstable_by_key(Slot::start);
        if !sorted.is_empty() {
            index.insert(&self.items, &sorted)?;
        }
        Ok(results)
    }

    /// The inserted entries, in the order that their ranges came in.
    pub(crate) fn into_items(self) -> impl Iterator<Item = Item<T>> {
        self.items.into_iter().rev()
    }

    /// All values back, in the order they came, of a batch that was not inserted.
    pub(crate) fn into_values(mut self) -> Vec<T> {
        // The values left the vector one by one, so there is room for each.
        while let Some(item) = self.items.pop() {
            self.values.extend(item.into_value());
        }
        self.values
    }
}
