//! Files that tell Linux's `perf`, and others that read the same formats, about generated code.
//!
//! [`PerfMap`] writes `perf-<pid>.map`: where each function is and what it is called, for the time that
//! code stays where it is. [`JitDump`] writes `jit-<pid>.dump`, which has the machine code too, and
//! times: it stays right when code comes and goes, and `perf annotate` shows instructions.
//!
//! Each file is for one process, and has one writer at a time:
//!
//! - After a `fork` the child gets [`PerfError::OtherProcess`], and makes files of its own.
//! - A map is shared by all of a process's JITs. A dump is not, and the second is refused.
//! - Nothing is kept back: what a call has written is in the file, by whole records. A part of a record is taken
//!   back, and the next call says how many functions are missing.
//!
//! With the feature `perf`, on Linux. Nothing here is signal-safe.

mod jit_dump;
mod own_file;
mod perf_error;
mod perf_map;

pub use jit_dump::JitDump;
pub use perf_error::PerfError;
pub use perf_map::{MapFile, PerfMap};

use crate::registry::Function;

/// What a function is called in these files, which end a name at the end of a line, or at a zero byte.
fn name(function: &Function<'_>) -> String {
    match function.name.filter(|name| !name.is_empty()) {
        Some(name) => name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        None => format!("function {}", function.key),
    }
}
