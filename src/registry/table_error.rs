//! Why a table cannot be built.

use super::text_offset::TextOffset;

/// Why a table was not built of what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// An entry does not lie behind the one before it (functions: overlaps it, or is empty).
    #[error("the entry at {offset} does not lie behind the one before it")]
    NotAscending {
        /// Where the entry is.
        offset: TextOffset,
    },
    /// More entries, or more bytes, than 32 bits count.
    #[error("more than 32 bits can count")]
    TooMany,
    /// There is no memory for the table.
    #[error("out of memory")]
    OutOfMemory,
}
