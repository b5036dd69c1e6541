//! The functions of a large shared object on this machine, from its unwind tables: real lengths at
//! real distances.

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, NativeEndian, UnwindSection};
use object::read::{Object, ObjectSection, ReadCache};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As if the system had loaded it here.
const BASE: u64 = 0x7f00_0000_0000;

/// How many of the largest files are looked into.
const CANDIDATES: usize = 12;

/// A shared object's functions, ascending, disjoint, none empty.
#[derive(Debug)]
pub(crate) struct SharedObject {
    pub(crate) name: String,
    pub(crate) functions: Vec<Range<usize>>,
}

impl SharedObject {
    /// The one with most functions among the largest: those of this process, the compiler's, the
    /// system's.
    pub(crate) fn with_most_functions() -> Option<Self> {
        let mut files: Vec<(u64, PathBuf)> = loaded();
        for folder in [PathBuf::from("/usr/lib"), PathBuf::from("/usr/lib64")]
            .into_iter()
            .chain([PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH))])
            .chain(compiler_libraries())
        {
            files.extend(shared_objects(&folder));
        }
        files.sort_unstable();
        files.dedup();
        let largest = files.into_iter().rev().take(CANDIDATES);
        // Each row of the sorted table is of the same size.
        let (_, chosen) = largest.filter_map(|(_, file)| Some((table_size(&file)?, file))).max()?;
        let name = chosen.file_name()?.to_string_lossy().into_owned();
        Some(Self { name, functions: functions(&chosen)? })
    }
}

/// Files mapped into this process, with their sizes.
fn loaded() -> Vec<(u64, PathBuf)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let paths = maps.lines().filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    paths.filter_map(sized).collect()
}

/// Where the compiler in use keeps its own.
fn compiler_libraries() -> Option<PathBuf> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(compiler).args(["--print", "sysroot"]).output().ok()?;
    Some(Path::new(String::from_utf8(told.stdout).ok()?.trim()).join("lib"))
}

fn shared_objects(folder: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| is_shared_object(path)).filter_map(sized).collect()
}

fn is_shared_object(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.extension() == Some(OsStr::new("so")) || name.contains(".so.")
}

fn sized(path: PathBuf) -> Option<(u64, PathBuf)> {
    let path = path.canonicalize().ok()?;
    Some((path.metadata().ok()?.len(), path))
}

/// The size of the table that lists the functions.
fn table_size(path: &Path) -> Option<u64> {
    let file = ReadCache::new(File::open(path).ok()?);
    let object = object::File::parse(&file).ok()?;
    Some(object.section_by_name(".eh_frame_hdr")?.size())
}

fn functions(path: &Path) -> Option<Vec<Range<usize>>> {
    let file = ReadCache::new(File::open(path).ok()?);
    let object = object::File::parse(&file).ok()?;
    let header = object.section_by_name(".eh_frame_hdr")?;
    let frames = object.section_by_name(".eh_frame")?;
    let bases = BaseAddresses::default()
        .set_eh_frame_hdr(header.address())
        .set_eh_frame(frames.address())
        .set_text(object.section_by_name(".text").map_or(0, |text| text.address()));
    let parsed = EhFrameHdr::new(header.data().ok()?, NativeEndian).parse(&bases, 8).ok()?;
    let frames = EhFrame::new(frames.data().ok()?, NativeEndian);
    let table = parsed.table()?;

    let mut functions = Vec::new();
    let mut end = 0;
    for row in table.iter(&bases) {
        let (_, frame) = row.ok()?;
        let frame = table.pointer_to_offset(frame).ok()?;
        let frame = frames.fde_from_offset(&bases, frame, EhFrame::cie_from_offset).ok()?;
        // The rows are sorted; a function that begins inside another one is left out.
        if frame.initial_address() >= end && frame.len() > 0 {
            let start = frame.initial_address();
            end = start + frame.len();
            functions.push((BASE + start) as usize..(BASE + end) as usize);
        }
    }
    Some(functions)
}
