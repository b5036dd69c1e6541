//! `perf-<pid>.map`: lines of start, length and name, the numbers hexadecimal without a prefix.

use super::{create, name};
use crate::registry::CodeTables;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes a map of functions. `perf report` looks for it in `/tmp`, under the name that
/// [`PerfMap::create`] gives it.
///
/// ```
/// # use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
/// # let mut image = CodeImage::builder(vec![0xc3]);
/// # image.function(FuncKey::new(0, 0), 0..1, "nothing")?;
/// # let engine = Engine::new(EngineConfig::new())?;
/// # let code = EngineCode::load(&engine, image.finish()?)?;
/// let mut lines = Vec::new();
/// pcmap::perf::PerfMap::new(&mut lines).add(code.text_range().start.address(), code.tables())?;
/// let start = code.text_range().start.address();
/// assert_eq!(String::from_utf8(lines)?, format!("{start:x} 1 nothing\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PerfMap<W: Write> {
    to: W,
}

impl PerfMap<BufWriter<File>> {
    /// Makes `perf-<pid>.map` in this folder; gives its path, too. An older file of that name goes, and is
    /// not written to.
    ///
    /// # Errors
    ///
    /// What the system says. (A file of another user cannot be replaced in `/tmp`.)
    pub fn create(folder: &Path) -> io::Result<(Self, PathBuf)> {
        let path = folder.join(format!("perf-{}.map", std::process::id()));
        Ok((Self::new(BufWriter::new(create(&path)?)), path))
    }
}

impl<W: Write> PerfMap<W> {
    /// Writes to wherever it is wanted.
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// Adds all functions of a text that starts at this absolute address, and makes sure that they are
    /// written. O(functions).
    ///
    /// # Errors
    ///
    /// What the writer says.
    pub fn add(&mut self, start: usize, tables: &CodeTables) -> io::Result<()> {
        for function in tables.functions() {
            let (range, name) = (function.range, name(&function));
            let at = start.wrapping_add(range.start().get() as usize);
            writeln!(self.to, "{at:x} {:x} {name}", range.len())?;
        }
        self.to.flush()
    }
}
