#![expect(unsafe_code, reason = "asks the allocator")]
//! What a process has: mappings, resident memory, and memory from the C library's allocator.

use std::fmt;
use std::fs;
use std::path::Path;

/// As the system and the C library count.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    mappings: usize,
    /// Of all mappings together, whether resident or not.
    mapped_bytes: usize,
    /// Of its own: not of files.
    resident_bytes: usize,
    /// Handed out by `malloc`, to the byte.
    allocated_bytes: usize,
}

/// What may come and go by itself, such as what the allocator keeps at hand. A page for each load is
/// eight times as much.
const SLACK: usize = 256 * 1024;
/// The same for `malloc`, which counts to the byte (and counts what its caches hold): less than its
/// smallest block for each load.
const ALLOCATED_SLACK: usize = 12_000;

fn maps() -> String {
    fs::read_to_string("/proc/self/maps").expect("the system tells")
}

/// How many mappings are of this file.
pub(crate) fn mappings_of(file: &Path) -> usize {
    let name = file.file_name().expect("a file").to_string_lossy();
    maps().lines().filter(|line| line.contains(&*name)).count()
}

/// A number of kilobytes behind `label`, in bytes.
fn kilobytes(file: &str, label: &str) -> usize {
    let text = fs::read_to_string(file).expect("the system tells");
    let line = text.lines().find_map(|line| line.strip_prefix(label)).expect("there is one");
    let number = line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number");
    number * 1024
}

impl Figures {
    pub(crate) fn now() -> Self {
        // SAFETY: gives back what `malloc` keeps; no preconditions.
        unsafe { libc::malloc_trim(0) };
        // SAFETY: asks only.
        let allocated = unsafe { libc::mallinfo2() };
        Self {
            mappings: maps().lines().count(),
            mapped_bytes: kilobytes("/proc/self/status", "VmSize:"),
            // By walking the pages: the figures in `status` are estimates on many cores.
            resident_bytes: kilobytes("/proc/self/smaps_rollup", "Anonymous:"),
            allocated_bytes: allocated.uordblks + allocated.hblkhd,
        }
    }

    /// What there is more of than before, in words.
    fn growth_over(&self, before: &Self) -> Vec<String> {
        let rows = [
            ("mappings", self.mappings, before.mappings, 4),
            ("mapped bytes", self.mapped_bytes, before.mapped_bytes, SLACK),
            ("resident bytes", self.resident_bytes, before.resident_bytes, SLACK),
            ("allocated bytes", self.allocated_bytes, before.allocated_bytes, ALLOCATED_SLACK),
        ];
        let grown = rows.into_iter().filter(|(_, now, before, slack)| *now > before + slack);
        grown.map(|(what, now, before, _)| format!("{what}: {before}, then {now}")).collect()
    }

    pub(crate) fn shows_growth_over(&self, before: &Self) -> bool {
        !self.growth_over(before).is_empty()
    }

    #[track_caller]
    pub(crate) fn assert_no_more_than(&self, before: &Self, loads: usize) {
        let growth = self.growth_over(before);
        assert!(growth.is_empty(), "{loads} loads leave something: {}", growth.join("; "));
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mappings, mapped_bytes, resident_bytes, allocated_bytes } = self;
        let (mapped, resident) = (mapped_bytes / 1024, resident_bytes / 1024);
        write!(f, "{mappings} mappings, {mapped} KiB mapped, {resident} KiB resident, ")?;
        write!(f, "{allocated_bytes} bytes allocated")
    }
}
