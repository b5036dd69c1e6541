//! The file of one process: made or found, appended to by whole records, and by no other process.

use super::PerfError;
use crate::sys::{fork, perf};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// What is done where this process has a file of that name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It is appended to: others of this process may write there, too.
    Append,
    /// It is an error.
    Refuse,
}

/// A file that only this process writes to, always at its end.
#[derive(Debug)]
pub(super) struct OwnFile {
    pub(super) file: File,
    /// The process that made it, by the number that tells it from its children, and by its own.
    generation: usize,
    process: u32,
    /// The length without a part of a record, if that part could not be taken back yet.
    whole_len: Option<u64>,
}

impl OwnFile {
    /// Makes the file, or finds that of this process. One that an earlier process left is replaced, and so
    /// is a link: nothing is written to where it leads.
    pub(super) fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).append(true).custom_flags(perf::NO_LINK);
        let file = match fs::symlink_metadata(path) {
            Ok(found) if is_of_this_process(&found) => match existing {
                Existing::Append => options.open(path)?,
                Existing::Refuse => return Err(ErrorKind::AlreadyExists.into()),
            },
            Ok(_) => {
                fs::remove_file(path)?;
                options.create_new(true).open(path)?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                options.create_new(true).open(path)?
            }
            Err(error) => return Err(error),
        };
        perf::have_all_append(&file)?;
        let (generation, process) = (fork::generation(), std::process::id());
        Ok(Self { file, generation, process, whole_len: None })
    }

    /// An error in any process but the one that made this.
    pub(super) fn check_process(&self) -> Result<(), PerfError> {
        match fork::generation() == self.generation {
            true => Ok(()),
            false => Err(PerfError::OtherProcess { process: self.process }),
        }
    }

    /// Writes whole records from the start of `bytes`, some of them or all; gives their bytes. `whole` tells
    /// of a number of bytes how many of them are whole records. A part of a record is taken back.
    pub(super) fn write_records(
        &mut self,
        bytes: &[u8],
        whole: impl Fn(usize) -> usize,
    ) -> io::Result<usize> {
        if let Some(len) = self.whole_len {
            self.file.set_len(len)?;
            self.whole_len = None;
        }
        // The first attempt may find room for a part only. The second tells why.
        for _ in 0..2 {
            let written = match self.file.write(bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                written => written?,
            };
            let kept = whole(written);
            self.take_back(written - kept)?;
            if kept > 0 {
                return Ok(kept);
            }
        }
        Err(ErrorKind::WriteZero.into())
    }

    /// Takes back the last bytes that were written, unless somebody has written behind them.
    fn take_back(&mut self, bytes: usize) -> io::Result<()> {
        let end = self.file.stream_position()?;
        if bytes == 0 || self.file.metadata()?.len() != end {
            return Ok(());
        }
        let len = end.saturating_sub(bytes as u64);
        self.whole_len = Some(len);
        self.file.set_len(len)?;
        self.whole_len = None;
        Ok(())
    }
}

/// Whether a file of this process's name was written to in its lifetime. Process numbers are used again, so
/// that it may also be what an earlier process left.
fn is_of_this_process(file: &Metadata) -> bool {
    // File systems round times; and a process's start is told to a hundredth of a second.
    const ROUNDING: Duration = Duration::from_secs(1);
    let is_ours = file.is_file() && file.nlink() == 1 && file.uid() == perf::user_id();
    let is_older = match (file.modified(), perf::process_start()) {
        (Ok(modified), Some(start)) => modified + ROUNDING < start,
        // Better a line too many than somebody's map deleted.
        _ => false,
    };
    is_ours && !is_older
}
