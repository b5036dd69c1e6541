//! The store side: code images, the memory that they run in, and what engines and stores know of
//! them.
//!
//! A compiler hands over a [`CodeImage`]: text, functions, traps, source offsets, trampolines. Its
//! tables are sorted bytes, read by pure functions: what a signal handler asks first (is this
//! instruction known to trap, and why; which function is it in) is answered without anything that
//! a handler must not do.
//!
//! An [`Engine`] loads images: [`EngineCode`] is the original of some code, in executable memory and
//! in the engine's code map, where handlers find [`ResidentCode`]. A store keeps what it runs in a
//! [`ModuleRegistry`]: originals, or private copies that breakpoints may patch; and asks it what is
//! at a program counter. What belongs together is told in [`registry_design`](crate::registry_design).
//!
//! ```
//! use pcmap::CodeMap;
//! use pcmap::registry::{
//!     CodeImage, Engine, EngineCode, EngineConfig, FuncKey, Module, ModuleRegistry, TrapCode,
//! };
//!
//! // What a compiler makes: on x86-64, `ud2`.
//! let mut image = CodeImage::builder(vec![0x0f, 0x0b]);
//! image.function(FuncKey::new(0, 0), 0..2_u32, "unreachable")?.trap(0_u32, TrapCode::new(9))?;
//!
//! let engine = Engine::new(EngineConfig::new())?;
//! let code = EngineCode::load(&engine, image.finish()?)?;
//! let module = Module::new(&code, 0)?;
//!
//! // In a store:
//! let mut store = ModuleRegistry::new(&engine);
//! let id = store.register_module(&module)?;
//! let pc = store.store_code_base(&code).ok_or("it has text")?.address();
//!
//! // In a signal handler: is it ours, and does this instruction trap?
//! let trap = engine.code_map().lookup(pc, |hit| hit.value().trap_at(hit.offset()));
//! assert_eq!(trap, Some(Some(TrapCode::new(9))));
//!
//! // Later, on the thread that has the store:
//! let frame = store.lookup_frame_info(pc).ok_or("a function is there")?;
//! assert_eq!((frame.module_id(), frame.function().name), (id, Some("unreachable")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address_map;
mod breakpoint;
mod claim;
mod code_allocator;
mod code_image;
mod code_image_builder;
#[cfg(test)]
mod code_image_tests;
mod code_memory;
mod code_patch;
mod code_tables;
mod component;
#[cfg(feature = "elf")]
mod elf;
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
mod varint;

pub use address_map::{AddressMap, AddressMapRef};
pub use breakpoint::{BreakpointError, breakpoint_address};
pub use code_allocator::{CodeAllocator, MemoryError, SystemPages};
pub use code_image::CodeImage;
pub use code_image_builder::{CodeImageBuilder, RefusedImage};
pub use code_memory::{CodeMemory, LoadImageError, PatchRefused};
pub use code_patch::{CodePatch, StoreCodeMut};
pub use code_tables::{BreakpointSite, CodeTables, Function};
pub use component::Component;
#[cfg(feature = "elf")]
pub use elf::{ElfError, MalformedElf};
pub use engine::{Engine, EngineConfig, LoadError};
pub use engine_code::{EngineCode, LoadCodeError, RegisterMemoryError};
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
