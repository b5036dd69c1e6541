//! Text offset to function: sorted bytes, and a pure reader that a signal handler may use.
//!
//! The idea: functions are sorted by where they start, and each attribute is a column, so that a
//! search reads starts, sixteen to a cache line, and then one number of each other column.
//!
//! ```text
//!     0        4             4+4N        4+8N              4+12N         4+16N
//!     +--------+-------------+-----------+-----------------+-------------+
//!     | N: u32 | start: N×u32| end: N×u32| namespace: N×u32| index: N×u32|
//!     +--------+-------------+-----------+-----------------+-------------+
//!
//! N                 functions
//! start[i], end[i]  text offsets, half-open, not empty; start[i + 1] >= end[i]
//! namespace[i], index[i]  the function's key
//! ```
//!
//! All numbers are little-endian, none is aligned. An empty table is four zero bytes; no bytes at
//! all are an empty table too. Functions need not touch: between them there is none.

use super::keys::FuncKey;
use super::little_endian::{place, u32_at, widen};
use super::table_error::TableError;
use super::text_offset::{TextOffset, TextRange};
use core::fmt;

const COLUMNS: usize = size_of::<u32>();

/// The functions of an image by text offset, in bytes that it owns.
///
/// ```
/// use pcmap::registry::{FuncKey, FunctionTable, TextOffset, TextRange};
///
/// let range = TextRange::try_from(0x10..0x30_u32).unwrap();
/// let table = FunctionTable::build(&[(range, FuncKey::new(0, 5))])?;
/// assert_eq!(table.find(TextOffset::new(0x2f)), Some((range, FuncKey::new(0, 5))));
/// assert_eq!(table.find(TextOffset::new(0x30)), None);
/// # Ok::<(), pcmap::registry::TableError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionTable {
    bytes: Vec<u8>,
}

impl FunctionTable {
    /// The table of these functions, which ascend and do not overlap; none is empty.
    ///
    /// **Cost**: linear, one allocation. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`TableError::NotAscending`] for a function that is empty, or does not lie behind the one
    /// before it, and without memory [`TableError::OutOfMemory`].
    pub fn build(functions: &[(TextRange, FuncKey)]) -> Result<Self, TableError> {
        let mut end = TextOffset::new(0);
        for (range, _) in functions {
            if range.start() < end || range.is_empty() {
                return Err(TableError::NotAscending { offset: range.start() });
            }
            end = range.end();
        }
        let count = u32::try_from(functions.len()).map_err(|_| TableError::TooMany)?;
        let len = functions.len().checked_mul(16).and_then(|len| len.checked_add(COLUMNS));
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len.ok_or(TableError::TooMany)?)
            .map_err(|_| TableError::OutOfMemory)?;
        bytes.extend(count.to_le_bytes());
        bytes.extend(functions.iter().flat_map(|(range, _)| range.start().get().to_le_bytes()));
        bytes.extend(functions.iter().flat_map(|(range, _)| range.end().get().to_le_bytes()));
        bytes.extend(functions.iter().flat_map(|(_, key)| key.namespace().to_le_bytes()));
        bytes.extend(functions.iter().flat_map(|(_, key)| key.index().to_le_bytes()));
        Ok(Self { bytes })
    }

    /// The function that contains this offset: [`FunctionTableRef::find`].
    #[inline]
    pub fn find(&self, offset: TextOffset) -> Option<(TextRange, FuncKey)> {
        self.view().find(offset)
    }

    /// A reader of the table. Constant time; signal-safe.
    #[inline]
    pub fn view(&self) -> FunctionTableRef<'_> {
        FunctionTableRef::new(&self.bytes)
    }

    /// The table's bytes. Constant time; signal-safe.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for FunctionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// Reads a [`FunctionTable`]'s bytes, wherever they lie.
///
/// Any bytes will do: of bytes that are no table nothing sensible is read, but nothing panics.
///
/// All methods, and the iterator: no allocation, no errors, no panics, **signal-safe** (printing is
/// not).
#[derive(Clone, Copy)]
pub struct FunctionTableRef<'a> {
    bytes: &'a [u8],
}

impl<'a> FunctionTableRef<'a> {
    /// A reader of these bytes. Constant time.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Range and key of the function that contains this offset, if there is one.
    ///
    /// **Cost**: logarithmic, 32 steps at most. **Signal-safe**: yes; reads the table through
    /// checked slices, and nothing else.
    #[inline]
    pub fn find(self, offset: TextOffset) -> Option<(TextRange, FuncKey)> {
        self.get(self.position(offset)?)
    }

