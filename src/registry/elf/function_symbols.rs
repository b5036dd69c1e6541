//! Functions by their symbols: aliases, labels, and symbols that tell no size.
//!
//! Symbol tables are made for linking, so that several symbols may stand for one function, for a
//! place inside one, or reach into the next. A code image has at most one function for each byte.

use super::elf_error::ElfError;
use super::text_layout::TextLayout;
use crate::registry::image_error::ImageError;
use core::cmp::Reverse;
use core::ops::Range;
use object::{File, Object, ObjectSymbol, Symbol, SymbolKind};

/// A function, or a symbol on the way to become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct FunctionSymbol<'d> {
    /// Text offsets, half-open.
    start: u64,
    end: u64,
    /// Where the section ends that the symbol is in.
    section_end: u64,
    /// How widely it is visible: the least most widely.
    rank: u8,
    pub(super) name: Option<&'d str>,
}

impl FunctionSymbol<'_> {
    /// Text offsets, half-open. They fit into an image's text, which the layout is no longer than.
    pub(super) fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The functions of a file, ascending, without overlap, none empty.
pub(super) fn all<'d>(
    file: &File<'d>,
    layout: &TextLayout<'d>,
) -> Result<Vec<FunctionSymbol<'d>>, ElfError> {
    let mut symbols = given(file.symbols(), layout)?;
    if symbols.is_empty() {
        symbols = given(file.dynamic_symbols(), layout)?;
    }
    // Of those that start together the longest first, then what it is called by.
    symbols.sort_unstable_by_key(|s| (s.start, Reverse(s.end), s.rank, s.name.is_none(), s.name));
    symbols.dedup_by_key(|symbol| symbol.start);
    leave_out_labels(&mut symbols);
    give_sizes(&mut symbols);
    Ok(without_overlap(symbols))
}

/// The function symbols of a table that lie in the text. A size of zero is unknown.
fn given<'d: 'f, 'f>(
    table: impl Iterator<Item = Symbol<'d, 'f>>,
    layout: &TextLayout<'d>,
) -> Result<Vec<FunctionSymbol<'d>>, ElfError> {
    let mut symbols = Vec::new();
    for symbol in table.filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index().and_then(|index| layout.section(index)) else {
            continue;
        };
        let (address, size) = (symbol.address(), symbol.size());
        let start = address.checked_sub(section.address);
        let start = start.and_then(|inside| inside.checked_add(section.offset));
        let end = start.and_then(|start| start.checked_add(size));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= section.end())) else {
            return Err(ElfError::SymbolOutside { address, size });
        };
        let rank = if symbol.is_local() { 2 } else { u8::from(symbol.is_weak()) };
        let name = symbol.name().ok().filter(|name| !name.is_empty());
        symbols.try_reserve(1).map_err(|_| ImageError::OutOfMemory)?;
        symbols.push(FunctionSymbol { start, end, section_end: section.end(), rank, name });
    }
    Ok(symbols)
}

/// A symbol without a size, in what another one says is a function, is a place in that one.
fn leave_out_labels(symbols: &mut Vec<FunctionSymbol<'_>>) {
    let mut reach = 0;
    symbols.retain(|symbol| {
        let is_label = symbol.start == symbol.end && symbol.start < reach;
        reach = reach.max(symbol.end);
        !is_label
    });
}

/// Where no symbol tells a size, the function reaches to the next symbol, or the section's end.
fn give_sizes(symbols: &mut [FunctionSymbol<'_>]) {
    let mut next = u64::MAX;
    for symbol in symbols.iter_mut().rev() {
        if symbol.end == symbol.start {
            symbol.end = symbol.section_end.min(next);
        }
        next = symbol.start;
    }
}

/// Leaves out functions inside functions, and what is empty; cuts what reaches into the next function.
fn without_overlap(mut symbols: Vec<FunctionSymbol<'_>>) -> Vec<FunctionSymbol<'_>> {
    symbols.retain(|symbol| symbol.start < symbol.end);
    // `dedup_by` gives each symbol with the last one that stays.
    symbols.dedup_by(|symbol, last| {
        let inside = symbol.end <= last.end;
        if !inside {
            last.end = last.end.min(symbol.start);
        }
        inside
    });
    symbols
}
