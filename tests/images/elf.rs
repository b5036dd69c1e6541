//! ELF files: made here, and those that this machine runs.

use crate::{compile, written};
use object::write::{Object, Relocation, StandardSection, Symbol};
use object::{RelocationFlags, SymbolKind, SymbolScope};
use pcmap::registry::{CodeImage, CodeTables, ElfError, FuncKey, ImageError, TextOffset};
#[cfg(target_os = "linux")]
use std::collections::BTreeMap;

/// Start, end and name of every function.
fn listed(tables: &CodeTables) -> Vec<(u32, u32, Option<&str>)> {
    let place = |offset: TextOffset| offset.get();
    let functions = tables.functions();
    functions.map(|f| (place(f.range.start()), place(f.range.end()), f.name)).collect()
}

#[test]
fn compiled_functions_come_back() {
    let functions = compile::all();
    for apart in [false, true] {
        let file = written::object_file(&functions, apart);
        let image = CodeImage::from_elf(&file).expect("an image");
        let tables = image.tables();
        let found: Vec<_> = tables.functions().collect();
        assert_eq!(found.len(), functions.len());
        for ((index, found), compiled) in (0..).zip(found).zip(&functions) {
            assert_eq!(found.key, FuncKey::new(0, index));
            assert_eq!(found.name, Some(&*compiled.name));
            assert_eq!(found.range.start().get() % compiled.align, 0, "{found:?}");
            let range = found.range.start().get() as usize..found.range.end().get() as usize;
            assert_eq!(&image.text()[range.clone()], compiled.code);
            for offset in range {
                let at = TextOffset::try_from(offset).expect("a short text");
                assert_eq!(tables.function_at(at), Some(found));
            }
        }
        assert!(functions.iter().all(|function| function.align <= image.text_align()));
        assert!(!tables.has_unparsed_debug_info());
    }
}

/// What becomes of function symbols in 100 bytes of text: name, start, size.
fn functions_of(symbols: &[(&str, u64, u64)]) -> Vec<(u32, u32, Option<String>)> {
    let mut object = written::object();
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, &[0xcc; 100], 1);
    for &(name, start, size) in symbols {
        object.add_symbol(scoped(written::function(name, text, start, size)));
    }
    let image = CodeImage::from_elf(&object.write().expect("a file")).expect("an image");
    let functions = listed(image.tables()).into_iter();
    functions.map(|(start, end, name)| (start, end, name.map(str::to_owned))).collect()
}

/// The first letter tells how widely the symbol is visible: local, weak, global.
fn scoped(mut symbol: Symbol) -> Symbol {
    symbol.weak = symbol.name.starts_with(b"w");
    if !symbol.name.starts_with(b"l") {
        symbol.scope = SymbolScope::Dynamic;
    }
    symbol
}

#[test]
fn symbols_become_functions_by_rules() {
    #[track_caller]
    fn check(symbols: &[(&str, u64, u64)], expected: &[(u32, u32, &str)]) {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let expected: Vec<_> = expected.iter().map(|&(s, e, n)| (s, e, name(n))).collect();
        assert_eq!(functions_of(symbols), expected);
        // In whatever order the table has them.
        let mut reversed = symbols.to_vec();
        reversed.reverse();
        assert_eq!(functions_of(&reversed), expected);
    }
    check(&[("b", 10, 10), ("a", 0, 10)], &[(0, 10, "a"), (10, 20, "b")]);
    // Aliases: called by the widest, then the first in the alphabet, then one that has a name.
    check(&[("la", 0, 10), ("wa", 0, 10), ("g", 0, 10)], &[(0, 10, "g")]);
    check(&[("lb", 0, 10), ("w", 0, 10)], &[(0, 10, "w")]);
    check(&[("gb", 0, 10), ("ga", 0, 10), ("", 0, 10)], &[(0, 10, "ga")]);
    check(&[("", 0, 10)], &[(0, 10, "")]);
    // Without a size: to the next, or to the end, and a label where there is a function.
    check(&[("a", 0, 0), ("b", 30, 5)], &[(0, 30, "a"), (30, 35, "b")]);
    check(&[("a", 90, 0)], &[(90, 100, "a")]);
    check(&[("a", 0, 10), ("label", 5, 0), ("b", 20, 1)], &[(0, 10, "a"), (20, 21, "b")]);
    check(&[("label", 0, 0), ("a", 0, 10)], &[(0, 10, "a")]);
    check(&[("a", 0, 10), ("b", 10, 0)], &[(0, 10, "a"), (10, 100, "b")]);
    check(&[("end", 100, 0)], &[]);
    // One in another: a label. One across the end of another: both are functions.
    check(&[("a", 0, 50), ("inner", 10, 5), ("last", 45, 5)], &[(0, 50, "a")]);
    check(&[("a", 0, 50), ("shorter", 0, 20)], &[(0, 50, "a")]);
    check(&[("a", 0, 50), ("b", 40, 20)], &[(0, 40, "a"), (40, 60, "b")]);
    check(
        &[("a", 0, 50), ("b", 40, 20), ("c", 55, 10)],
        &[(0, 40, "a"), (40, 55, "b"), (55, 65, "c")],
    );
}

