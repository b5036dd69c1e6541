//! What the contenders have in common.

use crate::options::Options;
use std::ops::Range;

/// An index that can be asked.
///
/// A lookup reads the first word of the value, for a handler that finds code goes on to read what is
/// known about it. The answer is that word with the offset mixed in, so all contenders give the same
/// one. Its highest bit is never set. Contenders that hand out an `Arc` make their clone for it and
/// drop it again.
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
    /// What unregisters a range.
    type Held<'i>
    where
        Self: 'i;

    /// The value and the offset, for checking answers.
    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)>;

    fn register(&self, range: Range<usize>, value: u64) -> Self::Held<'_>;

    fn unregister<'i>(&'i self, held: Self::Held<'i>);

    /// Registers a range, calls `meanwhile`, and unregisters it.
    #[inline]
    fn with_one<R>(&self, range: Range<usize>, value: u64, meanwhile: impl FnOnce() -> R) -> R {
        let held = self.register(range, value);
        let result = meanwhile();
        self.unregister(held);
        result
    }

    /// The same with many ranges at once, in ascending order, each with its position as its value.
    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R;

    /// The bytes of what was displaced and is not destroyed yet; `None` from those that cannot tell.
    fn garbage_bytes(&self) -> Option<u64> {
        None
    }
}

/// An answer from the first word of a value and the offset.
#[inline]
pub(crate) fn answer(first_word: u64, offset: usize) -> usize {
    first_word as usize ^ offset
}

/// Whether no filter on the command line excludes the contender of this name.
pub(crate) fn is_wanted(options: &Options, name: &str) -> bool {
    options.contenders.is_empty() || options.contenders.iter().any(|wanted| wanted == name)
}
