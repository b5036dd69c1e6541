//! Text offset to trap code: sorted bytes, and a pure reader that a signal handler may use.
//!
//! The idea: the upper half of an offset, the number of a 64 KiB *page* of text, is looked up in a
//! directory, by index; the lower halves of one page are sorted, and searched by halving. A trap
//! takes three bytes, a page four; a search reads three words and halves one page's traps.
//!
//! ```text
//!             0        4                 4+4(P+1)           …+2N           …+N
//!             +--------+-----------------+------------------+--------------+
//!             | P: u32 | first: (P+1)×u32| low: N×u16       | code: N×u8   |
//!             +--------+-----------------+------------------+--------------+
//!
//! P         pages of text that have traps, or lie before one that has: no trap lies behind them
//! first[p]  traps that lie before page p; traps of page p are number first[p] to first[p + 1]
//! N         first[P], all traps
//! low[i]    lower 16 bits of the text offset of trap i; ascending within a page
//! code[i]   its trap code
//! ```
//!
//! All numbers are little-endian, none is aligned. An empty table is four zero bytes and four more;
//! no bytes at all are an empty table too.

use super::keys::TrapCode;
use super::little_endian::{place, u16_at, u32_at, widen};
use super::table_error::TableError;
use super::text_offset::TextOffset;
use core::fmt;

const PAGE_BITS: u32 = 16;
/// Where the directory starts.
const DIRECTORY: usize = size_of::<u32>();

/// The trap codes of an image by text offset, in bytes that it owns.
///
/// ```
/// use pcmap::registry::{TextOffset, TrapCode, TrapTable};
///
/// let traps = [(TextOffset::new(0x10), TrapCode::new(1)), (TextOffset::new(0x3_0000), TrapCode::new(7))];
/// let table = TrapTable::build(&traps)?;
/// assert_eq!(table.find(TextOffset::new(0x3_0000)), Some(TrapCode::new(7)));
/// assert_eq!(table.find(TextOffset::new(0x11)), None);
/// assert!(table.view().iter().eq(traps));
/// # Ok::<(), pcmap::registry::TableError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct TrapTable {
    bytes: Vec<u8>,
}

impl TrapTable {
    /// The table of these traps, which ascend by offset.
    ///
    /// **Cost**: linear in the traps, and logarithmic in them for each page of text up to the last;
    /// one allocation. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`TableError::NotAscending`] if an offset is not above the one before it, and without
    /// memory [`TableError::OutOfMemory`].
    pub fn build(traps: &[(TextOffset, TrapCode)]) -> Result<Self, TableError> {
        if let Some(at) = traps.windows(2).position(|pair| pair[0].0 >= pair[1].0) {
            return Err(TableError::NotAscending { offset: traps[at + 1].0 });
        }
        let total = u32::try_from(traps.len()).map_err(|_| TableError::TooMany)?;
        let pages = traps.last().map_or(0, |(last, _)| (last.get() >> PAGE_BITS) + 1);
        let len = [DIRECTORY, (widen(pages) + 1) * 4, traps.len() * 3].into_iter().sum();
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| TableError::OutOfMemory)?;
        bytes.extend(pages.to_le_bytes());
        let mut before = 0_u32;
        for page in 0..pages {
            bytes.extend(before.to_le_bytes());
            let rest = traps.get(widen(before)..).unwrap_or_default();
            before += rest.partition_point(|(at, _)| at.get() >> PAGE_BITS <= page) as u32;
        }
        bytes.extend(total.to_le_bytes());
        bytes.extend(traps.iter().flat_map(|(at, _)| (at.get() as u16).to_le_bytes()));
        bytes.extend(traps.iter().map(|(_, code)| code.get()));
        Ok(Self { bytes })
    }

    /// The code of the trap at exactly this offset: [`TrapTableRef::find`].
    #[inline]
    pub fn find(&self, offset: TextOffset) -> Option<TrapCode> {
        self.view().find(offset)
    }

    /// A reader of the table. Constant time; signal-safe.
    #[inline]
    pub fn view(&self) -> TrapTableRef<'_> {
        TrapTableRef::new(&self.bytes)
    }

    /// The table's bytes. Constant time; signal-safe.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for TrapTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// Reads a [`TrapTable`]'s bytes, wherever they lie.
