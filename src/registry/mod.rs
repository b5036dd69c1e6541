//! The store side: code images and the tables in them.
//!
//! A compiler hands over a [`CodeImage`]: text, functions, traps, source offsets, trampolines. Its
//! tables are sorted bytes, read by pure functions: what a signal handler asks first (is this
//! instruction known to trap, and why; which function is it in) is answered without anything that
//! a handler must not do.

mod address_map;
mod breakpoint;
mod code_allocator;
mod code_image;
mod code_image_builder;
#[cfg(test)]
mod code_image_tests;
mod code_memory;
mod code_tables;
mod component;
mod engine;
mod engine_code;
mod frame_info;
mod function_table;
mod image_error;
mod keys;
mod little_endian;
mod mapping;
mod module;
mod module_registry;
mod ordered_map;
mod pc;
mod process_code_map;
mod residence;
mod store_code;
mod table_error;
mod text_offset;
mod trap_table;

pub use address_map::{AddressMap, AddressMapRef};
pub use breakpoint::{BreakpointError, breakpoint_address};
pub use code_allocator::{CodeAllocator, MemoryError, SystemPages};
pub use code_image::CodeImage;
pub use code_image_builder::{CodeImageBuilder, RefusedImage};
pub use code_memory::{CodeMemory, LoadImageError, PatchRefused};
pub use code_tables::{BreakpointSite, CodeTables, Function};
pub use component::Component;
pub use engine::{Engine, EngineConfig, LoadError, OutOfMemory};
pub use engine_code::{EngineCode, RegisterMemoryError};
pub use frame_info::FrameInfo;
pub use function_table::{FunctionTable, FunctionTableRef};
pub use image_error::ImageError;
pub use keys::{FuncKey, FuncKind, SignatureKey, TrapCode};
pub use module::{CompiledModuleId, Module};
pub use module_registry::{ModuleRegistry, RegisterModuleError, RegisteredModuleId};
pub use pc::{EngineCodePc, StoreCodePc};
pub use process_code_map::process_code_map;
pub use residence::ResidentCode;
pub use store_code::StoreCode;
pub use table_error::TableError;
pub use text_offset::{SourceOffset, TextOffset, TextRange, TextRangeError};
pub use trap_table::{TrapTable, TrapTableRef, Traps};
