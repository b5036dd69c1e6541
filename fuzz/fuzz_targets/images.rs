//! Any bytes as an ELF file and as an artifact of wasmtime: see `interpreter/images.rs`.
#![no_main]

#[path = "../interpreter/images.rs"]
mod images;
#[path = "../interpreter/sound_tables.rs"]
mod sound_tables;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    images::read_any(input);
});
