//! Ranges of code that stay, and those that come and go.

use pcmap::CodeMap;
use std::ops::Range;

/// Ranges that stay, in cases that do not ask for more.
pub(crate) const STAYING: usize = 100;

const BASE: usize = 0x1000_0000_0000;
const STRIDE: usize = 0x1000;
const LENGTH: usize = 0xc00;

/// The range at a place.
pub(crate) fn range(place: usize) -> Range<usize> {
    let start = BASE + place * STRIDE;
    start..start + LENGTH
}

/// A map of `n` ranges, which stay.
pub(crate) fn map_of(n: usize) -> CodeMap<u64> {
    let map = CodeMap::new();
    let code = (0..n).map(range).zip(0..);
    for code in map.register_all(code).expect("disjoint") {
        code.leak();
    }
    map
}

/// The places of one writer, far from all others', one after the other and again.
pub(crate) fn places(writer: usize) -> impl Iterator<Item = Range<usize>> {
    const LENGTH: usize = 64;
    let start = (1 << 45) + (writer << 40);
    (0..1_000).cycle().map(move |place| start + place * LENGTH..start + (place + 1) * LENGTH)
}

/// The words of a figure's circumstances.
pub(crate) fn circumstances(case: &str, n: usize, writers: usize) -> String {
    format!(" case={case} layout=even n={n} writers={writers}")
}