#[test]
fn what_is_no_function_is_left_alone() {
    let mut object = written::object();
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, &[0xcc; 20], 1);
    let data = object.section_id(StandardSection::Data);
    object.append_section_data(data, &[1; 20], 1);
    let constant = Symbol { kind: SymbolKind::Data, ..written::function("constant", text, 0, 5) };
    object.add_symbol(constant);
    object.add_symbol(written::function("in data", data, 0, 5));
    let image = CodeImage::from_elf(&object.write().expect("a file")).expect("an image");
    assert_eq!((listed(image.tables()), image.text()), (vec![], &[0xcc; 20][..]));
}

fn refused(object: &Object<'_>) -> ElfError {
    CodeImage::from_elf(&object.write().expect("a file")).expect_err("something is wrong")
}

#[test]
fn what_is_refused() {
    let mut object = written::object();
    let text = object.section_id(StandardSection::Text);
    object.append_section_data(text, &[0; 20], 1);
    let outside = object.add_symbol(written::function("outside", text, 10, 11));
    assert_eq!(refused(&object), ElfError::SymbolOutside { address: 10, size: 11 });
    object.symbol_mut(outside).size = u64::MAX;
    assert_eq!(refused(&object), ElfError::SymbolOutside { address: 10, size: u64::MAX });
    object.symbol_mut(outside).size = 10;

    // Of debug information, relocations are nobody's concern; of code, they are.
    let relocation = |symbol| Relocation {
        offset: 0,
        symbol,
        addend: 0,
        flags: RelocationFlags::Generic {
            kind: object::RelocationKind::Absolute,
            encoding: object::RelocationEncoding::Generic,
            size: 64,
        },
    };
    let debug = object.add_section(vec![], b".debug_info".to_vec(), object::SectionKind::Debug);
    object.append_section_data(debug, &[0; 8], 1);
    object.add_relocation(debug, relocation(outside)).expect("taken");
    let file = object.write().expect("a file");
    let image = CodeImage::from_elf(&file).expect("an image");
    assert!(image.tables().has_unparsed_debug_info());
    object.add_relocation(text, relocation(outside)).expect("taken");
    assert!(matches!(refused(&object), ElfError::Relocations { .. }));

    for bytes in [&b""[..], b"\x7fELF", b"not a file of any kind", &[0; 1000]] {
        assert_eq!(CodeImage::from_elf(bytes), Err(ElfError::NotElf));
    }
    for bytes in [&file[..5], &file[..64]] {
        let error = CodeImage::from_elf(bytes).expect_err("no file");
        assert!(matches!(error, ElfError::Malformed(_)), "{error}");
    }
    assert_eq!(CodeImage::from_wasmtime_artifact(&file), Err(ElfError::NotAnArtifact));
}

#[test]
fn text_is_never_longer_than_the_file() {
    let mut object = written::object();
    for name in ["a", "b"] {
        let section = object.add_subsection(StandardSection::Text, name.as_bytes());
        object.append_section_data(section, &[0; 20], 1);
    }
    let mut file = object.write().expect("a file");
    let claimed = u64::from(1_u32 << 30);
    set_alignment(&mut file, b".text.b", claimed);
    let error = CodeImage::from_elf(&file).expect_err("a far-off section");
    assert_eq!(error, ElfError::TextTooSparse { len: claimed + 20 });
    set_alignment(&mut file, b".text.b", 1 << 40);
    let error = CodeImage::from_elf(&file).expect_err("too strict");
    assert_eq!(error, ElfError::Image(ImageError::Alignment { align: 1 << 40 }));
    set_alignment(&mut file, b".text.b", 3);
    let error = CodeImage::from_elf(&file).expect_err("not a power of two");
    assert_eq!(error, ElfError::Image(ImageError::Alignment { align: 3 }));
}

