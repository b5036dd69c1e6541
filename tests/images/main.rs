//! Code images as compilers make them and as files hold them.
#![cfg(feature = "elf")]

mod broken;
mod compile;
mod cranelift;
mod elf;
mod read_any;
mod written;
