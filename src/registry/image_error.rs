//! Why a code image was refused: the conflict, by name.

use super::keys::{FuncKey, SignatureKey, TrapCode};
use super::text_offset::{TextOffset, TextRange, TextRangeError};

/// Why something is no part of a code image. Nothing was changed, and nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The numbers are no place in text.
    #[error(transparent)]
    InvalidRange(#[from] TextRangeError),
    /// The text is longer than text offsets reach.
    #[error("{len} bytes of text are more than 32 bits count")]
    TextTooLong {
        /// Its length in bytes.
        len: u64,
    },
    /// The alignment is not a power of two.
    #[error("text cannot be aligned to {align} bytes, which is not a power of two")]
    Alignment {
        /// The alignment in bytes.
        align: u64,
    },
    /// A function is not inside the text.
    #[error("function {key} at {range} is not inside the text of {text_len:#x} bytes")]
    FunctionOutside {
        /// The function.
        key: FuncKey,
        /// Where it is said to be.
        range: TextRange,
        /// The length of the text in bytes.
        text_len: u32,
    },
    /// A function has no code.
    #[error("function {key} at {at} is empty")]
    FunctionEmpty {
        /// The function.
        key: FuncKey,
        /// Where it is said to be.
        at: TextOffset,
    },
    /// Two functions share code.
    #[error("function {second} at {second_range} overlaps function {first} at {first_range}")]
    FunctionsOverlap {
        /// The one that starts first.
        first: FuncKey,
        /// Where that is.
        first_range: TextRange,
        /// The other one.
        second: FuncKey,
        /// Where that is.
        second_range: TextRange,
    },
    /// Two functions have one key.
    #[error("function {key} is at {first} and at {second}")]
    DuplicateFunction {
        /// The key.
        key: FuncKey,
        /// Where one of them is.
        first: TextRange,
        /// Where the other one is.
        second: TextRange,
    },
    /// A trap is not inside the text.
    #[error("the trap at {at} is not inside the text of {text_len:#x} bytes")]
    TrapOutside {
        /// Where it is said to be.
        at: TextOffset,
        /// The length of the text in bytes.
        text_len: u32,
    },
    /// One instruction is given two trap codes, or one twice.
    #[error("the instruction at {at} has both {first} and {second}")]
    DuplicateTrap {
        /// Where it is.
        at: TextOffset,
        /// One of its codes.
        first: TrapCode,
        /// The other one.
        second: TrapCode,
    },
    /// An entry of the address map is not inside the text.
    #[error("the source of {at} is not of this text of {text_len:#x} bytes")]
    AddressOutside {
        /// Where it is said to be.
        at: TextOffset,
        /// The length of the text in bytes.
        text_len: u32,
    },
    /// Two entries of the address map speak for the same place.
    #[error("the source of {at} is given twice")]
    DuplicateAddress {
        /// The place.
        at: TextOffset,
    },
    /// A trampoline is no function of this image.
    #[error("the trampoline of {signature} is function {key}, which there is not")]
    UnknownTrampoline {
        /// What it is for.
        signature: SignatureKey,
        /// The function that there is not.
        key: FuncKey,
    },
    /// A signature has two trampolines.
    #[error("{signature} has the trampolines {first} and {second}")]
    DuplicateTrampoline {
        /// What they are for.
        signature: SignatureKey,
        /// One of them.
        first: FuncKey,
        /// The other one.
        second: FuncKey,
    },
    /// A breakpoint site has no bytes, or is not inside one function.
    #[error("the breakpoint site at {range} is empty or not inside one function")]
    SiteOutside {
        /// Where it is said to be.
        range: TextRange,
    },
    /// Two breakpoint sites share bytes.
    #[error("the breakpoint sites at {first} and {second} overlap")]
    SitesOverlap {
        /// The one that starts first.
        first: TextRange,
        /// The other one.
        second: TextRange,
    },
    /// More of something, or longer names, than 32 bits count.
    #[error("more than 32 bits can count")]
    TooMany,
    /// There is no memory.
    #[error("out of memory")]
    OutOfMemory,
}
