//! Addresses and ranges of code: half-open, never empty by accident, never wrapping.

use core::fmt;
use core::ops::Range;

/// An absolute program counter: the address of an instruction in this process.
///
/// ```
/// assert_eq!(pcmap::Pc::from(0x1000).address(), 0x1000);
/// ```
///
/// All methods: constant time, no errors, no panics, signal-safe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pc(usize);

impl Pc {
    /// A program counter from an absolute address.
    pub const fn new(address: usize) -> Self {
        Self(address)
    }

    /// The absolute address.
    pub const fn address(self) -> usize {
        self.0
    }
}

impl From<usize> for Pc {
    fn from(address: usize) -> Self {
        Self(address)
    }
}

impl<T> From<*const T> for Pc {
    fn from(pointer: *const T) -> Self {
        Self(pointer.addr())
    }
}

impl fmt::Debug for Pc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pc({:#x})", self.0)
    }
}

/// A half-open range `start..end` of absolute addresses, `start <= end`.
///
/// Built from `start..end`, from a slice's pointer range, or from a start and a length; each is
/// checked. A range that reaches past the last address cannot be expressed (and neither can one
/// that holds the very last byte of the address space, which no system maps).
///
/// All methods: constant time, no panics, signal-safe (printing is not).
///
/// ```
/// use pcmap::{CodeRange, RangeError};
///
/// let text = CodeRange::try_from(0x1000..0x2000)?;
/// assert_eq!(text.len(), 0x1000);
/// assert!(text.contains(0x1fff) && !text.contains(0x2000));
/// assert_eq!(CodeRange::from_start_len(0x1000, 0x1000)?, text);
/// assert!(matches!(CodeRange::try_from(0x2000..0x1000), Err(RangeError::Reversed { .. })));
/// assert!(matches!(CodeRange::from_start_len(usize::MAX, 2), Err(RangeError::Wraps { .. })));
/// # Ok::<(), RangeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeRange {
    start: usize,
    end: usize,
}

/// Why a pair of numbers is not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// The end lies before the start.
    #[error("the range {start:#x}..{end:#x} ends before it starts")]
    Reversed {
        /// The start that was given: an absolute address.
        start: usize,
        /// The end that was given: an absolute address.
        end: usize,
    },
    /// The range reaches past the end of the address space.
    #[error("a range of {len:#x} bytes at {start:#x} wraps around the address space")]
    Wraps {
        /// The start that was given: an absolute address.
        start: usize,
        /// The length that was given, in bytes.
        len: usize,
    },
}

impl From<core::convert::Infallible> for RangeError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

impl CodeRange {
    /// The range of `len` bytes at `start`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Wraps`] if `start + len` is not an address.
    pub const fn from_start_len(start: usize, len: usize) -> Result<Self, RangeError> {
        match start.checked_add(len) {
            Some(end) => Ok(Self { start, end }),
            None => Err(RangeError::Wraps { start, len }),
        }
    }

    /// The range that a slot of the index holds: it was checked when it was registered.
    #[inline(always)]
    pub(crate) const fn of_slot(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The first address in the range (if it is not empty).
    pub const fn start(self) -> usize {
        self.start
    }

    /// The first address behind the range.
    pub const fn end(self) -> usize {
        self.end
    }

    /// The length in bytes.
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether the range holds no address at all.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether `pc` lies in the range.
    pub fn contains(self, pc: impl Into<Pc>) -> bool {
        let address = pc.into().address();
        self.start <= address && address < self.end
    }

    /// Whether some address lies in both ranges; ranges that touch do not overlap.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end && !self.is_empty() && !other.is_empty()
    }
}

impl TryFrom<Range<usize>> for CodeRange {
    type Error = RangeError;

    fn try_from(Range { start, end }: Range<usize>) -> Result<Self, RangeError> {
        if start <= end {
            Ok(Self { start, end })
        } else {
            Err(RangeError::Reversed { start, end })
        }
    }
}

impl<P> TryFrom<Range<*const P>> for CodeRange {
    type Error = RangeError;

    fn try_from(range: Range<*const P>) -> Result<Self, RangeError> {
        (range.start.addr()..range.end.addr()).try_into()
    }
}

impl From<CodeRange> for Range<usize> {
    fn from(range: CodeRange) -> Self {
        range.start..range.end
    }
}

impl fmt::Display for CodeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

impl fmt::Debug for CodeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: usize, end: usize) -> CodeRange {
        CodeRange::try_from(start..end).expect("a valid range")
    }

    #[test]
    fn overlap_is_about_shared_addresses() {
        let cases = [
            (range(10, 20), range(20, 30), false), // touch
            (range(10, 20), range(19, 30), true),  // partly
            (range(10, 40), range(20, 30), true),  // nested
            (range(10, 20), range(10, 20), true),  // equal
            (range(10, 20), range(15, 15), false), // empty inside
            (range(15, 15), range(15, 15), false), // both empty
        ];
        for (a, b, expected) in cases {
            assert_eq!(a.overlaps(b), expected, "{a} and {b}");
            assert_eq!(b.overlaps(a), expected, "{b} and {a}");
            let shared = (0..50).any(|pc| a.contains(pc) && b.contains(pc));
            assert_eq!(shared, expected, "{a} and {b}, address by address");
        }
    }

    #[test]
    fn the_ends_of_the_address_space() {
        assert_eq!(range(0, usize::MAX).len(), usize::MAX);
        assert!(!range(0, usize::MAX).contains(usize::MAX));
        assert_eq!(
            CodeRange::from_start_len(usize::MAX, 1),
            Err(RangeError::Wraps { start: usize::MAX, len: 1 })
        );
        assert!(CodeRange::from_start_len(usize::MAX, 0).is_ok_and(CodeRange::is_empty));
    }
}
