//! Artifacts that nobody should write: changed, truncated, with tables that are not well formed.

#[path = "../../fuzz/interpreter/images.rs"]
mod read_any;
#[path = "../../fuzz/interpreter/sound_tables.rs"]
mod sound_tables;

use pcmap::registry::{CodeImage, ElfError, TextOffset};
use pcmap_wasmtime_tests::{Artifact, Oracle, all};
use proptest::prelude::*;
use read_any::read_any;
use std::ops::Range;
use std::sync::OnceLock;
use wasmtime_environ::CompiledTrap;
use wasmtime_environ::object::{File, Object, ObjectSection};

/// A module with calls, and a component: small ones.
fn artifacts() -> &'static [Artifact] {
    static ARTIFACTS: OnceLock<Vec<Artifact>> = OnceLock::new();
    ARTIFACTS.get_or_init(|| {
        let chosen = ["calls, optimised", "component, optimised", "memory, optimised"];
        let artifacts = all().into_iter().filter(|a| chosen.contains(&&*a.name));
        let artifacts: Vec<_> = artifacts.collect();
        assert_eq!(artifacts.len(), chosen.len());
        assert!(artifacts.iter().all(|artifact| read_any(&artifact.elf)), "whole ones can be read");
        artifacts
    })
}

/// Where a section's bytes lie in the file.
fn section(elf: &[u8], name: &str) -> Range<usize> {
    let file = File::parse(elf).expect("an ELF file");
    let section = file.section_by_name(name).expect("a section");
    let (start, len) = section.file_range().expect("with bytes");
    start as usize..(start + len) as usize
}

fn headers(elf: &[u8]) -> Range<usize> {
    let start = u64::from_le_bytes(elf[0x28..0x30].try_into().expect("eight bytes")) as usize;
    start..elf.len()
}

