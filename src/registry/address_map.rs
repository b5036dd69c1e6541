//! Text offset to source offset: sorted bytes in blocks, and a pure reader.
//!
//! The idea: this is the largest of the tables and read by ordinary threads only, so it is packed.
//! Entries stand in blocks of 64; each block is decoded from its start, and an index of where
//! blocks start, in text and in the packed bytes, is searched by halving. An instruction is close
//! to the one before it, in text as in the source, so an entry takes two bytes as a rule.
//!
//! ```text
//!     0        4        8                        8+8B
//!     +--------+--------+------------------------+------------------------------+
//!     | N: u32 | B: u32 | (first, body: 2×u32)×B | block | block | …            |
//!     +--------+--------+------------------------+------------------------------+
//!                                                   |
//!                        entry | entry | … <--------+   64 to a block; the last has the rest
//!                          |
//!                          +-- text: varint     bytes of text from the entry before (the first of
//!                          |                    a block: 0)
//!                          +-- source: varint   0: no source; else 1 + zigzag(source - the last
//!                                               source in this block, or 0)
//!
//! N      entries             first  text offset of a block's first entry; ascending
//! B      blocks, ⌈N / 64⌉    body   where the block starts, from 8+8B
//! ```
//!
//! Numbers of fixed size are little-endian, none is aligned. A varint is seven bits a byte, the
//! lowest first, the upper bit set in all but the last; zigzag puts 0, -1, 1, -2, … on 0, 1, 2, 3, …
//! No bytes at all are an empty map.

use super::little_endian::{place, u32_at, widen};
use super::table_error::TableError;
use super::text_offset::{SourceOffset, TextOffset};
use super::varint;
use core::fmt;

const BLOCK: usize = 64;
/// Where the index starts.
const INDEX: usize = 2 * size_of::<u32>();

/// The source offsets of an image by text offset, in bytes that it owns.
///
/// An entry speaks for the text from its offset up to the next entry's, wherever functions end.
///
/// ```
/// use pcmap::registry::{AddressMap, SourceOffset, TextOffset};
///
/// let entries = [
///     (TextOffset::new(0x10), Some(SourceOffset::new(0x52))),
///     (TextOffset::new(0x18), None),
/// ];
/// let map = AddressMap::build(&entries)?;
/// assert_eq!(map.find(TextOffset::new(0x17)), Some(SourceOffset::new(0x52)));
/// assert_eq!(map.find(TextOffset::new(0x18)), None);
/// assert_eq!(map.find(TextOffset::new(0x0f)), None);
/// assert!(map.view().iter().eq(entries));
/// # Ok::<(), pcmap::registry::TableError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct AddressMap {
    bytes: Vec<u8>,
}

impl AddressMap {
    /// The map of these entries, which ascend by text offset.
    ///
    /// **Cost**: linear. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`TableError::NotAscending`] if an offset is not above the one before it,
    /// [`TableError::TooMany`] if 32 bits cannot count the bytes, and without memory
    /// [`TableError::OutOfMemory`].
    pub fn build(entries: &[(TextOffset, Option<SourceOffset>)]) -> Result<Self, TableError> {
        if let Some(at) = entries.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(TableError::NotAscending { offset: entries[at + 1].0 });
        }
        let count = u32::try_from(entries.len()).map_err(|_| TableError::TooMany)?;
        let blocks = entries.chunks(BLOCK).len();
        let mut bytes = Vec::new();
        // Two bytes an entry, and more when they turn out to be longer.
        let expected = blocks.checked_mul(8).and_then(|len| len.checked_add(INDEX));
        let expected = expected.and_then(|len| len.checked_add(entries.len().checked_mul(2)?));
        reserve(&mut bytes, expected.ok_or(TableError::TooMany)?)?;
        bytes.extend(count.to_le_bytes());
        bytes.extend((blocks as u32).to_le_bytes());
        bytes.resize(INDEX + blocks * 8, 0);
        let bodies = bytes.len();
        for (number, block) in entries.chunks(BLOCK).enumerate() {
            let first = block[0].0;
            let body = u32::try_from(bytes.len() - bodies).map_err(|_| TableError::TooMany)?;
            let slot = INDEX + number * 8;
            bytes[slot..slot + 4].copy_from_slice(&first.get().to_le_bytes());
            bytes[slot + 4..slot + 8].copy_from_slice(&body.to_le_bytes());
            write_block(&mut bytes, block)?;
        }
        Ok(Self { bytes })
    }

    /// The source of the text at this offset: [`AddressMapRef::find`].
    pub fn find(&self, offset: TextOffset) -> Option<SourceOffset> {
        self.view().find(offset)
    }

    /// A reader of the map. Constant time; signal-safe.
    pub fn view(&self) -> AddressMapRef<'_> {
        AddressMapRef::new(&self.bytes)
    }

    /// The map's bytes. Constant time; signal-safe.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn reserve(bytes: &mut Vec<u8>, additional: usize) -> Result<(), TableError> {
    bytes.try_reserve(additional).map_err(|_| TableError::OutOfMemory)
}

