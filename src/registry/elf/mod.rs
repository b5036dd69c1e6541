//! Code images read from ELF files.
//!
//! Two readers: one for any ELF file with machine code, by its symbols, and one for what wasmtime
//! compiles ahead of time, by its own tables too. Both give an image or an error for any bytes: the
//! `object` crate reads headers and symbols without trusting them, and everything ends up in a
//! [`CodeImageBuilder`], which checks it as it checks any compiler.
//!
//! Memory and time are bounded by the length of the file, for any file. The reasons:
//!
//! - `object` gives slices of the file. Nothing is decompressed.
//! - Text is no longer than the file: see `text_layout`.
//! - All names of functions together are no longer than the file: see [`ElfError::NamesTooLong`].
//! - A section's name is read no further than the name that it is compared with.
//! - Every list is counted before memory for it is reserved: it has no more entries than the bytes that it is
//!   read from.
//! - Each list is gone through a fixed number of times, or sorted by numbers.
//!
//! `work_tests` counts what is read of hostile files, `tests/image_memory.rs` what is allocated.
//!
//! Neither looks at which machine the code is for, except to understand symbols: see `processor`. Who runs
//! it must know where it comes from.

mod artifact;
mod artifact_names;
mod elf_error;
mod elf_file;
mod function_symbols;
mod packed_sections;
mod processor;
mod text_layout;
#[cfg(test)]
mod work_tests;

use super::code_image::CodeImage;
use super::code_image_builder::CodeImageBuilder;
use super::image_error::ImageError;
use super::keys::FuncKey;
use elf_file::ElfFile;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::FileHeader;
use object::{Endianness, ReadRef};
use text_layout::TextLayout;

pub use elf_error::{ElfError, MalformedElf};

impl CodeImage {
    /// Reads an ELF file: any executable, shared object or object file, of 32 or 64 bits.
    ///
    /// - **Text** is what the executable sections hold. Those of a linked file keep their distances,
    ///   with zeros between them; those of an object file follow one another. It may be empty, and
    ///   is never longer than the file.
    /// - **Functions** are the function symbols in those sections, of the symbol table or, without
    ///   one in it, of the dynamic one. Their keys are in namespace 0 and number them by address.
    ///   Symbols for the same bytes are one function, called by the one that is visible most
    ///   widely, and of several by the first name in alphabetical order. A symbol without a size
    ///   reaches to the next one, or the section's end. A symbol inside another's function is a
    ///   label of that one, no function; where two overlap in part, the first ends where the second
    ///   starts. Names that are not UTF-8 are none. What processors add to that is heeded: bit 0 of
    ///   symbols on Arm and MIPS, function descriptors of 64-bit PowerPC, millicode of PA-RISC.
    /// - **Debug information** is there unparsed if there is a `.debug_info` section.
    /// - Traps, source offsets, trampolines and breakpoint sites are not in such files.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use pcmap::registry::CodeImage;
    ///
    /// let file = std::fs::read("/proc/self/exe").unwrap();
    /// let image = CodeImage::from_elf(&file).unwrap();
    /// let tables = image.tables();
    /// let longest = tables.functions().max_by_key(|function| function.range.len()).unwrap();
    /// assert_eq!(tables.function_at(longest.range.start()), Some(longest));
    /// # }
    /// ```
    ///
    /// **Cost**: O(n log n) in the length of the file, for any file: that of sorting the functions, and of
    /// copying the text. At no time is more memory taken than 8 times the length of the file, and 1 KiB.
    /// **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`ElfError`], also for an object file whose code still has relocations to be applied.
    pub fn from_elf(bytes: &[u8]) -> Result<Self, ElfError> {
        read_elf(bytes)
    }

    /// Reads what wasmtime compiled ahead of time: a module or a component, precompiled or
    /// serialized. The format is that of wasmtime 48.
    ///
    /// - **Text** is the section `.text`. It may be empty.
    /// - **Functions** are the symbols in it. Their keys are those of wasmtime, as far as a symbol
    ///   tells. It tells another index of a function that a module defines: the one that
    ///   WebAssembly uses, which counts imported functions too. Trampolines to routines of the
    ///   runtime have names only, and are numbered as they come in the text. The name of a
    ///   function that a module defines is its name in the module (what is not ASCII replaced, cut
    ///   after 96 letters, by wasmtime); the others are called what their symbols are.
    /// - **Traps** are those of `.wasmtime.traps`; a trap code is the byte that wasmtime chose.
    /// - **Source offsets** are those of `.wasmtime.addrmap`: offsets into the WebAssembly binary.
    /// - **Trampolines** are those from WebAssembly to host functions, by the number of the
    ///   signature in this module or component. Another one numbers its signatures anew: before
    ///   several are loaded into one store, give them numbers that mean the same in all of them, by
    ///   [`CodeImage::renumber_signatures`].
    /// - **Debug information** is there unparsed if wasmtime kept any of the module's, or made
    ///   native one.
    ///
    /// An artifact is trusted code: reading it is safe whatever it holds, running it is not.
    ///
    /// **Cost**: O(n log n) in the length of the file, for any file: that of sorting the functions, and
    /// linear in the rest. At no time is more memory taken than 32 times the length of the file, and 1 KiB.
    /// **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`ElfError`], also for artifacts without symbols (`Config::debug_symbols(false)`) and those
    /// for wasmtime's interpreter.
    pub fn from_wasmtime_artifact(bytes: &[u8]) -> Result<Self, ElfError> {
        read_artifact(bytes)
    }
}

fn read_elf<'d, R: ReadRef<'d>>(bytes: R) -> Result<CodeImage, ElfError> {
    if elf_file::is_64(bytes)? {
        read(&ElfFile::<FileHeader64<Endianness>, R>::parse(bytes)?)
    } else {
        read(&ElfFile::<FileHeader32<Endianness>, R>::parse(bytes)?)
    }
}

fn read_artifact<'d, R: ReadRef<'d>>(bytes: R) -> Result<CodeImage, ElfError> {
    if elf_file::is_64(bytes)? {
        artifact::read(&ElfFile::<FileHeader64<Endianness>, R>::parse(bytes)?)
    } else {
        artifact::read(&ElfFile::<FileHeader32<Endianness>, R>::parse(bytes)?)
    }
}

fn read<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
) -> Result<CodeImage, ElfError> {
    let layout = TextLayout::of_all(file)?;
    let mut builder = builder(file, &layout)?;
    let functions = function_symbols::all(file, &layout)?;
    builder.reserve_functions(functions.len(), function_symbols::name_bytes(&functions))?;
    for (index, function) in (0..).zip(functions) {
        builder.function(FuncKey::new(0, index), function.range(), function.name)?;
    }
    Ok(builder.finish().map_err(ImageError::from)?)
}

/// A builder with the text, its alignment, and a word on debug information.
fn builder<'d, Elf: FileHeader, R: ReadRef<'d>>(
    file: &ElfFile<'d, Elf, R>,
    layout: &TextLayout<'d>,
) -> Result<CodeImageBuilder, ElfError> {
    let mut builder = CodeImage::builder(layout.text()?);
    builder.text_align(layout.align)?;
    const DEBUG_INFO: [&str; 3] = [".debug_info", ".zdebug_info", ".wasmtime.dwarf"];
    let debug = DEBUG_INFO.iter().any(|name| file.section_named(name).is_some());
    builder.unparsed_debug_info(debug);
    Ok(builder)
}
