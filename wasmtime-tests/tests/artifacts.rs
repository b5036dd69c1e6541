//! pcmap reads in an artifact what wasmtime reads in it, at every offset of the text.

use pcmap::registry::{CodeImage, ElfError, FuncKey, FuncKind, SignatureKey, TextOffset};
use pcmap_wasmtime_tests::{Artifact, KnownFunction, Oracle, all, engine};
use std::collections::BTreeSet;

/// What the tests went through, in numbers.
#[derive(Debug, Default)]
struct Figures {
    artifacts: usize,
    text_bytes: usize,
    longest_text: usize,
    functions: usize,
    trampolines: usize,
    traps: usize,
    trap_codes: BTreeSet<u8>,
    sources: usize,
}

#[test]
fn every_offset_reads_as_wasmtime_reads_it() {
    let mut figures = Figures::default();
    for artifact in all() {
        compare(&artifact, &mut figures);
    }
    println!("{figures:?}");
    // What went through it is as varied as it is meant to be.
    assert!(figures.trap_codes.len() >= 8, "few kinds of traps: {figures:?}");
    assert!(figures.longest_text > 0x2_0000 && figures.traps > 10_000, "{figures:?}");
}

fn compare(artifact: &Artifact, figures: &mut Figures) {
    let name = &artifact.name;
    let oracle = Oracle::new(artifact);
    let image = CodeImage::from_wasmtime_artifact(&artifact.elf).expect(name);
    let tables = image.tables();
    assert!(image.text() == oracle.text, "{name}: other text");

    let text_len = u32::try_from(oracle.text.len()).expect("a short text");
    let mut met = BTreeSet::new();
    let mut traps = 0;
    // A little further than the text, where there is nothing but an address map's last word.
    for offset in 0..text_len + 70 {
        let at = TextOffset::new(offset);
        let trap = oracle.trap(offset);
        assert_eq!(tables.trap_at(at).map(|code| code.get()), trap, "{name}: {at}");
        traps += usize::from(trap.is_some());
        figures.trap_codes.extend(trap);
        let source = tables.source_at(at).map(|source| source.get());
        assert_eq!(source, oracle.source(offset), "{name}: {at}");
        let (found, known) = (tables.function_at(at), oracle.function(offset));
        match (found, known) {
            (Some(found), Some(known)) => {
                let range = (found.range.start().get(), found.range.end().get());
                assert_eq!(range, (known.start, known.end), "{name}: {at}");
                check_key(found.key, known, name);
                check_name(found.name, found.key, known);
                met.insert(found.key);
            }
            (None, None) => {}
            different => panic!("{name}: {at}: {different:?}"),
        }
    }
    // Nothing more in the image than was met at some offset.
    assert_eq!(tables.functions().map(|function| function.key).collect::<BTreeSet<_>>(), met);
    assert_eq!(tables.trap_table().view().len(), traps, "{name}");

    let to_host = |key: &&FuncKey| key.kind() == FuncKind::WASM_TO_ARRAY;
    let trampolines: Vec<_> = met.iter().filter(to_host).map(|key| key.index()).collect();
    let listed = tables.trampolines().map(|(signature, function)| {
        assert_eq!(function.key.kind(), FuncKind::WASM_TO_ARRAY);
        assert_eq!(function.key.index(), signature.get());
        assert_eq!(tables.trampoline(signature), Some(function));
        signature.get()
    });
    assert_eq!(listed.collect::<Vec<_>>(), trampolines, "{name}");

    figures.artifacts += 1;
    figures.text_bytes += oracle.text.len();
    figures.longest_text = figures.longest_text.max(oracle.text.len());
    figures.functions += met.len();
    figures.trampolines += trampolines.len();
    figures.traps += traps;
    figures.sources += tables.address_map().view().len();
}

fn check_key(key: FuncKey, known: KnownFunction<'_>, name: &str) {
    assert_eq!(key.namespace(), known.namespace, "{name}: {key} {known:?}");
    if known.has_index {
        assert_eq!(key.index(), known.index, "{name}: {key} {known:?}");
    }
}

fn check_name(found: Option<&str>, key: FuncKey, known: KnownFunction<'_>) {
    if let Some(routine) = known.routine {
        assert!(found.is_some_and(|found| found.ends_with(routine)), "{found:?} {known:?}");
    } else if key.kind() == FuncKind::DEFINED {
        match (found, known.name) {
            (Some(found), Some(known)) if found == known => {}
            // A symbol has letters of ASCII, and not too many of them.
            (Some(found), Some(known)) => {
                let odd = known.contains(|c: char| !c.is_ascii_graphic()) || known.len() > 96;
                let same = found.split('?').next().unwrap_or_default();
                assert!(odd && known.starts_with(same) && !same.is_empty(), "{found} {known}");
            }
            (None, None) => {}
            different => panic!("{different:?}"),
        }
    } else {
        assert!(found.is_some(), "{known:?}");
    }
}

