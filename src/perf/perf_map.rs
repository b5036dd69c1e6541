//! `perf-<pid>.map`: lines of start, length and name, the numbers hexadecimal without a prefix.

use super::own_file::{Existing, OwnFile};
use super::{PerfError, name};
use crate::registry::CodeTables;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// `perf` leaves out names that are shorter (`dso__load_perf_map` in Linux's `tools/perf/util/symbol.c`).
const SHORTEST: usize = 3;

/// Writes a map of functions. `perf report` looks for it in `/tmp`, under the name that
/// [`PerfMap::create`] gives it.
///
/// Names are written so that `perf` can read them: spaces fill up a name of under three bytes, and `?`
/// stands for a control character.
///
/// ```
/// # use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
/// # let mut image = CodeImage::builder(vec![0xc3]);
/// # image.function(FuncKey::new(0, 0), 0..1_u32, "nothing")?;
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
    /// Functions that were not written.
    missing: u64,
    /// Whether the last line is not whole.
    is_torn: bool,
}

/// A map in a file: from [`PerfMap::create`]. What is written to it are whole lines, at the file's end.
#[derive(Debug)]
pub struct MapFile(OwnFile);

impl PerfMap<MapFile> {
    /// Makes or finds `perf-<pid>.map` in this folder; gives its path, too.
    ///
    /// If the process has a map there already, its lines stay, and new ones are appended: all of the process's
    /// JITs share the file, those of other libraries, too. If one of them writes at a place of its own (V8
    /// does), its file is switched to appending, so that neither writes over the other. Such a JIT starts
    /// first: it empties the file when it starts. What a process that is gone has left, and a link, are replaced.
    ///
    /// # Errors
    ///
    /// What the system says. (A file of another user cannot be replaced in `/tmp`.)
    pub fn create(folder: &Path) -> io::Result<(Self, PathBuf)> {
        let path = folder.join(format!("perf-{}.map", std::process::id()));
        Ok((Self::new(MapFile(OwnFile::open(&path, Existing::Append)?)), path))
    }
}

impl<W: Write> PerfMap<W> {
    /// Writes to wherever it is wanted.
    pub fn new(to: W) -> Self {
        Self { to, missing: 0, is_torn: false }
    }

    /// Adds all functions of a text that starts at this absolute address, and makes sure that they are
    /// written. O(functions).
    ///
    /// # Errors
    ///
    /// - [`PerfError::System`]: what the writer says. What it took is there, in whole lines if it is a file.
    ///   (What another writer took of a line, the next call ends.)
    /// - [`PerfError::OtherProcess`]: the process was forked since the file was made.
    /// - [`PerfError::Missing`]: all was written, but earlier calls had failed.
    pub fn add(&mut self, start: usize, tables: &CodeTables) -> Result<(), PerfError> {
        let mut lines = Vec::new();
        if self.is_torn {
            lines.push(b'\n');
        }
        for function in tables.functions() {
            let (range, name) = (function.range, name(&function));
            let at = start.wrapping_add(range.start().get() as usize);
            writeln!(lines, "{at:x} {:x} {name:SHORTEST$}", range.len())?;
        }
        let mut rest = lines.as_slice();
        let written = self.write_all(&mut rest).and_then(|()| self.to.flush());
        if rest.len() < lines.len() {
            self.is_torn = !lines[..lines.len() - rest.len()].ends_with(b"\n");
        }
        written.map_err(|error| {
            self.missing += rest.iter().filter(|&&byte| byte == b'\n').count() as u64;
            // What a file says is in it.
            error.downcast().unwrap_or_else(PerfError::System)
        })?;
        match self.missing {
            0 => Ok(()),
            functions => Err(PerfError::Missing { functions }),
        }
    }

    /// Leaves in `rest` what was not written.
    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => *rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Write for MapFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.0.check_process().map_err(io::Error::other)?;
        let line_end = |len: usize| lines[..len].iter().rposition(|&byte| byte == b'\n');
        self.0.write_records(lines, |len| line_end(len).map_or(0, |end| end + 1))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