/// Writes over what the header of a section says about its alignment.
fn set_alignment(file: &mut [u8], name: &[u8], align: u64) {
    use object::read::elf::{FileHeader, SectionHeader};
    use object::{Endianness, elf::FileHeader64, elf::SectionHeader64};
    let header = FileHeader64::<Endianness>::parse(&*file).expect("an ELF file");
    let sections = header.sections(Endianness::Little, &*file).expect("sections");
    let index = sections.iter().position(|section| {
        let found = sections.section_name(Endianness::Little, section);
        found.is_ok_and(|found| found == name) && section.sh_size(Endianness::Little) > 0
    });
    let start = header.e_shoff(Endianness::Little) as usize;
    let size = size_of::<SectionHeader64<Endianness>>();
    let place = start + index.expect("the section") * size + 48;
    file[place..place + 8].copy_from_slice(&align.to_le_bytes());
}

/// The functions of a file as its symbols have them: addresses of starts, and the furthest end.
#[cfg(target_os = "linux")]
fn symbols_of(file: &object::File<'_>) -> BTreeMap<u64, u64> {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};

    let is_code = |symbol: &object::Symbol<'_, '_>| {
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        symbol.kind() == SymbolKind::Text && section.is_some_and(|s| s.kind() == SectionKind::Text)
    };
    let mut table: Vec<_> = file.symbols().filter(is_code).collect();
    if table.is_empty() {
        table = file.dynamic_symbols().filter(is_code).collect();
    }
    let mut symbols = BTreeMap::new();
    for symbol in table {
        let end = symbols.entry(symbol.address()).or_insert(0);
        *end = symbol.address().saturating_add(symbol.size()).max(*end);
    }
    symbols
}

#[cfg(target_os = "linux")]
#[test]
fn the_files_of_this_process() {
    use object::{File, Object as _, ObjectSection as _, SectionKind};

    let mut files: Vec<_> = crate::broken::loaded_files().collect();
    files.push(std::env::current_exe().expect("this program"));
    let (mut checked, mut whole) = (0, 0);
    for path in &files {
        let bytes = std::fs::read(path).expect("a file in use");
        let image = CodeImage::from_elf(&bytes).expect("a file in use can be read");
        let tables = image.tables();
        let file = File::parse(&*bytes).expect("an ELF file");
        let code: Vec<_> = file.sections().filter(|s| s.kind() == SectionKind::Text).collect();
        let lowest = code.iter().map(|section| section.address()).min().expect("code");
        let align = u64::from(image.text_align());
        let base = lowest / align * align;
        for section in &code {
            let start = (section.address() - base) as usize;
            let data = section.data().expect("inside the file");
            assert_eq!(&image.text()[start..start + data.len()], data, "{path:?}");
        }
        let symbols = symbols_of(&file);
        for (&start, &end) in symbols.iter().filter(|(start, end)| start < end) {
            // It is a function that starts as this symbol does, or as another one before it.
            let at = TextOffset::try_from(start - base).expect("a short text");
            let found = tables.function_at(at).unwrap_or_else(|| panic!("{path:?} {start:#x}"));
            let found_start = base + u64::from(found.range.start().get());
            let found_end = base + u64::from(found.range.end().get());
            let longest = *symbols.get(&found_start).expect("functions start at symbols");
            assert!(found_end <= longest || longest == found_start, "{path:?} {found:?}");
            assert!(found_start == start || found_end >= end, "{path:?} {found:?}");
            whole += usize::from((found_start, found_end) == (start, end));
            checked += 1;
        }
    }
    println!("{} files, {checked} functions, {whole} of them as their symbols say", files.len());
    assert!(files.len() >= 3 && checked > 1000 && whole > checked / 10 * 9, "{checked} {whole}");
}