fn write_block(
    bytes: &mut Vec<u8>,
    block: &[(TextOffset, Option<SourceOffset>)],
) -> Result<(), TableError> {
    let (mut text, mut source) = (block[0].0.get(), 0_i64);
    for (offset, found) in block {
        reserve(bytes, 2 * varint::LONGEST)?;
        varint::write(bytes, u64::from(offset.get() - text));
        text = offset.get();
        let token = found.map_or(0, |found| {
            let step = i64::from(found.get()) - source;
            source = i64::from(found.get());
            1 + ((step << 1) ^ (step >> 63)).cast_unsigned()
        });
        varint::write(bytes, token);
    }
    Ok(())
}

impl fmt::Debug for AddressMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// Reads an [`AddressMap`]'s bytes, wherever they lie.
///
/// Any bytes will do: of bytes that are no map nothing sensible is read, but nothing panics.
///
/// All methods, and the iterator: no allocation, no errors, no panics, signal-safe (printing is
/// not).
#[derive(Clone, Copy)]
pub struct AddressMapRef<'a> {
    bytes: &'a [u8],
}

impl<'a> AddressMapRef<'a> {
    /// A reader of these bytes. Constant time.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The source of the text at this offset; none if the entry that speaks for it has none, or
    /// there is no such entry.
    ///
    /// **Cost**: logarithmic, and 64 entries decoded. **Signal-safe**: yes, but slower than what
    /// handlers should do.
    pub fn find(self, offset: TextOffset) -> Option<SourceOffset> {
        self.entry(offset).and_then(|(_, source)| source)
    }

    /// The entry that speaks for the text at this offset: the last one at or before it. Cost as
    /// [`AddressMapRef::find`].
    pub fn entry(self, offset: TextOffset) -> Option<(TextOffset, Option<SourceOffset>)> {
        let (mut low, mut high) = (0, self.blocks());
        while low < high {
            let middle = low.midpoint(high);
            if self.first(middle)? <= offset.get() {
                low = middle.checked_add(1)?;
            } else {
                high = middle;
            }
        }
        self.block(low.checked_sub(1)?)?.take_while(|&(at, _)| at <= offset).last()
    }

    /// How many entries there are. Constant time.
    pub fn len(self) -> usize {
        u32_at(self.bytes, 0).map_or(0, widen)
    }

    /// Whether there are none. Constant time.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// All entries, ascending by text offset. Constant time per entry.
    pub fn iter(self) -> impl Iterator<Item = (TextOffset, Option<SourceOffset>)> + Clone + 'a {
        (0..self.blocks()).map_while(move |number| self.block(number)).flatten()
    }

    fn blocks(self) -> usize {
        u32_at(self.bytes, size_of::<u32>()).map_or(0, widen)
    }

    /// The text offset of a block's first entry.
    fn first(self, block: usize) -> Option<u32> {
        u32_at(self.bytes, place(INDEX, block, 8)?)
    }

    fn block(self, number: usize) -> Option<Block<'a>> {
        let before = number.checked_mul(BLOCK)?;
        let text = self.first(number)?;
        let body = u32_at(self.bytes, place(INDEX, number, 8)?.checked_add(4)?).map(widen)?;
        let bodies = place(INDEX, self.blocks(), 8)?;
        Some(Block {
            bytes: self.bytes.get(bodies.checked_add(body)?..)?,
            left: self.len().checked_sub(before)?.min(BLOCK),
            text,
            source: 0,
        })
    }
}

