//! The structures of an ELF file, of either word size, read where they lie.
//!
//! `object` knows the structures and checks that they are inside the file. Nothing is allocated here, and
//! no name is read further than somebody needs it: names may share bytes, so that all of them together
//! can be far longer than the file.

use super::elf_error::ElfError;
use core::ops::Range;
use object::elf::{self, SectionType};
use object::read::elf::{FileHeader, SectionHeader, SectionTable, SymbolTable};
use object::{ReadRef, SectionIndex};

/// An ELF file: its header and its sections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ElfFile<'d, Elf: FileHeader, R: ReadRef<'d>> {
    bytes: R,
    len: u64,
    header: &'d Elf,
    pub(super) endian: Elf::Endian,
    sections: SectionTable<'d, Elf, R>,
    /// The string table with the names of sections.
    section_names: Option<&'d Elf::SectionHeader>,
}

/// Whether files have words of 64 bits. (Or else of 32: `object` checks what it then reads.)
pub(super) fn is_64<'d>(bytes: impl ReadRef<'d>) -> Result<bool, ElfError> {
    let ident = bytes.read_bytes_at(0, 5).map_err(|()| ElfError::NotElf)?;
    let class = ident.strip_prefix(&elf::ELFMAG).ok_or(ElfError::NotElf)?;
    Ok(class == [elf::ELFCLASS64.0])
}

impl<'d, Elf: FileHeader, R: ReadRef<'d>> ElfFile<'d, Elf, R> {
    pub(super) fn parse(bytes: R) -> Result<Self, ElfError> {
        let header = Elf::parse(bytes)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, bytes)?;
        let section_names = if sections.is_empty() {
            None
        } else {
            sections.section(header.section_strings_index(endian, bytes)?).ok()
        };
        let len = bytes.len().map_err(|()| ElfError::NotElf)?;
        Ok(Self { bytes, len, header, endian, sections, section_names })
    }

    /// The length of the file in bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn machine(&self) -> elf::Machine {
        self.header.e_machine(self.endian)
    }

    pub(super) fn os_abi(&self) -> elf::OsAbi {
        self.header.e_ident().os_abi
    }

    /// Whether the file waits to be linked, so that its sections have no addresses yet.
    pub(super) fn is_object_file(&self) -> bool {
        self.header.e_type(self.endian) == elf::ET_REL
    }

    /// All sections but the one with number 0, which is none.
    pub(super) fn sections(&self) -> impl Iterator<Item = Section<'d, Elf>> {
        self.sections.enumerate().skip(1)
    }

    /// The first section with this name.
    pub(super) fn section_named(&self, name: &str) -> Option<Section<'d, Elf>> {
        self.sections().find(|(_, section)| self.is_named(section, name))
    }

    /// Reads as many bytes of the section's name as `name` has.
    pub(super) fn is_named(&self, section: &Elf::SectionHeader, name: &str) -> bool {
        let wanted = name.len() as u64 + 1;
        let offset = u64::from(section.sh_name(self.endian));
        let names = self.section_names.and_then(|names| names.file_range(self.endian));
        let found = names.filter(|(_, len)| offset.saturating_add(wanted) <= *len);
        let at = found.and_then(|(start, _)| start.checked_add(offset));
        let found = at.and_then(|at| self.bytes.read_bytes_at(at, wanted).ok());
        found.and_then(|found| found.strip_suffix(b"\0")) == Some(name.as_bytes())
    }

    /// What the section holds.
    pub(super) fn data(&self, section: &Elf::SectionHeader) -> Result<&'d [u8], ElfError> {
        Ok(section.data(self.endian, self.bytes)?)
    }

    /// The symbols of the first table of this type, and their names; none without such a table.
    pub(super) fn symbols(
        &self,
        table: SectionType,
    ) -> Result<(SymbolTable<'d, Elf, R>, SymbolNames<R>), ElfError> {
        let table = self.sections.symbols(self.endian, self.bytes, table)?;
        let strings = self.sections.section(table.string_section()).ok();
        let range = strings.and_then(|strings| strings.file_range(self.endian));
        let (start, len) = range.unwrap_or((0, 0));
        let range = start..start.saturating_add(len).min(self.len);
        Ok((table, SymbolNames { bytes: self.bytes, range, left: self.len }))
    }
}

/// A section's number and header.
pub(super) type Section<'d, Elf> = (SectionIndex, &'d <Elf as FileHeader>::SectionHeader);

/// The names of a symbol table. All that are read may be as long as the file, together.
#[derive(Clone, Debug)]
pub(super) struct SymbolNames<R> {
    bytes: R,
    /// Where the string table is in the file.
    range: Range<u64>,
    /// How many bytes may be read.
    left: u64,
}

impl<'d, R: ReadRef<'d>> SymbolNames<R> {
    /// The name at this offset of the string table: none if that is outside of it, or the name does not
    /// end inside. One byte more than the name has is read.
    ///
    /// # Errors
    ///
    /// [`ElfError::NamesTooLong`] if that is more than may be read.
    pub(super) fn read(&mut self, offset: u32) -> Result<Option<&'d [u8]>, ElfError> {
        let start = self.range.start.saturating_add(offset.into());
        let rest = self.range.end.saturating_sub(start);
        let end = start.saturating_add(rest.min(self.left));
        let name = self.bytes.read_bytes_at_until(start..end, 0).ok();
        let len = name.map_or(rest, |name| name.len() as u64 + 1);
        self.left = self.left.checked_sub(len).ok_or(ElfError::NamesTooLong)?;
        Ok(name)
    }
}
