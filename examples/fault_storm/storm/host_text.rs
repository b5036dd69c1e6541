//! Where the program's own code lies, and that of its libraries: so that a program counter in neither
//! the map nor there is one that the map has missed.

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::sync::OnceLock;

static HOST_TEXT: OnceLock<Vec<Range<usize>>> = OnceLock::new();

/// Notes all executable mappings of the process; before the first guest is loaded.
///
/// # Errors
///
/// If the system does not tell.
pub(crate) fn note() -> Result<(), Box<dyn Error>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let executable = maps.lines().filter_map(|line| {
        let (addresses, rest) = line.split_once(' ')?;
        let (start, end) = addresses.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        rest.as_bytes().get(2).filter(|&&x| x == b'x')?;
        Some(number(start)?..number(end)?)
    });
    HOST_TEXT.get_or_init(|| executable.collect());
    Ok(())
}

/// Whether the program counter is in the program or its libraries. Signal-safe: nothing is
/// initialised here.
pub(crate) fn contains(pc: usize) -> bool {
    HOST_TEXT.get().is_some_and(|ranges| ranges.iter().any(|range| range.contains(&pc)))
}