///
/// Any bytes will do: of bytes that are no table nothing sensible is read, but nothing panics.
///
/// All methods, and the iterator: no allocation, no errors, no panics, **signal-safe** (printing is
/// not).
#[derive(Clone, Copy)]
pub struct TrapTableRef<'a> {
    bytes: &'a [u8],
}

impl<'a> TrapTableRef<'a> {
    /// A reader of these bytes. Constant time.
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The code of the trap at exactly this offset, if there is one.
    ///
    /// **Cost**: logarithmic in the traps of one page of 64 KiB, so 17 steps at most, of any bytes.
    /// **Signal-safe**: yes; reads the table through checked slices, and nothing else.
    #[inline]
    pub fn find(self, offset: TextOffset) -> Option<TrapCode> {
        let pages = self.pages()?;
        let page = widen(offset.get() >> PAGE_BITS);
        if page >= pages {
            return None;
        }
        let traps = (self.first(page)?, self.first(page.checked_add(1)?)?);
        let lows = self.lows(pages)?;
        let low = |index| u16_at(self.bytes, place(lows, index, 2)?);
        let found = position(traps, offset.get() as u16, low)?;
        self.code(lows, self.first(pages)?, found)
    }

    /// How many traps there are. Constant time.
    pub fn len(self) -> usize {
        self.pages().and_then(|pages| self.first(pages)).unwrap_or(0)
    }

    /// Whether there are none. Constant time.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// All traps, ascending by offset. Constant time per trap and per page.
    pub fn iter(self) -> Traps<'a> {
        Traps { table: self, page: 0, next: 0 }
    }

    fn pages(self) -> Option<usize> {
        u32_at(self.bytes, 0).map(widen)
    }

    /// How many traps lie before a page.
    #[inline]
    fn first(self, page: usize) -> Option<usize> {
        u32_at(self.bytes, place(DIRECTORY, page, 4)?).map(widen)
    }

    /// Where the lower halves start.
    #[inline]
    fn lows(self, pages: usize) -> Option<usize> {
        place(DIRECTORY, pages.checked_add(1)?, 4)
    }

    #[inline]
    fn code(self, lows: usize, total: usize, index: usize) -> Option<TrapCode> {
        let code = place(lows, total, 2)?.checked_add(index)?;
        self.bytes.get(code).copied().map(TrapCode::new)
    }
}

/// The number, from `first` on and before `end`, of the lower half that is `wanted`. `low` gives each.
///
/// Signal-safe if `low` is: a loop over numbers, of 17 rounds at most.
#[inline]
fn position(
    (first, end): (usize, usize),
    wanted: u16,
    mut low: impl FnMut(usize) -> Option<u16>,
) -> Option<usize> {
    // A page has no more traps than offsets, whatever the bytes say.
    let (mut first, mut end) = (first, end.min(first.saturating_add(1 << PAGE_BITS)));
    while first < end {
        let middle = first.midpoint(end);
        let found = low(middle)?;
        if found == wanted {
            return Some(middle);
        } else if found < wanted {
            first = middle.checked_add(1)?;
        } else {
            end = middle;
        }
    }
    None
}

impl<'a> IntoIterator for TrapTableRef<'a> {
    type Item = (TextOffset, TrapCode);
    type IntoIter = Traps<'a>;

    fn into_iter(self) -> Traps<'a> {
        self.iter()
    }
}

impl fmt::Debug for TrapTableRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrapTable")
            .field("traps", &self.len())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// The traps of a table, ascending by offset: [`TrapTableRef::iter`].
#[derive(Clone, Debug)]
pub struct Traps<'a> {
    table: TrapTableRef<'a>,
    page: usize,
    next: usize,
}

