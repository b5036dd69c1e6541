//! What wasmtime compiles ahead of time: an ELF file with tables of its own.

use super::artifact_names::Names;
use super::elf_error::ElfError;
use super::text_layout::TextLayout;
use super::{builder, function_symbols, packed_sections, parse};
use crate::registry::code_image::CodeImage;
use crate::registry::image_error::ImageError;
use crate::registry::keys::{FuncKind, SignatureKey};
use object::{File, FileFlags, Object, ObjectSection, SectionFlags};

const TEXT: &str = ".text";
const TRAPS: &str = ".wasmtime.traps";
const ADDRESSES: &str = ".wasmtime.addrmap";
/// What the header has for the operating system.
const OS_ABI: u8 = 200;
/// A flag of the text section: nobody shall make it executable.
const NOT_EXECUTED: u64 = 1;

pub(super) fn read(bytes: &[u8]) -> Result<CodeImage, ElfError> {
    let file = parse(bytes)?;
    match file.flags() {
        FileFlags::Elf { os_abi, .. } if os_abi.0 == OS_ABI => {}
        _ => return Err(ElfError::NotAnArtifact),
    }
    let text = file.section_by_name(TEXT).ok_or(ElfError::MissingSection { name: TEXT })?;
    if matches!(text.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & NOT_EXECUTED != 0)
    {
        return Err(ElfError::NotMachineCode);
    }
    let layout = TextLayout::of(&file, bytes, |section| section.index() == text.index())?;
    let functions = function_symbols::all(&file, &layout)?;
    if functions.is_empty() && !text.data()?.is_empty() {
        return Err(ElfError::NoSymbols);
    }
    let mut builder = builder(&file, &layout)?;
    let mut names = Names::default();
    for function in functions {
        let (key, name) = names.read(function.name);
        builder.function(key, function.range(), name)?;
        if key.kind() == FuncKind::WASM_TO_ARRAY {
            // Its number in this artifact, which only the embedder can translate.
            builder.trampoline(SignatureKey::new(key.index()), key)?;
        }
    }
    packed_sections::read_traps(section(&file, TRAPS)?, TRAPS, &mut builder)?;
    packed_sections::read_addresses(section(&file, ADDRESSES)?, ADDRESSES, &mut builder)?;
    Ok(builder.finish().map_err(ImageError::from)?)
}

/// What a section holds, if there is one.
fn section<'d>(file: &File<'d>, name: &str) -> Result<Option<&'d [u8]>, ElfError> {
    let section = file.section_by_name(name);
    Ok(section.map(|section| section.data()).transpose()?)
}