    /// The number of the function that contains this offset, counted by where they start. Cost as
    /// [`FunctionTableRef::find`].
    #[inline]
    pub fn position(self, offset: TextOffset) -> Option<usize> {
        // The first that starts behind the offset; the one before it is meant, if it reaches so far.
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.start(middle)? <= offset.get() {
                low = middle.checked_add(1)?;
            } else {
                high = middle;
            }
        }
        let position = low.checked_sub(1)?;
        (offset.get() < self.column(1, position)?).then_some(position)
    }

    /// Range and key of the function with this number, counted by where they start. Constant time.
    #[inline]
    pub fn get(self, position: usize) -> Option<(TextRange, FuncKey)> {
        if position >= self.len() {
            return None;
        }
        let start = TextOffset::new(self.start(position)?);
        let end = TextOffset::new(self.column(1, position)?);
        let key = FuncKey::new(self.column(2, position)?, self.column(3, position)?);
        Some((TextRange::new(start, end).ok()?, key))
    }

    /// How many functions there are. Constant time.
    #[inline]
    pub fn len(self) -> usize {
        u32_at(self.bytes, 0).map_or(0, widen)
    }

    /// Whether there are none. Constant time.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// All functions, ascending. Constant time per function.
    pub fn iter(self) -> impl Iterator<Item = (TextRange, FuncKey)> + Clone + 'a {
        (0..self.len()).map_while(move |position| self.get(position))
    }

    #[inline]
    fn start(self, position: usize) -> Option<u32> {
        self.column(0, position)
    }

    #[inline]
    fn column(self, column: usize, position: usize) -> Option<u32> {
        let index = column.checked_mul(self.len())?.checked_add(position)?;
        u32_at(self.bytes, place(COLUMNS, index, 4)?)
    }
}

impl fmt::Debug for FunctionTableRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionTable")
            .field("functions", &self.len())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Functions with gaps of any length between them, none included.
    fn functions() -> impl Strategy<Value = Vec<(TextRange, FuncKey)>> {
        let one = (0_u32..40, 1_u32..40, any::<u32>(), any::<u32>());
        proptest::collection::vec(one, 0..40).prop_map(|parts| {
            let mut end = TextOffset::new(0);
            let mut functions = Vec::new();
            for (gap, len, namespace, index) in parts {
                let start = end.checked_add(gap).expect("a short text");
                let range = TextRange::from_start_len(start, len).expect("a short text");
                end = range.end();
                functions.push((range, FuncKey::new(namespace, index)));
            }
            functions
        })
    }

    proptest! {
        #[test]
        fn every_offset_finds_what_a_scan_finds(functions in functions()) {
            let table = FunctionTable::build(&functions).expect("sorted functions");
            prop_assert!(table.view().iter().eq(functions.iter().copied()));
            let end = functions.last().map_or(0, |(range, _)| range.end().get());
            for offset in (0..end + 2).map(TextOffset::new) {
                let scan = functions.iter().find(|(range, _)| range.contains(offset));
                prop_assert_eq!(table.find(offset), scan.copied());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            count in prop_oneof![0_u32..8, any::<u32>()],
            offset: u32,
        ) {
            let mut table = count.to_le_bytes().to_vec();
            table.extend(&bytes);
            for bytes in [&table, &bytes] {
                let table = FunctionTableRef::new(bytes);
                let _ = (table.find(TextOffset::new(offset)), table.is_empty());
                prop_assert!(table.iter().count() <= bytes.len() / 16);
            }
        }
    }

    #[test]
    fn what_does_not_ascend_is_refused() {
        let function = |range: core::ops::Range<u32>| {
            (TextRange::try_from(range).expect("a range"), FuncKey::new(0, 0))
        };
        let refused = |functions: &[_]| {
            let error = FunctionTable::build(functions).expect_err("not ascending");
            assert!(matches!(error, TableError::NotAscending { .. }), "{error}");
        };
        refused(&[function(0..10), function(9..20)]);
        refused(&[function(10..20), function(0..10)]);
        refused(&[function(10..10)]);
        assert!(FunctionTable::build(&[function(0..10), function(10..20)]).is_ok());
        assert_eq!(FunctionTable::build(&[]).expect("an empty table").as_bytes(), [0; 4]);
    }

    #[test]
    fn the_ends_of_text() {
        let last = TextRange::try_from(u32::MAX - 1..u32::MAX).expect("a range");
        let table = FunctionTable::build(&[(last, FuncKey::new(1, 2))]).expect("one function");
        assert_eq!(table.find(last.start()), Some((last, FuncKey::new(1, 2))));
        assert_eq!(table.find(last.end()), None);
        assert_eq!(table.find(TextOffset::new(0)), None);
    }
}
