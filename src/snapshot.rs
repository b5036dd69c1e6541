//! An owned view of the map, for ordinary threads: dump, iterate, search.

use crate::address_range::{CodeRange, Pc};
use crate::index::slot::Slot;
use crate::index::view::View;
use crate::memory::Shared;
use core::fmt;

/// The map as it was at one moment, owned.
///
/// From [`CodeMap::snapshot`](crate::CodeMap::snapshot). It is a sorted vector, which stays as it is while
/// the map goes on, and shares nothing with it but the values: hold it as long as you like, on any
/// thread. Values it shows live at least as long as it does; the last owner destroys them, so drop it on
/// an ordinary thread.
///
/// Its methods that only read are signal-safe. None blocks, fails or panics.
///
/// ```
/// let map = pcmap::CodeMap::new();
/// let _code = map.register_all([(0x1000..0x1800, "a"), (0x2000..0x2800, "b")]).unwrap();
/// let view = map.snapshot().unwrap();
/// drop(_code);
/// assert_eq!(view.iter().map(|code| *code.value()).collect::<String>(), "ab");
/// assert_eq!(view.find(0x2010).map(|code| code.range().start()), Some(0x2000));
/// assert_eq!(view.to_string(), "0x1000-0x1800 2 KiB\n0x2000-0x2800 2 KiB\n");
/// ```
pub struct Snapshot<T> {
    view: Option<Shared<View<T>>>,
    sequence: u64,
}

/// One registered range in a [`Snapshot`], borrowed from it.
pub struct Registered<'s, T> {
    range: CodeRange,
    value: &'s T,
}

/// What lies around an address: see [`Snapshot::neighbours`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Neighbours<'s, T> {
    /// The nearest code that ends at or below the address.
    pub below: Option<Registered<'s, T>>,
    /// The code that contains the address.
    pub at: Option<Registered<'s, T>>,
    /// The nearest code that starts above the address.
    pub above: Option<Registered<'s, T>>,
}

impl<'s, T> Registered<'s, T> {
    /// The range: half-open, absolute addresses. Constant time.
    pub fn range(&self) -> CodeRange {
        self.range
    }

    /// The value registered with it. Constant time.
    pub fn value(&self) -> &'s T {
        self.value
    }
}

impl<T> Snapshot<T> {
    pub(crate) fn new(view: Option<Shared<View<T>>>, sequence: u64) -> Self {
        Self { view, sequence }
    }

    fn rows(&self) -> &[Slot<T>] {
        self.view.as_ref().map_or(&[], |view| view.rows())
    }

    /// How many ranges start before `address`.
    fn before(&self, address: usize) -> usize {
        self.rows().partition_point(|row| row.start() < address)
    }

    /// Some of the ranges, by position.
    fn some(
        &self,
        positions: core::ops::Range<usize>,
    ) -> impl DoubleEndedIterator<Item = Registered<'_, T>> + Clone {
        let rows = self.rows().get(positions).unwrap_or(&[]);
        let view = self.view.as_ref();
        rows.iter().filter_map(move |row| {
            let (range, value) = view?.registered(row);
            Some(Registered { range, value })
        })
    }

    /// How many ranges are registered. Constant time.
    pub fn len(&self) -> usize {
        self.rows().len()
    }

    /// Whether no range is registered. Constant time.
    pub fn is_empty(&self) -> bool {
        self.rows().is_empty()
    }

    /// How many publications and removals the map had seen: two snapshots of a map with the same number
    /// show the same, unless something was being removed. Constant time.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// All registered ranges, in address order. Constant time a step.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Registered<'_, T>> + Clone {
        self.some(0..self.len())
    }

    /// The code that contains `pc`. O(log n).
    pub fn find(&self, pc: impl Into<Pc>) -> Option<Registered<'_, T>> {
        let pc = pc.into().address();
        let last = self.before(pc.saturating_add(1)).checked_sub(1)?;
        self.some(last..last + 1).next().filter(|code| code.range.contains(pc))
    }

    /// All code that shares an address with `range`, in address order. O(log n), then constant
    /// time a step.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let _code = map.register_all((1..9).map(|i| (i * 0x100..i * 0x100 + 0x80, i))).unwrap();
    /// let part = 0x240..0x400;
    /// let found: Vec<_> = map.snapshot().unwrap().range(part.try_into().unwrap()).map(|code| *code.value()).collect();
    /// assert_eq!(found, [2, 3]);
    /// ```
    pub fn range(&self, range: CodeRange) -> impl DoubleEndedIterator<Item = Registered<'_, T>> {
        let first = self.before(range.start());
        // What contains the first address may start before it.
        let across = first.checked_sub(1).filter(|&at| self.rows()[at].end() > range.start());
        let end = if range.is_empty() { 0 } else { self.before(range.end()) };
        self.some(across.unwrap_or(first)..end)
    }

    /// What lies at `pc` and to both sides of it, for saying where a crash was. O(log n).
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let _code = map.register_all([(0x1000..0x1800, "a"), (0x2000..0x2800, "b")]).unwrap();
    /// let view = map.snapshot().unwrap();
    /// let around = view.neighbours(0x1900);
    /// assert!(around.at.is_none());
    /// assert_eq!(around.below.map(|code| *code.value()), Some("a"));
    /// assert_eq!(around.above.map(|code| *code.value()), Some("b"));
    /// ```
    pub fn neighbours(&self, pc: impl Into<Pc>) -> Neighbours<'_, T> {
        let pc = pc.into();
        let at = self.find(pc);
        let above = self.before(pc.address().saturating_add(1));
        let below = above - usize::from(at.is_some());
        Neighbours {
            below: self.some(0..below).next_back(),
            at,
            above: self.some(above..self.len()).next(),
        }
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone(), sequence: self.sequence }
    }
}

impl<T> Clone for Registered<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Registered<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for Registered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.range)?;
        self.value.fmt(f)
    }
}

/// A line per range, as in a memory map: bounds and size.
impl<T> fmt::Display for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for code in self.iter() {
            write!(f, "{:#x}-{:#x} ", code.range.start(), code.range.end())?;
            match code.range.len() {
                len if len % 1024 == 0 => writeln!(f, "{} KiB", len / 1024)?,
                len => writeln!(f, "{len} B")?,
            }
        }
        Ok(())
    }
}

/// The ranges with their values, in address order.
impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|code| (code.range, code.value))).finish()
    }
}
