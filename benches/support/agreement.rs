//! Before anything is measured: the contenders give the same answers, and give up what was
//! unregistered.

use crate::contender::Write;
use crate::layouts::Layout;

/// Asks a contender that holds the layout for what is there and what is not, and changes it for a
/// moment.
///
/// # Panics
///
/// If an answer is wrong.
pub(crate) fn check<C: Write>(contender: &C, layout: &Layout) {
    let ranges = &layout.ranges;
    for (range, value) in ranges.iter().zip(0..) {
        for pc in [range.start, range.end - 1] {
            let expected = Some((value, pc - range.start));
            assert_eq!(contender.value_and_offset(pc), expected, "{} at {pc:#x}", C::NAME);
        }
    }
    for pc in layout.probes() {
        let at = ranges.partition_point(|range| range.end <= pc);
        let expected = Some((at as u64, pc - ranges[at].start));
        assert_eq!(contender.value_and_offset(pc), expected, "{} at {pc:#x}", C::NAME);
        let answer = contender.find(pc).expect("registered");
        assert_eq!(answer >> (usize::BITS - 1), 0, "{}: the highest bit is in use", C::NAME);
    }
    for pc in layout.misses() {
        assert_eq!(contender.find(pc), None, "{} at {pc:#x}", C::NAME);
    }

    let gaps = layout.gaps();
    let free = gaps[gaps.len() / 2].clone();
    let inside = || contender.value_and_offset(free.start);
    assert_eq!(contender.with_one(free.clone(), 7, inside), Some((7, 0)), "{}", C::NAME);
    assert_eq!(inside(), None, "{}", C::NAME);
    contender.with_many(&gaps, || {
        for (gap, value) in gaps.iter().zip(0..) {
            let found = contender.value_and_offset(gap.end - 1);
            assert_eq!(found, Some((value, gap.len() - 1)), "{} at {gap:x?}", C::NAME);
        }
    });
    assert_eq!(inside(), None, "{}", C::NAME);
}
