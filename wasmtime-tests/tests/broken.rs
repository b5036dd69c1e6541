//! Artifacts that nobody should write: changed, truncated, with tables that are not well formed.

#[path = "../../tests/images/read_any.rs"]
mod read_any;

use pcmap::registry::{CodeImage, ElfError, TextOffset};
use pcmap_wasmtime_tests::{Artifact, Oracle, all};
use proptest::prelude::*;
use read_any::read_any;
use std::ops::Range;
use std::sync::OnceLock;
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
