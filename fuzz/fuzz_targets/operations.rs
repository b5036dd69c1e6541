//! Sequences of calls on several maps against plain ordered maps: see `interpreter/operations.rs`.
#![no_main]

#[path = "../interpreter/operations.rs"]
mod operations;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    operations::run(input);
});
