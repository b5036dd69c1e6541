//! The store side: code images and the tables in them.
//!
//! A compiler hands over a [`CodeImage`]: text, functions, traps, source offsets, trampolines. Its
//! tables are sorted bytes, read by pure functions: what a signal handler asks first (is this
//! instruction known to trap, and why; which function is it in) is answered without anything that
//! a handler must not do.

mod address_map;
mod code_image;
mod code_image_builder;
#[cfg(test)]
mod code_image_tests;
mod code_tables;
#[cfg(feature = "elf")]
mod elf;
mod function_table;
mod image_error;
mod keys;
mod little_endian;
mod table_error;
mod text_offset;
mod trap_table;
mod varint;

pub use address_map::{AddressMap, AddressMapRef};
pub use code_image::CodeImage;
pub use code_image_builder::{CodeImageBuilder, RefusedImage};
pub use code_tables::{BreakpointSite, CodeTables, Function};
#[cfg(feature = "elf")]
pub use elf::{ElfError, MalformedElf};
pub use function_table::{FunctionTable, FunctionTableRef};
pub use image_error::ImageError;
pub use keys::{FuncKey, FuncKind, SignatureKey, TrapCode};
pub use table_error::TableError;
pub use text_offset::{SourceOffset, TextOffset, TextRange, TextRangeError};
pub use trap_table::{TrapTable, TrapTableRef, Traps};