#[test]
fn a_component_keeps_its_modules_apart() {
    let artifacts = all();
    let component = artifacts.iter().find(|artifact| artifact.is_component).expect("a component");
    let image = CodeImage::from_wasmtime_artifact(&component.elf).expect("an image");
    let tables = image.tables();
    for (module, name) in [(0, "realloc"), (1, "work")] {
        let namespace =
            FuncKey::of_module(FuncKind::DEFINED, module, 0).expect("a key").namespace();
        let names: Vec<_> = tables.functions_in(namespace).map(|function| function.name).collect();
        assert_eq!(names, [Some(name)]);
    }
    let kinds: BTreeSet<_> = tables.functions().map(|function| function.key.kind()).collect();
    assert!(kinds.contains(&FuncKind::COMPONENT), "{kinds:?}");
}

#[test]
fn debug_information_is_noticed() {
    for artifact in all() {
        let image = CodeImage::from_wasmtime_artifact(&artifact.elf).expect(&artifact.name);
        let expected = artifact.name.contains("with native debug information");
        assert_eq!(image.tables().has_unparsed_debug_info(), expected, "{}", artifact.name);
    }
}

#[test]
fn artifacts_that_lack_something() {
    let text =
        "(module (func (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1))))";
    let without_addresses = engine(|config| {
        config.generate_address_map(false);
    });
    let artifact = Artifact::module(&without_addresses, "no address map", text);
    compare(&artifact, &mut Figures::default());
    let without_symbols = engine(|config| {
        config.debug_symbols(false);
    });
    let artifact = Artifact::module(&without_symbols, "no symbols", text);
    let error = CodeImage::from_wasmtime_artifact(&artifact.elf).expect_err("no symbols");
    assert_eq!(error, ElfError::NoSymbols);
    // Without text, there is nothing that could be told by them.
    let empty = Artifact::module(&without_symbols, "empty", "(module)");
    let image = CodeImage::from_wasmtime_artifact(&empty.elf).expect("nothing is missing");
    assert_eq!(image.tables().functions().count(), 0);
}

#[test]
fn an_artifact_is_an_elf_file_as_well() {
    for artifact in all() {
        let name = &artifact.name;
        let artifact_image = CodeImage::from_wasmtime_artifact(&artifact.elf).expect(name);
        let image = CodeImage::from_elf(&artifact.elf).expect(name);
        assert_eq!(image.text(), artifact_image.text());
        let ranges = |image: &CodeImage| {
            image.tables().functions().map(|function| function.range).collect::<Vec<_>>()
        };
        assert_eq!(ranges(&image), ranges(&artifact_image), "{name}");
    }
}

/// Two modules that number the same two signatures the other way round: by the engine's numbers each
/// trampoline is the one that is meant, instruction by instruction.
#[test]
fn signatures_of_two_modules() {
    let engine = engine(|_| {});
    let image = |types: [&str; 2]| {
        let [first, second] = types;
        let text = format!(
            r#"(module (type $a (func {first})) (type $b (func {second}))
                 (import "host" "a" (func $f (type $a))) (import "host" "b" (func $g (type $b)))
                 (export "a" (func $f)) (export "b" (func $g)))"#
        );
        let artifact = Artifact::module(&engine, "two signatures", &text);
        CodeImage::from_wasmtime_artifact(&artifact.elf).expect("an artifact")
    };
    let types = ["(param i32 i64)", "(result f64)"];
    let (straight, mut crossed) = (image(types), image([types[1], types[0]]));
    let code = |image: &CodeImage, number| {
        let range = image.tables().trampoline(SignatureKey::new(number)).expect("one").range;
        image.text()[range.start().get() as usize..range.end().get() as usize].to_vec()
    };
    let [first, second] = [0, 1].map(|number| code(&straight, number));
    assert_ne!(first, second);
    assert_eq!([0, 1].map(|number| code(&crossed, number)), [second.clone(), first.clone()]);
    crossed.renumber_signatures(|of_module| SignatureKey::new(1 - of_module.get())).expect("two");
    assert_eq!([0, 1].map(|number| code(&crossed, number)), [first, second]);
}
