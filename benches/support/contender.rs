//! What the contenders have in common.

use crate::options::Options;
use std::ops::Range;

/// An index that can be asked.
///
/// The answer is a number that identifies the object and the offset in it, without a look at the
/// object itself: its address (or position) with the offset mixed in. Its highest bit is never
/// set. Contenders that hand out an `Arc` make their clone for it and drop it again.
pub(crate) trait Lookup: Sync + Sized {
    /// As the ratio lines name it.
    const NAME: &'static str;

    /// An index of `ranges`, which are in ascending order and disjoint; each range's value is its
    /// position.
    fn holding(ranges: &[Range<usize>]) -> Self;

    /// The answer for an address; `None` if no range holds it.
    fn find(&self, pc: usize) -> Option<usize>;
}

/// An index that can be changed while others ask it.
pub(crate) trait Write: Lookup {
    /// The value and the offset, for checking answers.
    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)>;

    /// Registers a range, calls `meanwhile`, and unregisters it.
    fn with_one<R>(&self, range: Range<usize>, value: u64, meanwhile: impl FnOnce() -> R) -> R;

    /// The same with many ranges at once, in ascending order, each with its position as its value.
    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R;
}

/// An answer from an object's address and the offset.
pub(crate) fn answer<T>(object: *const T, offset: usize) -> usize {
    object.addr() ^ offset
}

/// Whether no filter on the command line excludes the contender of this name.
pub(crate) fn is_wanted(options: &Options, name: &str) -> bool {
    options.contenders.is_empty() || options.contenders.iter().any(|wanted| wanted == name)
}
