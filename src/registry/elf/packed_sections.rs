//! The sections of wasmtime's artifacts that pcmap makes tables of: traps, and source offsets.
//!
//! Both are entries in blocks of 128, with an index of the blocks, and ascend by text offset:
//!
//! ```text
//!     0             4             8                          8+8B
//!     +-------------+-------------+--------------------------+---------------------+
//!     | entries: u32| blocks: u32 | (first, body: 2×u32)×B   | body | body | …      |
//!     +-------------+-------------+--------------------------+---------------------+
//!
//! first  the text offset of a block's first entry
//! body   where its body starts, from 8+8B
//!
//! of traps, a body is    the block's usual code: u8, then entries
//!          an entry is   varint: bytes of text from the entry before (the first: 0), doubled,
//!                        plus 1 if a code: u8 follows that is not the usual one
//! of sources, a body is  entries
//!          an entry is   varint: bytes of text from the entry before (the first: 0), doubled,
//!                        plus 1 if there is no source, else followed by
//!                        a varint, the first source of the block, or
//!                        a signed varint, the distance from the source before it in the block
//! ```
//!
//! The bodies follow one another without gaps and fill the section, and the first entry of each is
//! where the index says; anything else is refused. So there are no more entries than there are bytes.
//!
//! Several entries may have one offset, also in neighbouring blocks. Wasmtime looks for an offset in
//! one block only, the last that starts at or before it; what it finds there is what is read here.

use super::elf_error::ElfError;
use crate::registry::code_image_builder::CodeImageBuilder;
use crate::registry::keys::TrapCode;
use crate::registry::little_endian::{u32_at, widen};
use crate::registry::text_offset::{SourceOffset, TextOffset};
use crate::registry::varint;
use core::mem;

const BLOCK: usize = 128;

/// Adds the traps of a section. Where several are given for an instruction, the first one of the last
/// block holds, as it does for wasmtime.
pub(super) fn read_traps(
    section: Option<&[u8]>,
    name: &'static str,
    builder: &mut CodeImageBuilder,
) -> Result<(), ElfError> {
    builder.reserve_traps(entries(section, name)?)?;
    let mut held: Option<(TextOffset, TrapCode)> = None;
    blocks(section, name, |block| {
        let usual = block.byte()?;
        let mut last = None;
        while let Some((offset, differs)) = block.next()? {
            let code = if differs { block.byte()? } else { usual };
            if last == Some(offset) {
                continue;
            }
            last = Some(offset);
            if let Some((before, code)) = held.filter(|&(before, _)| before != offset) {
                builder.trap(before, code)?;
            }
            held = Some((offset, TrapCode::new(code)));
        }
        Ok(())
    })?;
    if let Some((offset, code)) = held {
        builder.trap(offset, code)?;
    }
    Ok(())
}

/// Adds the source offsets of a section. Where several are given for a place, the last holds, as it
/// does for wasmtime.
pub(super) fn read_addresses(
    section: Option<&[u8]>,
    name: &'static str,
    builder: &mut CodeImageBuilder,
) -> Result<(), ElfError> {
    builder.reserve_addresses(entries(section, name)?)?;
    let mut held: Option<(TextOffset, Option<SourceOffset>)> = None;
    blocks(section, name, |block| {
        let mut source: Option<u32> = None;
        while let Some((offset, is_none)) = block.next()? {
            let found = if is_none {
                None
            } else {
                source = Some(block.source(source)?);
                source.map(SourceOffset::new)
            };
            if let Some((before, source)) = held.filter(|&(before, _)| before != offset) {
                builder.address(before, source)?;
            }
            held = Some((offset, found));
        }
        Ok(())
    })?;
    if let Some((offset, source)) = held {
        builder.address(offset, source)?;
    }
    Ok(())
}

/// How many entries a section has: no more than bytes.
fn entries(section: Option<&[u8]>, name: &'static str) -> Result<usize, ElfError> {
    let malformed = ElfError::MalformedSection { name };
    let Some(section) = section else { return Ok(0) };
    let entries = u32_at(section, 0).map(widen).ok_or(malformed)?;
    if entries <= section.len() { Ok(entries) } else { Err(malformed) }
}

/// A block that is being read.
struct Block<'a> {
    name: &'static str,
    /// What is left of the bodies, of this block and those behind it.
    bytes: &'a [u8],
    /// Entries to come.
    left: usize,
    /// Whether none has been read.
    unread: bool,
    offset: u32,
}

/// Has `read` read block after block, each to its end.
fn blocks<'a>(
    section: Option<&'a [u8]>,
    name: &'static str,
    mut read: impl FnMut(&mut Block<'a>) -> Result<(), ElfError>,
) -> Result<(), ElfError> {
    let malformed = ElfError::MalformedSection { name };
    let Some(section) = section else { return Ok(()) };
    let entries = u32_at(section, 0).map(widen).ok_or(malformed)?;
    let count = u32_at(section, 4).map(widen).ok_or(malformed)?;
    let rest = section.get(8..).ok_or(malformed)?;
    let index = count.checked_mul(8).ok_or(malformed)?;
    let (index, bodies) = rest.split_at_checked(index).ok_or(malformed)?;
    if count != entries.div_ceil(BLOCK) {
        return Err(malformed);
    }
    let (mut rest, mut left, mut end) = (bodies, entries, 0);
    for slot in index.chunks_exact(8) {
        let (offset, body) = (u32_at(slot, 0).ok_or(malformed)?, u32_at(slot, 4).ok_or(malformed)?);
        if offset < end || bodies.len() - rest.len() != widen(body) {
            return Err(malformed);
        }
        let mut block = Block { name, bytes: rest, left: left.min(BLOCK), unread: true, offset };
        left -= block.left;
        read(&mut block)?;
        (rest, end) = (block.bytes, block.offset);
    }
    if rest.is_empty() { Ok(()) } else { Err(malformed) }
}

impl Block<'_> {
    fn malformed(&self) -> ElfError {
        ElfError::MalformedSection { name: self.name }
    }

    fn byte(&mut self) -> Result<u8, ElfError> {
        varint::byte(&mut self.bytes).ok_or(self.malformed())
    }

    /// The next entry's text offset and its flag.
    fn next(&mut self) -> Result<Option<(TextOffset, bool)>, ElfError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let token = varint::read(&mut self.bytes).ok_or(self.malformed())?;
        let unread = mem::take(&mut self.unread);
        let step = u32::try_from(token >> 1).ok().filter(|&step| !unread || step == 0);
        let offset = step.and_then(|step| self.offset.checked_add(step));
        self.offset = offset.ok_or(self.malformed())?;
        Ok(Some((TextOffset::new(self.offset), token & 1 != 0)))
    }

    /// A source, written whole or from the one before.
    fn source(&mut self, before: Option<u32>) -> Result<u32, ElfError> {
        let source = match before {
            None => varint::read(&mut self.bytes).map(u64::cast_signed),
            Some(before) => {
                varint::read_signed(&mut self.bytes).map(|step| i64::from(before) + step)
            }
        };
        source.and_then(|source| u32::try_from(source).ok()).ok_or(self.malformed())
    }
}
