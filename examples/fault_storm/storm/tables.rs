//! From an offset into a module's text to the function and the trap there: what a handler asks
//! once the map has found the module.
//!
//! Both tables are sorted by offset and searched by bisection. The searches are signal-safe: they
//! read, and they cannot panic.

use std::num::NonZeroU8;

/// A function's place in the text: half-open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FunctionSpan {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// An instruction that may fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrapSite {
    /// From the start of the text.
    pub(crate) offset: u32,
    /// The compiler's trap code.
    pub(crate) code: NonZeroU8,
}

/// A module's functions, in the order of their places.
#[derive(Debug)]
pub(crate) struct FunctionTable(Box<[FunctionSpan]>);

/// A module's traps, in the order of their places.
#[derive(Debug)]
pub(crate) struct TrapTable(Box<[TrapSite]>);

impl FunctionTable {
    /// Of spans that are placed one behind the other.
    pub(crate) fn new(spans: Vec<FunctionSpan>) -> Self {
        debug_assert!(spans.is_sorted_by(|a, b| a.end <= b.start));
        Self(spans.into())
    }

    pub(crate) fn spans(&self) -> &[FunctionSpan] {
        &self.0
    }

    /// Which function holds the offset, and how far in. Signal-safe.
    pub(crate) fn find(&self, offset: u32) -> Option<(u32, u32)> {
        let position = self.0.partition_point(|span| span.end <= offset);
        let within = offset.checked_sub(self.0.get(position)?.start)?;
        Some((position as u32, within))
    }
}

impl TrapTable {
    pub(crate) fn new(mut sites: Vec<TrapSite>) -> Self {
        sites.sort_unstable_by_key(|site| site.offset);
        Self(sites.into())
    }

    /// What the instruction at the offset traps with. Signal-safe.
    pub(crate) fn find(&self, offset: u32) -> Option<NonZeroU8> {
        let position = self.0.partition_point(|site| site.offset < offset);
        self.0.get(position).filter(|site| site.offset == offset).map(|site| site.code)
    }
}
