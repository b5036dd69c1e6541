//! Where executable sections lie in an image's text.
//!
//! Code reaches code by distances, so a linked file's sections keep theirs: text begins at the first
//! section, rounded down to the strictest alignment of any. An object file's sections have no
//! addresses yet; they are put one behind the other. Nothing is allocated before it is known that
//! all of it fits into the length of the file.

use super::elf_error::ElfError;
use crate::registry::image_error::ImageError;
use crate::registry::text_offset::TextOffset;
use object::{File, Object, ObjectKind, ObjectSection, SectionIndex, SectionKind};

/// The executable sections of a file, without overlap.
#[derive(Debug)]
pub(super) struct TextLayout<'d> {
    /// Sorted by number.
    sections: Vec<Placed<'d>>,
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
    pub(super) fn of_all(file: &File<'d>, bytes: &'d [u8]) -> Result<Self, ElfError> {
        Self::of(file, bytes, |section| section.kind() == SectionKind::Text)
    }

    /// Of the executable sections that are `chosen`.
    pub(super) fn of(
        file: &File<'d>,
        bytes: &'d [u8],
        chosen: impl Fn(&object::Section<'d, '_>) -> bool,
    ) -> Result<Self, ElfError> {
        let is_object_file = file.kind() == ObjectKind::Relocatable;
        let mut layout = Self { sections: Vec::new(), align: 1, len: 0 };
        for section in file.sections().filter(chosen) {
            if is_object_file && section.relocations().next().is_some() {
                return Err(ElfError::Relocations { section: section.index().0 });
            }
            let data = section.data()?;
            if data.is_empty() {
                continue;
            }
            // No alignment is written as 0 or 1.
            let align = section.align().max(1);
            let align = u32::try_from(align).map_err(|_| ImageError::Alignment { align })?;
            if !align.is_power_of_two() {
                return Err(ImageError::Alignment { align: align.into() }.into());
            }
            layout.align = layout.align.max(align);
            let address = if is_object_file {
                // In the order of the file, for now.
                (layout.len as u64).checked_next_multiple_of(align.into()).unwrap_or(u64::MAX)
            } else {
                section.address()
            };
            layout.sections.try_reserve(1).map_err(|_| ImageError::OutOfMemory)?;
            layout.sections.push(Placed { index: section.index(), address, offset: address, data });
            if is_object_file {
                layout.len = checked_end(address, data, bytes)?;
            }
        }
        layout.place(is_object_file, bytes)?;
        Ok(layout)
    }

    /// From addresses to offsets.
    fn place(&mut self, is_object_file: bool, bytes: &[u8]) -> Result<(), ElfError> {
        self.sections.sort_unstable_by_key(|section| section.address);
        let lowest = self.sections.first().map_or(0, |section| section.address);
        let base = lowest & !(u64::from(self.align) - 1);
        self.len = 0;
        for section in &mut self.sections {
            section.offset = section.address - base;
            if section.offset < self.len as u64 {
                return Err(ElfError::SectionsOverlap { address: section.address });
            }
            self.len = checked_end(section.offset, section.data, bytes)?;
            if is_object_file {
                section.address = 0;
            }
        }
        self.sections.sort_unstable_by_key(|section| section.index.0);
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
}

impl Placed<'_> {
    /// Where the section's bytes end in the text.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}

/// Where text ends that has `data` at `offset`: not behind the length of the file, nor out of reach
/// of text offsets.
fn checked_end(offset: u64, data: &[u8], bytes: &[u8]) -> Result<usize, ElfError> {
    let len = offset.saturating_add(data.len() as u64);
    if len > bytes.len() as u64 {
        return Err(ElfError::TextTooSparse { len });
    }
    TextOffset::try_from(len).map_err(|_| ImageError::TextTooLong { len })?;
    Ok(len as usize)
}
