//! What thread sanitizer understands in place of fences, in builds with `--cfg pcmap_tsan` only.
//!
//! It follows atomic accesses and takes no notice of fences, so it would report as a race what only
//! a fence keeps in order. In such a build
//!
//! - a `SeqCst` fence is an exchange on one place, by which each sees all that came before the
//!   earlier ones;
//! - whoever gives up a count sees what those did who gave theirs up before, as the last one sees it
//!   otherwise by its `Acquire` fence.
//!
//! Both order more than what they stand for: what rests on fences alone is for the models and the
//! litmus tests to show. Everything else (leaving before destruction, claims, hand-overs of memory)
//! is in these builds what it is in others.

use core::sync::atomic::{AtomicUsize, Ordering};

static FENCE: AtomicUsize = AtomicUsize::new(0);

/// In the place of a fence.
pub(crate) fn fence(ordering: Ordering) {
    if ordering == Ordering::SeqCst {
        FENCE.fetch_add(1, Ordering::AcqRel);
    }
}

/// The ordering of an edge.
pub(crate) const fn ordering(edge: &str, ordering: Ordering) -> Ordering {
    match edge.as_bytes() {
        b"count_down" => Ordering::AcqRel,
        _ => ordering,
    }
}
