//! What wasmtime compiles ahead of time: an ELF file with tables of its own.

use super::artifact_names::Names;
use super::elf_error::ElfError;
use super::elf_file::ElfFile;
use super::text_layout::TextLayout;
use super::{builder, function_symbols, packed_sections};
use crate::registry::code_image::CodeImage;
use crate::registry::image_error::ImageError;
use crate::registry::keys::{FuncKind, SignatureKey};
use object::ReadRef;
use object::elf::SectionFlags;
use object::read::elf::{FileHeader, SectionHeader};

const TEXT: &str = ".text";
const TRAPS: &str = ".wasmtime.traps";
const ADDRESSES: &str = ".wasmtime.addrmap";
/// What the header has for the operating system.
const OS_ABI: u8 = 200;
/// A flag of the text section: nobody shall make it executable.
const NOT_EXECUTED: SectionFlags = SectionFlags(1);

pub(super) fn read<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
) -> Result<CodeImage, ElfError> {
    if file.os_abi().0 != OS_ABI {
        return Err(ElfError::NotAnArtifact);
    }
    let text = file.section_named(TEXT).ok_or(ElfError::MissingSection { name: TEXT })?;
    if text.1.sh_flags(file.endian).contains(NOT_EXECUTED) {
        return Err(ElfError::NotMachineCode);
    }
    let layout = TextLayout::of(file, |section| section.0 == text.0)?;
    let functions = function_symbols::all(file, &layout)?;
    if functions.is_empty() && !file.data(text.1)?.is_empty() {
        return Err(ElfError::NoSymbols);
    }
    let mut builder = builder(file, &layout)?;
    builder.reserve_functions(functions.len(), function_symbols::name_bytes(&functions))?;
    let mut names = Names::default();
    for function in functions {
        let (key, name) = names.read(function.name);
        builder.function(key, function.range(), name)?;
        if key.kind() == FuncKind::WASM_TO_ARRAY {
            // Its number in this artifact, which only the embedder can translate.
            builder.trampoline(SignatureKey::new(key.index()), key)?;
        }
    }
    packed_sections::read_traps(section(file, TRAPS)?, TRAPS, &mut builder)?;
    packed_sections::read_addresses(section(file, ADDRESSES)?, ADDRESSES, &mut builder)?;
    Ok(builder.finish().map_err(ImageError::from)?)
}

/// What a section holds, if there is one.
fn section<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
    name: &str,
) -> Result<Option<&'d [u8]>, ElfError> {
    file.section_named(name).map(|(_, section)| file.data(section)).transpose()
}
