//! Any bytes as an ELF file and as an artifact of wasmtime: see `interpreter/images.rs`, and
//! `interpreter/peak.rs` for memory. (How much is read is counted in `src/registry/elf/work_tests.rs`.)
#![no_main]

#[path = "../interpreter/images.rs"]
mod images;
#[path = "../interpreter/peak.rs"]
mod peak;
#[path = "../interpreter/sound_tables.rs"]
mod sound_tables;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    peak::assert_bounded(input);
    images::read_any(input);
});
