//! ELF files that lack what they need, made on the spot.

use object::write::{Object, StandardSection, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, FileFlags, SectionFlags, SymbolFlags, SymbolKind,
    SymbolScope, elf,
};
use pcmap::registry::{CodeImage, ElfError};

/// An artifact of twenty bytes with one function, if it has text.
fn artifact(has_text: bool, flags: SectionFlags) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    object.flags =
        FileFlags::Elf { os_abi: elf::OsAbi(200), abi_version: 0, e_flags: elf::FileFlags(0) };
    if has_text {
        let text = object.section_id(StandardSection::Text);
        object.append_section_data(text, &[0xc3; 20], 1);
        object.section_mut(text).flags = flags;
        object.add_symbol(Symbol {
            name: b"wasm[0]::function[0]".to_vec(),
            value: 0,
            size: 20,
            kind: SymbolKind::Text,
            scope: SymbolScope::Compilation,
            weak: false,
            section: SymbolSection::Section(text),
            flags: SymbolFlags::None,
        });
    }
    object.write().expect("a file")
}

#[test]
fn artifacts_without_machine_code() {
    let of = |sh_flags| SectionFlags::Elf {
        sh_type: elf::SHT_PROGBITS,
        sh_flags: elf::SectionFlags(sh_flags),
    };
    let usual = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
    let image = CodeImage::from_wasmtime_artifact(&artifact(true, of(usual)));
    assert_eq!(image.expect("an artifact").tables().functions().count(), 1);
    let without = CodeImage::from_wasmtime_artifact(&artifact(false, of(usual)));
    assert_eq!(without, Err(ElfError::MissingSection { name: ".text" }));
    // As wasmtime marks what is for its interpreter.
    let interpreted = CodeImage::from_wasmtime_artifact(&artifact(true, of(usual | 1)));
    assert_eq!(interpreted, Err(ElfError::NotMachineCode));
}

/// A linked file's sections have addresses.
#[test]
fn sections_at_one_address() {
    let mut file = two_sections();
    assert!(CodeImage::from_elf(&file).is_ok(), "an object file's follow one another");
    // `ET_DYN`: now the addresses count, and both are 0.
    file[16] = 3;
    assert_eq!(CodeImage::from_elf(&file), Err(ElfError::SectionsOverlap { address: 0 }));
}

fn two_sections() -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    for name in ["a", "b"] {
        let section = object.add_subsection(StandardSection::Text, name.as_bytes());
        object.append_section_data(section, &[0xc3; 8], 1);
    }
    object.write().expect("a file")
}
