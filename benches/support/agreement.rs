//! Before anything is measured: the contenders give the same answers, and give up what was
//! unregistered.

use crate::contender::{Write, answer};
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
            let expected = Some(answer(value, pc - range.start));
            assert_eq!(contender.find(pc), expected, "{} at {pc:#x}", C::NAME);
        }
    }
    for pc in layout.probes() {
        let at = ranges.partition_point(|range| range.end <= pc);
        let offset = pc - ranges[at].start;
        let expected = Some((at as u64, offset));
        assert_eq!(contender.value_and_offset(pc), expected, "{} at {pc:#x}", C::NAME);
        let found = contender.find(pc).expect("registered");
        assert_eq!(found, answer(at as u64, offset), "{} at {pc:#x}", C::NAME);
        assert_eq!(found >> (usize::BITS - 1), 0, "{}: the highest bit is in use", C::NAME);
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

    // A few small writes leave little. A count that fell below zero is huge.
    let garbage = contender.garbage_bytes().unwrap_or(0);
    assert!(garbage < 1 << 30, "{} tells of {garbage} bytes of garbage", C::NAME);
}