impl Iterator for Traps<'_> {
    type Item = (TextOffset, TrapCode);

    fn next(&mut self) -> Option<Self::Item> {
        let table = self.table;
        let pages = table.pages()?;
        while self.page < pages && table.first(self.page.checked_add(1)?)? <= self.next {
            self.page = self.page.checked_add(1)?;
        }
        if self.page >= pages {
            return None;
        }
        let lows = table.lows(pages)?;
        let low = u16_at(table.bytes, place(lows, self.next, 2)?)?;
        let code = table.code(lows, table.first(pages)?, self.next)?;
        self.next = self.next.checked_add(1)?;
        let page = u32::try_from(self.page).ok()?.checked_shl(PAGE_BITS)?;
        Some((TextOffset::new(page | u32::from(low)), code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Traps close together and far apart, so that pages are full, empty, and skipped.
    fn traps() -> impl Strategy<Value = BTreeMap<TextOffset, TrapCode>> {
        let offset = prop_oneof![0_u32..300, 0xff00_u32..0x1_0100, 0_u32..0x60_0000];
        let trap = (offset.prop_map(TextOffset::new), any::<u8>().prop_map(TrapCode::new));
        proptest::collection::btree_map(trap.0, trap.1, 0..80)
    }

    proptest! {
        #[test]
        fn every_trap_is_found_and_nothing_else(traps in traps()) {
            let sorted: Vec<_> = traps.iter().map(|(&at, &code)| (at, code)).collect();
            let table = TrapTable::build(&sorted).expect("sorted traps");
            prop_assert_eq!(table.view().len(), traps.len());
            prop_assert!(table.view().iter().eq(sorted.iter().copied()));
            let beside = traps.keys().flat_map(|at| {
                let at = at.get();
                [at.wrapping_sub(1), at, at + 1, at ^ 0x1_0000, at ^ 0x8000]
            });
            for offset in beside.chain(0..512).map(TextOffset::new) {
                prop_assert_eq!(table.find(offset), traps.get(&offset).copied());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..100),
            pages in prop_oneof![0_u32..8, any::<u32>()],
            offset: u32,
        ) {
            let mut table = pages.to_le_bytes().to_vec();
            table.extend(&bytes);
            for bytes in [&table, &bytes] {
                let table = TrapTableRef::new(bytes);
                let _ = (table.find(TextOffset::new(offset)), table.find(TextOffset::new(offset >> 14)));
                prop_assert!(table.iter().count() <= bytes.len());
            }
        }
    }

    #[test]
    fn what_does_not_ascend_is_refused() {
        let trap = |at| (TextOffset::new(at), TrapCode::new(1));
        for traps in [[trap(5), trap(5)], [trap(6), trap(5)]] {
            let error = TrapTable::build(&traps).expect_err("not ascending");
            assert_eq!(error, TableError::NotAscending { offset: TextOffset::new(5) });
        }
        let empty = TrapTable::build(&[]).expect("an empty table");
        assert_eq!(empty.as_bytes(), [0; 8]);
        assert_eq!(empty.find(TextOffset::new(0)), None);
    }

    #[test]
    fn a_search_takes_17_steps_at_most() {
        let steps = |traps, wanted, low: &dyn Fn(usize) -> u16| {
            let mut steps = 0;
            position(traps, wanted, |index| {
                steps += 1;
                Some(low(index))
            });
            steps
        };
        // A full page, and pages of which the bytes say that they have any number of traps.
        let full = (0..=u16::MAX).map(|wanted| steps((0, 1 << 16), wanted, &|index| index as u16));
        let most = full.max();
        assert_eq!(most, Some(17));
        for traps in
            [(0, usize::MAX), (0, 1 << 26), (7, u32::MAX as usize), (usize::MAX - 1, usize::MAX)]
        {
            for found in [0, u16::MAX, 5] {
                let hostile = (0..=u16::MAX).map(|wanted| steps(traps, wanted, &|_| found)).max();
                assert!(hostile <= most, "{traps:?}: {hostile:?} steps");
            }
        }
    }

    #[test]
    fn the_last_offset_of_all() {
        let last = (TextOffset::new(u32::MAX), TrapCode::new(0));
        let table = TrapTable::build(&[last]).expect("one trap");
        assert_eq!(table.find(last.0), Some(last.1));
        assert_eq!(table.view().iter().collect::<Vec<_>>(), [last]);
    }
}
