//! Where executable sections lie in an image's text.
//!
//! Code reaches code by distances, so a linked file's sections keep theirs: text begins at the first
//! section, rounded down to the strictest alignment of any. An object file's sections have no
//! addresses yet; they are put one behind the other. No text is allocated before it is known that
//! all of it fits into the length of the file.

use super::elf_error::ElfError;
use super::elf_file::{ElfFile, Section};
use crate::registry::image_error::ImageError;
use crate::registry::text_offset::TextOffset;
use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHT_CREL, SHT_PROGBITS, SHT_REL, SHT_RELA};
use object::read::elf::{FileHeader, SectionHeader};
use object::{ReadRef, SectionIndex};

/// The executable sections of a file, without overlap.
#[derive(Debug)]
pub(super) struct TextLayout<'d> {
    /// Sorted by number.
    sections: Vec<Placed<'d>>,
    /// The places in that list, sorted by offset.
    by_place: Vec<usize>,
    /// The strictest alignment of a section: a power of two, in bytes.
    pub(super) align: u32,
    len: usize,
}

/// A section and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'d> {
    index: SectionIndex,
    /// As the file has it; 0 in object files.
    pub(super) address: u64,
    /// In the text, in bytes.
    pub(super) offset: u64,
    data: &'d [u8],
}

impl<'d> TextLayout<'d> {
    /// Of all executable sections.
    pub(super) fn of_all<Elf: FileHeader, R: ReadRef<'d>>(
        file: &ElfFile<'d, Elf, R>,
    ) -> Result<Self, ElfError> {
        Self::of(file, |(_, section)| {
            let flags = section.sh_flags(file.endian);
            section.sh_type(file.endian) == SHT_PROGBITS
                && flags.contains(SHF_ALLOC)
                && flags.contains(SHF_EXECINSTR)
        })
    }

    /// Of the sections that are `chosen`.
    pub(super) fn of<Elf: FileHeader, R: ReadRef<'d>>(
        file: &ElfFile<'d, Elf, R>,
        chosen: impl Fn(&Section<'d, Elf>) -> bool,
    ) -> Result<Self, ElfError> {
        let endian = file.endian;
        let mut layout = Self { sections: Vec::new(), by_place: Vec::new(), align: 1, len: 0 };
        let count = file.sections().filter(&chosen).count();
        layout.sections.try_reserve_exact(count).map_err(|_| ImageError::OutOfMemory)?;
        for (index, section) in file.sections().filter(&chosen) {
            let data = file.data(section)?;
            if data.is_empty() {
                continue;
            }
            // No alignment is written as 0 or 1.
            let align = section.sh_addralign(endian).into().max(1);
            let align = u32::try_from(align).map_err(|_| ImageError::Alignment { align })?;
            if !align.is_power_of_two() {
                return Err(ImageError::Alignment { align: align.into() }.into());
            }
            layout.align = layout.align.max(align);
            let address = if file.is_object_file() {
                // In the order of the file, for now.
                (layout.len as u64).checked_next_multiple_of(align.into()).unwrap_or(u64::MAX)
            } else {
                section.sh_addr(endian).into()
            };
            layout.sections.push(Placed { index, address, offset: address, data });
            if file.is_object_file() {
                layout.len = checked_end(address, data, file.len())?;
            }
        }
        if file.is_object_file() {
            layout.check_relocations(file)?;
        }
        layout.place(file.is_object_file(), file.len())?;
        Ok(layout)
    }

    /// Nothing of the text waits for a relocation.
    fn check_relocations<Elf: FileHeader, R: ReadRef<'d>>(
        &self,
        file: &ElfFile<'d, Elf, R>,
    ) -> Result<(), ElfError> {
        for (_, section) in file.sections() {
            let relocated = section.info_link(file.endian);
            let is_list = [SHT_REL, SHT_RELA, SHT_CREL].contains(&section.sh_type(file.endian));
            if is_list && self.section(relocated).is_some() && !file.data(section)?.is_empty() {
                return Err(ElfError::Relocations { section: relocated.0 });
            }
        }
        Ok(())
    }

    /// From addresses to offsets.
    fn place(&mut self, is_object_file: bool, file_len: u64) -> Result<(), ElfError> {
        self.sections.sort_unstable_by_key(|section| section.address);
        let lowest = self.sections.first().map_or(0, |section| section.address);
        let base = lowest & !(u64::from(self.align) - 1);
        self.len = 0;
        for section in &mut self.sections {
            section.offset = section.address - base;
            if section.offset < self.len as u64 {
                return Err(ElfError::SectionsOverlap { address: section.address });
            }
            self.len = checked_end(section.offset, section.data, file_len)?;
            if is_object_file {
                section.address = 0;
            }
        }
        self.sections.sort_unstable_by_key(|section| section.index.0);
        let count = self.sections.len();
        self.by_place.try_reserve_exact(count).map_err(|_| ImageError::OutOfMemory)?;
        self.by_place.extend(0..count);
        self.by_place.sort_unstable_by_key(|&number| self.sections[number].offset);
        Ok(())
    }

    /// The text: the sections' bytes, and zeros between them.
    pub(super) fn text(&self) -> Result<Vec<u8>, ElfError> {
        let mut text = Vec::new();
        text.try_reserve_exact(self.len).map_err(|_| ImageError::OutOfMemory)?;
        text.resize(self.len, 0);
        for section in &self.sections {
            // Where `place` found it to end within the length.
            let range = section.offset as usize..section.end() as usize;
            text[range].copy_from_slice(section.data);
        }
        Ok(text)
    }

    /// The section with this number, if it is executable.
    pub(super) fn section(&self, index: SectionIndex) -> Option<&Placed<'d>> {
        let found = self.sections.binary_search_by_key(&index.0, |section| section.index.0).ok()?;
        self.sections.get(found)
    }

    /// The executable section of a linked file that contains this address.
    pub(super) fn section_around(&self, address: u64) -> Option<&Placed<'d>> {
        let starts_before = |&number: &usize| self.sections[number].address <= address;
        let before = self.by_place.partition_point(starts_before).checked_sub(1)?;
        let section = &self.sections[self.by_place[before]];
        (address - section.address < section.data.len() as u64).then_some(section)
    }
}

impl Placed<'_> {
    /// Where the section's bytes end in the text.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Where text ends that has `data` at `offset`: not behind the length of the file, nor out of reach
/// of text offsets.
fn checked_end(offset: u64, data: &[u8], file_len: u64) -> Result<usize, ElfError> {
    let len = offset.saturating_add(data.len() as u64);
    if len > file_len {
        return Err(ElfError::TextTooSparse { len });
    }
    TextOffset::try_from(len).map_err(|_| ImageError::TextTooLong { len })?;
    Ok(len as usize)
}
