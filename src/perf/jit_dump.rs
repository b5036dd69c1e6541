//! `jit-<pid>.dump`: a header and records, in the machine's byte order.
//!
//! ```text
//! header   "JiTD" as u32 | version 1 | size 40 | ELF machine | 0 | process | time u64 | flags u64
//! record   kind u32 | size u32 | time u64 | …
//! load (0) … process u32 | thread u32 | address u64 | address u64 | length u64 | number u64
//!            | name, zero byte | code
//! close (3) …
//! ```
//!
//! The format is that of `tools/perf/Documentation/jitdump-specification.txt` in Linux.

use super::{create, name};
use crate::registry::CodeTables;
use crate::sys::perf::{Marker, monotonic_nanos, thread_id};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER: u32 = 40;
const LOAD: u32 = 0;
const CLOSE: u32 = 3;
/// The fixed parts of records.
const PREFIX: usize = 16;
const LOAD_FIELDS: usize = 40;

/// The machine's number in ELF files.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// Writes generated code down for `perf inject --jit`.
///
/// The program runs under `perf record --clockid=monotonic`; the file is found by a mapping of it,
/// which `perf` records. Each function is written once, when it is loaded: what comes to lie there
/// later is written later.
///
/// ```
/// # use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
/// # let mut image = CodeImage::builder(vec![0xc3]);
/// # image.function(FuncKey::new(0, 0), 0..1, "nothing")?;
/// # let engine = Engine::new(EngineConfig::new())?;
/// # let code = EngineCode::load(&engine, image.finish()?)?;
/// let (mut dump, path) = pcmap::perf::JitDump::create(&std::env::temp_dir())?;
/// dump.load(code.text_range().start.address(), code.text(), code.tables())?;
/// dump.close()?;
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct JitDump {
    to: BufWriter<File>,
    /// Functions so far: each has a number.
    loaded: u64,
    _marker: Marker,
}

impl JitDump {
    /// Makes `jit-<pid>.dump` in this folder; gives its path, too. An older file of that name goes, and is
    /// not written to.
    ///
    /// # Errors
    ///
    /// What the system says (a file of another user cannot be replaced in `/tmp`); it has to let the file be mapped as code.
    pub fn create(folder: &Path) -> io::Result<(Self, PathBuf)> {
        let path = folder.join(format!("jit-{}.dump", std::process::id()));
        let mut to = BufWriter::new(create(&path)?);
        for word in [MAGIC, VERSION, HEADER, MACHINE, 0, std::process::id()] {
            to.write_all(&word.to_ne_bytes())?;
        }
        to.write_all(&monotonic_nanos().to_ne_bytes())?;
        to.write_all(&0_u64.to_ne_bytes())?;
        to.flush()?;
        let marker = Marker::map(to.get_ref())?;
        Ok((Self { to, loaded: 0, _marker: marker }, path))
    }

    /// Writes all functions of a text that starts at this absolute address down, and makes sure that
    /// they are written. O(text).
    ///
    /// # Errors
    ///
    /// What the system says; or the tables are not those of the text.
    pub fn load(&mut self, start: usize, text: &[u8], tables: &CodeTables) -> io::Result<()> {
        for function in tables.functions() {
            let range = function.range;
            let code = text.get(range.start().get() as usize..range.end().get() as usize);
            let code = code.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
            let at = start.wrapping_add(range.start().get() as usize) as u64;
            let name = name(&function);
            let size = PREFIX + LOAD_FIELDS + name.len() + 1 + code.len();
            self.begin(LOAD, size)?;
            for word in [std::process::id(), thread_id()] {
                self.to.write_all(&word.to_ne_bytes())?;
            }
            for word in [at, at, code.len() as u64, self.loaded] {
                self.to.write_all(&word.to_ne_bytes())?;
            }
            self.to.write_all(name.as_bytes())?;
            self.to.write_all(&[0])?;
            self.to.write_all(code)?;
            self.loaded += 1;
        }
        self.to.flush()
    }

    /// Writes down that there is no more. (A file without that is read to its end.)
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn close(mut self) -> io::Result<()> {
        self.begin(CLOSE, PREFIX)?;
        self.to.flush()
    }

    fn begin(&mut self, kind: u32, size: usize) -> io::Result<()> {
        let size = u32::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.to.write_all(&kind.to_ne_bytes())?;
        self.to.write_all(&size.to_ne_bytes())?;
        self.to.write_all(&monotonic_nanos().to_ne_bytes())
    }
}
