//! Files that tell Linux's `perf`, and others that read the same formats, about generated code.
//!
//! [`PerfMap`] writes `perf-<pid>.map`: where each function is and what it is called, for the time that
//! code stays where it is. [`JitDump`] writes `jit-<pid>.dump`, which has the machine code too, and
//! times: it stays right when code comes and goes, and `perf annotate` shows instructions.
//!
//! With the feature `perf`, on Linux. Nothing here is signal-safe.

mod jit_dump;
mod perf_map;

pub use jit_dump::JitDump;
pub use perf_map::PerfMap;

use crate::registry::Function;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes a file in the place of an older one. In a folder that everybody may write to, others can have put
/// something of that name there, such as a link to a file of this user's: nothing is written through it.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().read(true).write(true).create_new(true).open(path)
}

/// What a function is called in these files, which end a name at the end of a line, or at a zero byte.
fn name(function: &Function<'_>) -> String {
    match function.name {
        Some(name) => name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        None => format!("function {}", function.key),
    }
}
