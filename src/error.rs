//! What can go wrong when code is registered: the conflict, and what was given, handed back.

use crate::address_range::{CodeRange, RangeError};
use crate::index::Refusal;
use crate::memory::OutOfMemory;
use crate::registration::RegistrationKey;
use core::fmt;

/// Why a range was refused. Nothing has changed: neither the map nor what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The numbers are not a range of addresses.
    #[error(transparent)]
    InvalidRange(#[from] RangeError),
    /// Some address of the range is registered already.
    #[error("{requested} overlaps {existing}, which is registered already")]
    Overlap {
        /// The range that was to be registered (of a batch: the one in conflict).
        requested: CodeRange,
        /// The range in its way: one in the map, or another one of the same batch.
        existing: CodeRange,
    },
    /// There is no memory for the entry, or for the map's next version.
    #[error("out of memory: {bytes} bytes were asked for")]
    OutOfMemory {
        /// How many bytes were asked for.
        bytes: usize,
    },
}

impl From<OutOfMemory> for Refused {
    fn from(OutOfMemory { bytes }: OutOfMemory) -> Self {
        Self::OutOfMemory { bytes }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::OutOfMemory(error) => error.into(),
            Refusal::Overlap { added, existing } => Self::Overlap { requested: added, existing },
        }
    }
}

/// [`CodeMap::register`](crate::CodeMap::register) refused; the value comes back.
///
/// ```
/// use pcmap::{CodeMap, Refused};
///
/// let map = CodeMap::new();
/// let _held = map.register(0x1000..0x2000, "first").unwrap();
/// let error = map.register(0x1fff..0x3000, "second").unwrap_err();
/// assert_eq!(error.to_string(), "0x1fff..0x3000 overlaps 0x1000..0x2000, which is registered already");
/// assert!(matches!(error.reason, Refused::Overlap { existing, .. } if existing.start() == 0x1000));
/// assert_eq!(error.value, "second");
/// ```
#[non_exhaustive]
pub struct RegisterError<T> {
    /// Why.
    pub reason: Refused,
    /// The value that was to be registered.
    pub value: T,
}

/// [`CodeMap::register_all`](crate::CodeMap::register_all) refused; everything comes back.
#[non_exhaustive]
pub struct RegisterAllError<T, I> {
    /// Why.
    pub reason: Refused,
    /// The values that were taken from the iterator, in its order. After
    /// [`Refused::InvalidRange`] the last of them is the one with the invalid range.
    pub values: Vec<T>,
    /// The rest of the iterator, untouched.
    pub rest: I,
}

/// A key was given to a map that it is not of; the key comes back, and stays good for its map.
#[non_exhaustive]
pub struct WrongMap<T> {
    /// The key.
    pub key: RegistrationKey<T>,
}

impl<T> fmt::Display for RegisterError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> fmt::Debug for RegisterError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> core::error::Error for RegisterError<T> {}

impl<T, I> fmt::Display for RegisterAllError<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T, I> fmt::Debug for RegisterAllError<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterAllError")
            .field("reason", &self.reason)
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}

impl<T, I> core::error::Error for RegisterAllError<T, I> {}

impl<T> fmt::Display for WrongMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key of {} belongs to another map", self.key.range())
    }
}

impl<T> fmt::Debug for WrongMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrongMap").field("key", &self.key).finish()
    }
}

impl<T> core::error::Error for WrongMap<T> {}