/// Writes `number` over the file at a place in `range`, as a byte or a word.
fn change(
    elf: &mut [u8],
    range: Range<usize>,
    place: prop::sample::Index,
    number: u64,
    wide: bool,
) {
    let width = if wide { 4 } else { 1 };
    let at = range.start + place.index(range.len() - 8);
    elf[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
}

/// The file with another section of this name, which lies behind all else.
fn with_section(elf: &[u8], name: &str, bytes: &[u8]) -> Vec<u8> {
    let file = File::parse(elf).expect("an ELF file");
    let index = file.section_by_name(name).expect("a section").index().0;
    let header = headers(elf).start + index * 64;
    let mut changed = elf.to_vec();
    // sh_offset and sh_size
    for (at, number) in [(24, elf.len()), (32, bytes.len())] {
        changed[header + at..header + at + 8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    changed.extend(bytes);
    changed
}

/// A section of traps, each so many bytes (at most 63) behind the one before. The index says that each
/// block starts `early` bytes before its first entry.
fn traps(entries: &[(u8, u8)], early: u8) -> Vec<u8> {
    let (mut index, mut bodies, mut offset) = (Vec::new(), Vec::new(), u32::from(early));
    for block in entries.chunks(128) {
        let first = offset + u32::from(block[0].0) - u32::from(early);
        index.extend([first, bodies.len() as u32]);
        bodies.push(0);
        for (i, &(step, code)) in block.iter().enumerate() {
            offset += u32::from(step);
            bodies.push(if i == 0 { early } else { step } << 1 | u8::from(code != 0));
            bodies.extend((code != 0).then_some(code));
        }
    }
    let words = [entries.len() as u32, index.len() as u32 / 2].into_iter().chain(index);
    words.flat_map(u32::to_le_bytes).chain(bodies).collect()
}

/// Compares what the image of this artifact says of traps with what wasmtime says.
fn assert_same_traps(artifact: &Artifact, image: &CodeImage) -> Result<(), TestCaseError> {
    let oracle = Oracle::new(artifact);
    for offset in 0..oracle.text.len() as u32 {
        let trap = image.tables().trap_at(TextOffset::new(offset)).map(|trap| trap.get());
        // Wasmtime's reader takes only codes that wasmtime knows.
        if trap.is_none_or(|trap| CompiledTrap::from_u8(trap).is_some()) {
            prop_assert_eq!(trap, oracle.trap(offset), "{}", offset);
        }
    }
    Ok(())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..300, Just(u64::MAX), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_anywhere(
        which: prop::sample::Index,
        changes in prop::collection::vec((0_usize..5, any::<prop::sample::Index>(), number(), any::<bool>()), 1..6),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut elf = which.get(artifacts()).elf.clone();
        let places = [
            0..elf.len(),
            headers(&elf),
            section(&elf, ".wasmtime.traps"),
            section(&elf, ".wasmtime.addrmap"),
            section(&elf, ".symtab"),
        ];
        for (place, index, number, wide) in changes {
            change(&mut elf, places[place].clone(), index, number, wide);
        }
        if let Some(keep) = keep {
            elf.truncate(keep.index(elf.len()));
        }
        read_any(&elf);
    }

    /// Where changed traps are taken for a table, it is the one that wasmtime sees.
    #[test]
    fn changed_traps_read_alike(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), number(), any::<bool>()), 1..3),
    ) {
        let mut artifact = which.get(artifacts()).clone();
        let range = section(&artifact.elf, ".wasmtime.traps");
        for (index, number, wide) in changes {
            change(&mut artifact.elf, range.clone(), index, number, wide);
        }
        if let Ok(image) = CodeImage::from_wasmtime_artifact(&artifact.elf) {
            assert_same_traps(&artifact, &image)?;
        }
    }

    /// Several traps at one place, in one block and at the border of two.
    #[test]
    fn crowded_traps_read_alike(
        entries in prop::collection::vec((prop_oneof![6 => Just(0_u8), 1 => 1_u8..3], 0_u8..4), 1..600),
        early in 1_u8..4,
    ) {
        let name = ".wasmtime.traps";
        let mut artifact = artifacts()[0].clone();
        let sound = artifact.elf.clone();
        artifact.elf = with_section(&sound, name, &traps(&entries, 0));
        let image = CodeImage::from_wasmtime_artifact(&artifact.elf).expect("well formed");
        assert_same_traps(&artifact, &image)?;
        // A block that does not start where it is said to.
        let elf = with_section(&sound, name, &traps(&entries, early));
        let error = CodeImage::from_wasmtime_artifact(&elf).expect_err("a lie");
        prop_assert_eq!(error, ElfError::MalformedSection { name });
    }

    /// Where a changed address map is taken for one, it is the one that wasmtime sees.
    #[test]
    fn changed_address_maps_read_alike(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), number(), any::<bool>()), 1..3),
    ) {
        let mut artifact = which.get(artifacts()).clone();
        let range = section(&artifact.elf, ".wasmtime.addrmap");
        for (index, number, wide) in changes {
            change(&mut artifact.elf, range.clone(), index, number, wide);
        }
        if let Ok(image) = CodeImage::from_wasmtime_artifact(&artifact.elf) {
            let oracle = Oracle::new(&artifact);
            for offset in 0..oracle.text.len() as u32 {
                let source = image.tables().source_at(TextOffset::new(offset));
                prop_assert_eq!(source.map(|source| source.get()), oracle.source(offset));
            }
        }
    }
}

#[test]
fn tables_that_are_cut_short_or_too_long() {
    for artifact in artifacts() {
        for name in [".wasmtime.traps", ".wasmtime.addrmap"] {
            let range = section(&artifact.elf, name);
            let word = |at: usize| {
                let at = range.start + at;
                u32::from_le_bytes(artifact.elf[at..at + 4].try_into().expect("four bytes"))
            };
            // Entries and blocks: one more, one less, very many.
            for at in [0, 4] {
                for lie in [word(at) + 1, word(at) - 1, u32::MAX, word(at) + 128] {
                    let mut elf = artifact.elf.clone();
                    elf[range.start + at..range.start + at + 4].copy_from_slice(&lie.to_le_bytes());
                    let error = CodeImage::from_wasmtime_artifact(&elf).expect_err("a lie");
                    assert_eq!(error, ElfError::MalformedSection { name }, "{lie} at {at}");
                }
            }
        }
    }
}

#[test]
fn every_truncation() {
    for artifact in artifacts() {
        for len in (0..artifact.elf.len()).step_by(7) {
            assert!(!read_any(&artifact.elf[..len]), "the headers of sections are at the end");
        }
    }
}
