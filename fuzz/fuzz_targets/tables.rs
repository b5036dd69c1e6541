//! Any bytes as tables of a code image, and as what one is built of: see `interpreter/tables.rs`.
#![no_main]

#[path = "../interpreter/image.rs"]
mod image;
#[path = "../interpreter/input.rs"]
mod input;
#[path = "../interpreter/sound_tables.rs"]
mod sound_tables;
#[path = "../interpreter/tables.rs"]
mod tables;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tables::run(input);
});
