//! Functions by their symbols: aliases, labels, and symbols that tell no size.
//!
//! Symbol tables are made for linking, so that several symbols may stand for one function, for a
//! place inside one, or reach into the next. A code image has at most one function for each byte.

use super::elf_error::ElfError;
use super::elf_file::ElfFile;
use super::processor::{DESCRIPTOR_SIZE, Processor};
use super::text_layout::TextLayout;
use crate::registry::image_error::ImageError;
use core::cmp::Reverse;
use core::ops::Range;
use object::ReadRef;
use object::elf::{SHT_DYNSYM, SHT_SYMTAB, SectionType};
use object::read::elf::{FileHeader, Sym};

/// A function, or a symbol on the way to become one.
#[derive(Clone, Copy, Debug)]
pub(super) struct FunctionSymbol<'d> {
    /// Text offsets, half-open.
    start: u32,
    end: u32,
    /// Where the section ends that the code is in.
    section_end: u32,
    /// The least is preferred: symbols of the code itself to those of descriptors.
    by_descriptor: bool,
    /// How widely it is visible: the least most widely.
    rank: u8,
    pub(super) name: Option<&'d str>,
}

impl FunctionSymbol<'_> {
    /// Text offsets, half-open.
    pub(super) fn range(&self) -> Range<u32> {
        self.start..self.end
    }
}

/// The functions of a file, ascending, without overlap, none empty.
pub(super) fn all<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
    layout: &TextLayout<'d>,
) -> Result<Vec<FunctionSymbol<'d>>, ElfError> {
    let mut symbols = given(file, SHT_SYMTAB, layout)?;
    if symbols.is_empty() {
        symbols = given(file, SHT_DYNSYM, layout)?;
    }
    // Of those that start together the preferred one first, then the longest, then what it is called by.
    // Names are not compared here, where each could be compared many times.
    symbols.sort_unstable_by_key(|s| (s.start, s.by_descriptor, Reverse(s.end), s.rank));
    symbols.dedup_by(|symbol, first| {
        let together = symbol.start == first.start;
        let alike = |s: &FunctionSymbol<'_>| (s.by_descriptor, s.end, s.rank);
        if together && alike(symbol) == alike(first) {
            first.name = [first.name, symbol.name].into_iter().flatten().min();
        }
        together
    });
    leave_out_labels(&mut symbols);
    give_sizes(&mut symbols);
    Ok(without_overlap(symbols))
}

/// How many bytes the names of these functions have, together.
pub(super) fn name_bytes(functions: &[FunctionSymbol<'_>]) -> usize {
    functions.iter().filter_map(|function| function.name).map(str::len).sum()
}

/// The function symbols of a table that lie in the text. A size of zero is unknown.
fn given<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
    table: SectionType,
    layout: &TextLayout<'d>,
) -> Result<Vec<FunctionSymbol<'d>>, ElfError> {
    let (table, mut names) = file.symbols(table)?;
    let processor = Processor::of(file)?;
    let is_function = |symbol: &&Elf::Sym| processor.is_function(symbol.st_type());
    let mut symbols = Vec::new();
    let count = table.iter().filter(is_function).count();
    symbols.try_reserve_exact(count).map_err(|_| ImageError::OutOfMemory)?;
    for (index, symbol) in table.enumerate().filter(|(_, symbol)| is_function(symbol)) {
        let section = table.symbol_section(file.endian, symbol, index);
        let Some(section) = section.ok().flatten() else { continue };
        let value = symbol.st_value(file.endian).into();
        let by_descriptor = processor.is_descriptors(section);
        let (section, address) = if by_descriptor {
            let Some(address) = processor.described(value)? else { continue };
            (layout.section_around(address), address)
        } else {
            (layout.section(section), processor.code_address(value))
        };
        let Some(section) = section else { continue };
        let name = names.read(symbol.st_name(file.endian))?;
        if name.is_some_and(|name| processor.is_mapping_symbol(name)) {
            continue;
        }
        let size: u64 = symbol.st_size(file.endian).into();
        // Of a descriptor's symbol the size may be the descriptor's, which says nothing of the code.
        let size = if by_descriptor && size == DESCRIPTOR_SIZE { 0 } else { size };
        let start = address.checked_sub(section.address);
        let start = start.and_then(|inside| inside.checked_add(section.offset));
        let end = start.and_then(|start| start.checked_add(size));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= section.end())) else {
            return Err(ElfError::SymbolOutside { address, size });
        };
        let name = name.and_then(|name| str::from_utf8(name).ok()).filter(|name| !name.is_empty());
        symbols.push(FunctionSymbol {
            // Text offsets have 32 bits: see `TextLayout::of`.
            start: start as u32,
            end: end as u32,
            section_end: section.end() as u32,
            by_descriptor,
            rank: if symbol.is_local() { 2 } else { symbol.is_weak().into() },
            name,
        });
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
    let mut next = u32::MAX;
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
