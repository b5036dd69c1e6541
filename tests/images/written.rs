//! ELF files made on the spot, of compiled functions.

use crate::compile::Compiled;
use object::write::{Object, SectionId, StandardSection, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

/// An object file for this machine, without anything in it.
pub(crate) fn object() -> Object<'static> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        other => panic!("no tests for {other}"),
    };
    Object::new(BinaryFormat::Elf, machine, Endianness::Little)
}

/// A symbol of a function: of that name, at `start`, of `size` bytes.
pub(crate) fn function(name: &str, section: SectionId, start: u64, size: u64) -> Symbol {
    Symbol {
        name: name.into(),
        value: start,
        size,
        kind: SymbolKind::Text,
        scope: SymbolScope::Compilation,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}

/// All functions in the section `.text`, or each in a section of its own.
pub(crate) fn object_file(functions: &[Compiled], apart: bool) -> Vec<u8> {
    let mut object = object();
    for compiled in functions {
        let section = if apart {
            object.add_subsection(StandardSection::Text, compiled.name.as_bytes())
        } else {
            object.section_id(StandardSection::Text)
        };
        let align = u64::from(compiled.align);
        let start = object.append_section_data(section, &compiled.code, align);
        let size = compiled.code.len() as u64;
        object.add_symbol(function(&compiled.name, section, start, size));
    }
    object.write().expect("an object file")
}
