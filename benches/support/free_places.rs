//! Where writers put ranges among those of a layout.

use crate::layouts::Layout;
use std::ops::Range;

/// Room for the largest batch, in the midst of the other ranges.
const ROOM: usize = 1 << 20;

/// The layout with its upper half moved up, for batches to lie between the halves.
pub(crate) fn with_room(mut layout: Layout) -> Layout {
    let middle = layout.n() / 2;
    for range in &mut layout.ranges[middle..] {
        *range = range.start + ROOM..range.end + ROOM;
    }
    layout
}

/// Free places for single ranges, in random order.
pub(crate) fn places(layout: &Layout) -> Vec<Range<usize>> {
    const LONGEST: usize = 0x100;
    let mut places = layout.gaps();
    fastrand::Rng::with_seed(1).shuffle(&mut places);
    places.truncate(1 << 14);
    for place in &mut places {
        place.end = place.end.min(place.start + LONGEST);
    }
    places
}

/// A module's functions: all in the room in the middle.
pub(crate) fn side_by_side(layout: &Layout, k: usize) -> Vec<Range<usize>> {
    const STRIDE: usize = 64;
    const LENGTH: usize = 48;
    let room = layout.ranges[layout.n() / 2 - 1].end;
    (0..k).map(|i| room + i * STRIDE..room + i * STRIDE + LENGTH).collect()
}

/// In gaps between other ranges, chosen at random; `None` if there are too few.
pub(crate) fn scattered(layout: &Layout, k: usize) -> Option<Vec<Range<usize>>> {
    let mut chosen = places(layout).get(..k)?.to_vec();
    chosen.sort_unstable_by_key(|place| place.start);
    Some(chosen)
}
