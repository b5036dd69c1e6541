//! Bytes that tell what to do. What is missing at their end is zeros, so that every input can be
//! read to the end of any sequence.

/// What is left of an input.
pub(crate) struct Input<'i>(pub(crate) &'i [u8]);

impl<'i> Input<'i> {
    pub(crate) fn byte(&mut self) -> usize {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
