//! Files that nobody should write: truncated, changed, with sizes that are lies.

use crate::read_any::read_any;
use crate::{compile, written};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The files that are mapped into this process as code.
pub(crate) fn loaded_files() -> impl Iterator<Item = PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let code = maps.lines().filter(|line| line.contains("r-xp"));
    let paths = code.filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])));
    let this = std::env::current_exe().ok();
    let mut paths: Vec<_> = paths.filter(|path| Some(path) != this.as_ref()).collect();
    paths.dedup();
    paths.into_iter()
}

/// Files to break: object files, and the smallest of the files of this process.
fn files() -> &'static [Vec<u8>] {
    static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let functions = compile::all();
        let mut files = vec![
            written::object_file(&functions, false),
            written::object_file(&functions[..4], true),
        ];
        let loaded = loaded_files().filter_map(|path| std::fs::read(path).ok());
        files.extend(loaded.min_by_key(|file| file.len()));
        for file in &files {
            assert!(read_any(file), "whole, it can be read");
        }
        files
    })
}

/// Numbers that sizes and offsets should not be.
const LIES: [u64; 9] =
    [0, 1, 0x7fff_ffff, 0xffff_ffff, 0x1_0000_0000, 1 << 40, 1 << 63, u64::MAX - 7, u64::MAX];

/// Where headers lie: the file's own, and those of sections.
fn headers(file: &[u8]) -> Vec<usize> {
    let word = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
    let sections = word(0x28) as usize;
    (0..64).chain(sections..file.len().saturating_sub(8)).collect()
}

/// One change of a file: a word or a byte written over, at a place in the headers or anywhere.
fn change() -> impl Strategy<Value = (prop::sample::Index, bool, u64, bool)> {
    let number = prop_oneof![prop::sample::select(&LIES[..]), 0_u64..0x1_0000, any::<u64>()];
    (any::<prop::sample::Index>(), any::<bool>(), number, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_files(
        which: prop::sample::Index,
        changes in prop::collection::vec(change(), 1..6),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = which.get(files()).clone();
        let headers = headers(&file);
        for (place, in_headers, number, is_word) in changes {
            let at = if in_headers { *place.get(&headers) } else { place.index(file.len() - 8) };
            let width = if is_word { 8 } else { 1 };
            file[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
        if let Some(keep) = keep {
            file.truncate(keep.index(file.len()));
        }
        read_any(&file);
    }

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read_any(&bytes);
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.extend(&bytes);
        read_any(&file);
    }
}

#[test]
fn every_field_of_every_header_lies() {
    let file = &files()[1];
    let mut given = 0;
    for at in headers(file) {
        for lie in LIES {
            for width in [2, 4, 8] {
                let mut file = file.clone();
                file[at..at + width].copy_from_slice(&lie.to_le_bytes()[..width]);
                given += usize::from(read_any(&file));
            }
        }
    }
    assert!(given > 0, "some lies do no harm");
}

#[test]
fn every_truncation() {
    for len in 0..files()[1].len() {
        read_any(&files()[1][..len]);
    }
}
