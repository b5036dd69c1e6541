//! Why functions are not in a file for `perf`.

use crate::registry::TextRange;
use std::io;

/// Why functions are not in a file for `perf`, or were not before.
///
/// Whatever fails: the file has whole records only, and later calls add to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PerfError {
    /// The system refused. What was written before is there.
    #[error(transparent)]
    System(#[from] io::Error),
    /// This process was forked from the one that the file is for. Nothing was written: make a file of this
    /// process's own.
    #[error("the file is for process {process}")]
    OtherProcess {
        /// The process that made the file.
        process: u32,
    },
    /// The tables are of another text. Nothing was written.
    #[error("a function at {range} is not inside the text of {text_len:#x} bytes")]
    AnotherText {
        /// Where the tables have a function.
        range: TextRange,
        /// The length of the text in bytes.
        text_len: usize,
    },
    /// A function is longer than the format can tell. Nothing was written.
    #[error("the function at {range} is too long for the format")]
    TooLong {
        /// Where it is.
        range: TextRange,
    },
    /// What this call was given was written, but functions of earlier calls, which failed, are missing.
    #[error("{functions} functions of earlier calls are missing")]
    Missing {
        /// How many.
        functions: u64,
    },
}