/// The entries of one block.
#[derive(Clone)]
struct Block<'a> {
    bytes: &'a [u8],
    left: usize,
    text: u32,
    source: u32,
}

impl Iterator for Block<'_> {
    type Item = (TextOffset, Option<SourceOffset>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let step = u32::try_from(varint::read(&mut self.bytes)?).ok()?;
        self.text = self.text.checked_add(step)?;
        let source = match varint::read(&mut self.bytes)?.checked_sub(1) {
            None => None,
            Some(zigzag) => {
                // At most 35 bits, so nothing is lost.
                let step = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
                self.source = u32::try_from(i64::from(self.source).checked_add(step)?).ok()?;
                Some(SourceOffset::new(self.source))
            }
        };
        Some((TextOffset::new(self.text), source))
    }
}

impl fmt::Debug for AddressMapRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressMap")
            .field("entries", &self.len())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn entries() -> impl Strategy<Value = BTreeMap<TextOffset, Option<SourceOffset>>> {
        let offset = prop_oneof![0_u32..800, any::<u32>()].prop_map(TextOffset::new);
        let source = prop_oneof![Just(u32::MAX), Just(0), 0_u32..1000, any::<u32>()];
        let source = proptest::option::of(source.prop_map(SourceOffset::new));
        proptest::collection::btree_map(offset, source, 0..300)
    }

    proptest! {
        #[test]
        fn every_offset_finds_the_entry_before_it(entries in entries()) {
            let sorted: Vec<_> = entries.iter().map(|(&at, &source)| (at, source)).collect();
            let map = AddressMap::build(&sorted).expect("sorted entries");
            prop_assert_eq!(map.view().len(), entries.len());
            prop_assert!(map.view().iter().eq(sorted.iter().copied()));
            let beside = entries.keys().flat_map(|at| {
                [at.get().saturating_sub(1), at.get(), at.get().saturating_add(1)]
            });
            for offset in beside.chain(0..800).map(TextOffset::new) {
                let expected = entries.range(..=offset).next_back();
                prop_assert_eq!(map.view().entry(offset), expected.map(|(&at, &source)| (at, source)));
                prop_assert_eq!(map.find(offset), expected.and_then(|(_, source)| *source));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            counts in prop_oneof![(0_u32..200, 0_u32..4), any::<(u32, u32)>()],
            offset: u32,
        ) {
            let mut map = [counts.0.to_le_bytes(), counts.1.to_le_bytes()].concat();
            map.extend(&bytes);
            for bytes in [&map, &bytes] {
                let map = AddressMapRef::new(bytes);
                let _ = (map.find(TextOffset::new(offset)), map.is_empty());
                // Blocks may share bytes where nobody wrote them, but each is in the index.
                prop_assert!(map.iter().count() <= bytes.len() / 8 * BLOCK);
            }
        }
    }

    #[test]
    fn what_does_not_ascend_is_refused() {
        let entry = |at| (TextOffset::new(at), None);
        for entries in [[entry(5), entry(5)], [entry(6), entry(5)]] {
            let error = AddressMap::build(&entries).expect_err("not ascending");
            assert_eq!(error, TableError::NotAscending { offset: TextOffset::new(5) });
        }
        assert_eq!(AddressMap::build(&[]).expect("an empty map").as_bytes(), [0; 8]);
    }

    #[test]
    fn an_entry_takes_two_bytes_as_a_rule() {
        let entry = |at: u32| (TextOffset::new(at * 4), Some(SourceOffset::new(10_000 + at * 2)));
        let entries: Vec<_> = (0..6400).map(entry).collect();
        let map = AddressMap::build(&entries).expect("sorted entries");
        // A block's index takes eight bytes, and its first source is written whole.
        assert_eq!(map.as_bytes().len(), 8 + 6400 * 2 + 100 * 8 + 100 * 2);
    }
}
