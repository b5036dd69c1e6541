//! What the supplements for processors say about function symbols.
//!
//! The generic rules (the value of a symbol of type `STT_FUNC` is where its function starts) hold for most
//! of them. These differ:
//!
//! | processor | rule | source |
//! |---|---|---|
//! | Arm | bit 0 of the value tells Thumb code; it is no part of the address | ELF for the Arm Architecture, "Symbol Values" |
//! | Arm, before its EABI | type 13, `STT_ARM_TFUNC`, is a Thumb function; mapping symbols such as `$a` and `$t` may be functions by type, and are none | ARM ELF (2003), 4.4.7 |
//! | MIPS | bit 0 of the value tells microMIPS or MIPS16 code; it is no part of the address | MIPS ABI as binutils and LLVM implement it |
//! | PA-RISC | type 13, `STT_PARISC_MILLI`, is a function, too | Processor-Specific ELF for PA-RISC |
//! | 64-bit PowerPC | a function symbol in `.opd` stands for a descriptor, whose first doubleword is the address of the code; the size is the code's, or in older files the descriptor's, 24 | 64-bit PowerPC ELF ABI Supplement 1.9, 3.2.5 |
//!
//! Mapping symbols of today's Arm, AArch64, RISC-V and C-SKY have no type, so they are no functions anyway.

use super::elf_error::ElfError;
use super::elf_file::ElfFile;
use object::elf::{self, SymbolType};
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endian, ReadRef, SectionIndex};

/// `STT_LOPROC`, which processors give a meaning of their own.
const PROCESSORS_OWN: SymbolType = SymbolType(13);
/// The section of function descriptors.
const DESCRIPTORS: &str = ".opd";

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_SIZE: u64 = 24;

/// The rules for the processor that a file is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processor<'d, E> {
    machine: elf::Machine,
    endian: E,
    descriptors: Option<Descriptors<'d>>,
}

#[derive(Clone, Copy, Debug)]
struct Descriptors<'d> {
    section: SectionIndex,
    address: u64,
    bytes: &'d [u8],
    /// Whether the bytes are what they will be when the code runs.
    are_relocated: bool,
}

impl<'d, E: Endian> Processor<'d, E> {
    pub(super) fn of<Elf: FileHeader<Endian = E>, R: ReadRef<'d>>(
        file: &ElfFile<'d, Elf, R>,
    ) -> Result<Self, ElfError> {
        let machine = file.machine();
        let section = (machine == elf::EM_PPC64).then(|| file.section_named(DESCRIPTORS)).flatten();
        let descriptors = match section {
            Some((index, section)) => Some(Descriptors {
                section: index,
                address: section.sh_addr(file.endian).into(),
                bytes: file.data(section)?,
                are_relocated: !file.is_object_file(),
            }),
            None => None,
        };
        Ok(Self { machine, endian: file.endian, descriptors })
    }

    pub(super) fn is_function(&self, kind: SymbolType) -> bool {
        let own = [elf::EM_ARM, elf::EM_PARISC].contains(&self.machine);
        [elf::STT_FUNC, elf::STT_GNU_IFUNC].contains(&kind) || own && kind == PROCESSORS_OWN
    }

    /// Where the code of a function symbol with this value starts.
    pub(super) fn code_address(&self, value: u64) -> u64 {
        let tells_mode = [elf::EM_ARM, elf::EM_MIPS].contains(&self.machine);
        value & !u64::from(tells_mode)
    }

    /// Whether a name says that the symbol tells of a kind of code, and names nothing.
    pub(super) fn is_mapping_symbol(&self, name: &[u8]) -> bool {
        self.machine == elf::EM_ARM
            && matches!(name, [b'$', b'a'..=b'z'] | [b'$', b'a'..=b'z', b'.', ..])
    }

    /// Whether symbols in this section stand for descriptors.
    pub(super) fn is_descriptors(&self, section: SectionIndex) -> bool {
        self.descriptors.is_some_and(|descriptors| descriptors.section == section)
    }

    /// Where the code starts whose descriptor is at this address: none if there is no descriptor.
    ///
    /// # Errors
    ///
    /// [`ElfError::Relocations`] in object files, where the address is not known yet.
    pub(super) fn described(&self, address: u64) -> Result<Option<u64>, ElfError> {
        let Some(Descriptors { section, address: start, bytes, are_relocated }) = self.descriptors
        else {
            return Ok(None);
        };
        if !are_relocated {
            return Err(ElfError::Relocations { section: section.0 });
        }
        let offset = address.checked_sub(start).and_then(|offset| usize::try_from(offset).ok());
        let word = offset.and_then(|offset| bytes.get(offset..)?.first_chunk());
        Ok(word.map(|&word| self.endian.read_u64(word)))
    }
}
