//! Heap memory that may not be there: what the standard library's `Box` and `Arc` lack is a way to say so.

mod boxed;
mod shared;

pub(crate) use boxed::try_box;
pub(crate) use shared::{Block, Shared};

/// There is no heap memory. Nothing has changed.
///
/// ```
/// let error = pcmap::OutOfMemory { bytes: 4096 };
/// assert_eq!(error.to_string(), "out of memory: 4096 bytes were asked for");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {bytes} bytes were asked for")]
pub struct OutOfMemory {
    /// How many bytes were asked for.
    pub bytes: usize,
}

impl OutOfMemory {
    /// For so many `X`.
    pub(crate) const fn of<X>(count: usize) -> Self {
        Self { bytes: count.saturating_mul(size_of::<X>()) }
    }
}
