//! Where to cut slots that are too many for one node, or lie too far apart.

use super::slot::Slot;

/// Whether the gap before `at` is a large part of what the slots span: then they are clusters, far
/// from each other.
pub(super) fn is_torn<T>(slots: &[Slot<T>], at: usize) -> bool {
    let (Some([before, behind]), [first, .., last]) = (slots.get(at.wrapping_sub(1)..=at), slots)
    else {
        return false;
    };
    behind.start() - before.start() > (last.start() - first.start()) / 8
}

/// Where to cut slots that do not fit one node: in the middle half, at the widest gap between two
/// starts (to a power of two: small differences do not move it from the middle).
pub(super) fn best_cut<T>(slots: &[Slot<T>]) -> usize {
    let len = slots.len();
    let width = |at: usize| match slots.get(at - 1..=at) {
        Some([before, behind]) => (behind.start() - before.start()).max(1).ilog2(),
        _ => 0,
    };
    let middle = len / 2;
    let nearest_first = (0..len / 4).flat_map(|away| [middle + away, middle - away]);
    // `max_by_key` gives the last of several: the nearest is asked last.
    nearest_first.rev().max_by_key(|&at| width(at)).unwrap_or(middle)
}
