//! Sequences of calls on several maps against plain ordered maps: see `interpreter/operations.rs`.
#![no_main]

#[path = "../interpreter/input.rs"]
mod input;
#[path = "../interpreter/operations.rs"]
mod operations;
#[path = "../interpreter/oracle.rs"]
mod oracle;
#[path = "../../tests/tracked/mod.rs"]
mod tracked;
#[path = "../interpreter/world.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    operations::run(input, &[]);
});
