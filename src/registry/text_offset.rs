//! Places in text: offsets and half-open ranges, in bytes from the start of an image's text.
//!
//! Text is at most 4 GiB, so that tables keep four bytes for a place. An offset is not an address:
//! the same text may be mapped many times.

use core::fmt;
use core::ops::Range;

/// An offset into an image's text, in bytes.
///
/// All methods: constant time, no panics, signal-safe (printing is not).
///
/// ```
/// use pcmap::registry::TextOffset;
///
/// let offset = TextOffset::from(0x1000);
/// assert_eq!(offset.checked_add(0x20), Some(TextOffset::new(0x1020)));
/// assert_eq!(offset.checked_add(u32::MAX), None);
/// assert_eq!(TextOffset::try_from(0x1000_usize), Ok(offset));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextOffset(u32);

impl TextOffset {
    /// An offset of `bytes` bytes.
    pub const fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// The offset in bytes.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The place `bytes` bytes further on, if offsets reach so far.
    pub const fn checked_add(self, bytes: u32) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// How many bytes this lies behind `earlier`, if it does not lie before it.
    pub const fn checked_sub(self, earlier: Self) -> Option<u32> {
        self.0.checked_sub(earlier.0)
    }
}

impl From<u32> for TextOffset {
    fn from(bytes: u32) -> Self {
        Self(bytes)
    }
}

impl TryFrom<usize> for TextOffset {
    type Error = TextRangeError;

    fn try_from(bytes: usize) -> Result<Self, TextRangeError> {
        let error = TextRangeError::TooFar { offset: bytes as u64 };
        u32::try_from(bytes).map(Self).map_err(|_| error)
    }
}

impl TryFrom<u64> for TextOffset {
    type Error = TextRangeError;

    fn try_from(bytes: u64) -> Result<Self, TextRangeError> {
        u32::try_from(bytes).map(Self).map_err(|_| TextRangeError::TooFar { offset: bytes })
    }
}

impl fmt::Display for TextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text+{:#x}", self.0)
    }
}

impl fmt::Debug for TextOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A half-open range `start..end` of text offsets, `start <= end`.
///
/// All methods: constant time, no panics, signal-safe (printing is not).
///
/// ```
/// use pcmap::registry::{TextOffset, TextRange, TextRangeError};
///
/// let range = TextRange::try_from(0x10..0x30_u32)?;
/// assert_eq!(range.len(), 0x20);
/// assert!(range.contains(TextOffset::new(0x2f)) && !range.contains(TextOffset::new(0x30)));
/// assert!(matches!(TextRange::try_from(3..2_usize), Err(TextRangeError::Reversed { .. })));
/// # Ok::<(), TextRangeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextRange {
    start: TextOffset,
    end: TextOffset,
}

/// Why numbers are no place in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextRangeError {
    /// The end lies before the start.
    #[error("the range {start}..{end} ends before it starts")]
    Reversed {
        /// The start that was given.
        start: TextOffset,
        /// The end that was given.
        end: TextOffset,
    },
    /// Text offsets do not reach so far.
    #[error("{offset:#x} is no text offset: it does not fit in 32 bits")]
    TooFar {
        /// The offset that was given, in bytes.
        offset: u64,
    },
}

impl From<core::convert::Infallible> for TextRangeError {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

impl TextRange {
    /// The range from `start` up to `end`.
    ///
    /// # Errors
    ///
    /// [`TextRangeError::Reversed`] if `end < start`.
    pub const fn new(start: TextOffset, end: TextOffset) -> Result<Self, TextRangeError> {
        if start.0 <= end.0 {
            Ok(Self { start, end })
        } else {
            Err(TextRangeError::Reversed { start, end })
        }
    }

    /// The range of `len` bytes at `start`.
    ///
    /// # Errors
    ///
    /// [`TextRangeError::TooFar`] if `start + len` is no text offset.
    pub const fn from_start_len(start: TextOffset, len: u32) -> Result<Self, TextRangeError> {
        match start.checked_add(len) {
            Some(end) => Ok(Self { start, end }),
            None => Err(TextRangeError::TooFar { offset: start.0 as u64 + len as u64 }),
        }
    }

    /// The first byte in the range (if it is not empty).
    pub const fn start(self) -> TextOffset {
        self.start
    }

    /// The first byte behind the range.
    pub const fn end(self) -> TextOffset {
        self.end
    }

    /// The length in bytes.
    pub const fn len(self) -> u32 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether the range holds no byte at all.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `offset` lies in the range.
    pub const fn contains(self, offset: TextOffset) -> bool {
        self.start.0 <= offset.0 && offset.0 < self.end.0
    }

    /// Whether some byte lies in both ranges; ranges that touch do not overlap.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end.0
            && other.start.0 < self.end.0
            && !self.is_empty()
            && !other.is_empty()
    }
}

impl TryFrom<Range<u32>> for TextRange {
    type Error = TextRangeError;

    fn try_from(range: Range<u32>) -> Result<Self, TextRangeError> {
        Self::new(TextOffset(range.start), TextOffset(range.end))
    }
}

impl TryFrom<Range<usize>> for TextRange {
    type Error = TextRangeError;

    fn try_from(range: Range<usize>) -> Result<Self, TextRangeError> {
        Self::new(range.start.try_into()?, range.end.try_into()?)
    }
}

impl fmt::Display for TextRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text+{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

impl fmt::Debug for TextRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An offset into the source that text was compiled from, in bytes (of a WebAssembly binary, say).
///
/// ```
/// assert_eq!(pcmap::registry::SourceOffset::new(0x52).to_string(), "source+0x52");
/// ```
///
/// All methods: constant time, no panics, signal-safe (printing is not).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceOffset(u32);

impl SourceOffset {
    /// An offset of `bytes` bytes.
    pub const fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// The offset in bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<u32> for SourceOffset {
    fn from(bytes: u32) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SourceOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "source+{:#x}", self.0)
    }
}

impl fmt::Debug for SourceOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
