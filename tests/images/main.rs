//! Code images as compilers make them and as files hold them.
#![cfg(feature = "elf")]

mod assembled;
mod broken;
mod compile;
mod cranelift;
mod elf;
#[path = "../../fuzz/interpreter/images.rs"]
mod read_any;
#[path = "../../fuzz/interpreter/sound_tables.rs"]
mod sound_tables;
mod written;
