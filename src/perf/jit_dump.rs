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

use super::own_file::{Existing, OwnFile};
use super::{PerfError, name};
use crate::registry::CodeTables;
use crate::sys::perf::{Marker, monotonic_nanos, thread_id};
use std::path::{Path, PathBuf};
use std::{fs, io};

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
/// # image.function(FuncKey::new(0, 0), 0..1_u32, "nothing")?;
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
    to: OwnFile,
    /// Functions so far: each has a number.
    loaded: u64,
    /// Functions that were not written.
    missing: u64,
    _marker: Marker,
}

impl JitDump {
    /// Makes `jit-<pid>.dump` in this folder; gives its path, too. What a process that is gone has left, and a
    /// link, are replaced.
    ///
    /// # Errors
    ///
    /// What the system says (a file of another user cannot be replaced in `/tmp`); it has to let the file be
    /// mapped as code. `AlreadyExists` if this process has written a dump there, with pcmap or another JIT: the
    /// format has one writer.
    pub fn create(folder: &Path) -> io::Result<(Self, PathBuf)> {
        let path = folder.join(format!("jit-{}.dump", std::process::id()));
        let mut to = OwnFile::open(&path, Existing::Refuse)?;
        match Self::begin(&mut to) {
            Ok(marker) => Ok((Self { to, loaded: 0, missing: 0, _marker: marker }, path)),
            Err(error) => {
                // What is there is no dump. That it stays, as an empty file, would be the lesser error.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Writes the header, and maps it.
    fn begin(to: &mut OwnFile) -> io::Result<Marker> {
        let mut header = Vec::new();
        for word in [MAGIC, VERSION, HEADER, MACHINE, 0, std::process::id()] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(monotonic_nanos().to_ne_bytes());
        header.extend(0_u64.to_ne_bytes());
        write_all(to, &header, &[header.len()]).1?;
        Marker::map(&to.file)
    }

    /// Writes all functions of a text that starts at this absolute address down, and makes sure that
    /// they are written. O(text), in time and memory.
    ///
    /// # Errors
    ///
    /// - [`PerfError::AnotherText`], [`PerfError::TooLong`]: nothing was written.
    /// - [`PerfError::OtherProcess`]: the process was forked since the file was made. Nothing was written.
    /// - [`PerfError::System`]: what the system says. What was written are whole functions.
    /// - [`PerfError::Missing`]: all was written, but earlier calls had failed.
    pub fn load(
        &mut self,
        start: usize,
        text: &[u8],
        tables: &CodeTables,
    ) -> Result<(), PerfError> {
        self.to.check_process()?;
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        for (number, function) in (self.loaded..).zip(tables.functions()) {
            let range = function.range;
            let code = text.get(range.start().get() as usize..range.end().get() as usize);
            let code = code.ok_or(PerfError::AnotherText { range, text_len: text.len() })?;
            let at = start.wrapping_add(range.start().get() as usize) as u64;
            let name = name(&function);
            let size = PREFIX + LOAD_FIELDS + name.len() + 1 + code.len();
            let size = u32::try_from(size).map_err(|_| PerfError::TooLong { range })?;
            begin_record(&mut records, LOAD, size);
            for word in [std::process::id(), thread_id()] {
                records.extend(word.to_ne_bytes());
            }
            for word in [at, at, code.len() as u64, number] {
                records.extend(word.to_ne_bytes());
            }
            records.extend(name.as_bytes());
            records.push(0);
            records.extend(code);
            ends.push(records.len());
        }
        let (written, result) = write_all(&mut self.to, &records, &ends);
        // A number that is left out does no harm.
        self.loaded += ends.len() as u64;
        self.missing += (ends.len() - written) as u64;
        result?;
        self.check_missing()
    }

    /// Writes down that there is no more. (A file without that is read to its end.)
    ///
    /// # Errors
    ///
    /// As [`JitDump::load`].
    pub fn close(mut self) -> Result<(), PerfError> {
        self.to.check_process()?;
        let mut record = Vec::new();
        begin_record(&mut record, CLOSE, PREFIX as u32);
        write_all(&mut self.to, &record, &[record.len()]).1?;
        self.check_missing()
    }

    fn check_missing(&self) -> Result<(), PerfError> {
        match self.missing {
            0 => Ok(()),
            functions => Err(PerfError::Missing { functions }),
        }
    }
}

fn begin_record(records: &mut Vec<u8>, kind: u32, size: u32) {
    records.extend(kind.to_ne_bytes());
    records.extend(size.to_ne_bytes());
    records.extend(monotonic_nanos().to_ne_bytes());
}

/// Writes records that end at these places, as many as can be; gives how many.
fn write_all(to: &mut OwnFile, records: &[u8], ends: &[usize]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < ends.len() {
        let start = written.checked_sub(1).map_or(0, |last| ends[last]);
        let whole = |len: usize| ends[written..].partition_point(|&end| end - start <= len);
        let kept =
            |len: usize| whole(len).checked_sub(1).map_or(0, |last| ends[written + last] - start);
        match to.write_records(&records[start..], kept) {
            Ok(len) => written += whole(len),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}
