//! Code images read from ELF files.
//!
//! Two readers: one for any ELF file with machine code, by its symbols, and one for what wasmtime
//! compiles ahead of time, by its own tables too. Both give an image or an error for any bytes: the
//! `object` crate reads headers and symbols without trusting them, allocation is bounded by what
//! the file holds (never by what it claims), and everything ends up in a [`CodeImageBuilder`],
//! which checks it as it checks any compiler.
//!
//! Neither looks at which machine the code is for. Who runs it must know where it comes from.

mod artifact;
mod artifact_names;
mod elf_error;
mod function_symbols;
mod packed_sections;
mod text_layout;

use super::code_image::CodeImage;
use super::code_image_builder::CodeImageBuilder;
use super::image_error::ImageError;
use super::keys::FuncKey;
use object::{BinaryFormat, File, Object, ObjectSection};
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
    ///   label of that one, no function; where two overlap in part, the first ends where the second starts. Names that are not UTF-8 are none.
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
    /// **Cost**: that of sorting the functions, and of copying the text. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`ElfError`], also for an object file whose code still has relocations to be applied. (Without
    /// memory for one number per section of the file `object`, which reads it, aborts the process; that
    /// comes first, and nothing else does.)
    pub fn from_elf(bytes: &[u8]) -> Result<Self, ElfError> {
        let file = parse(bytes)?;
        let layout = TextLayout::of_all(&file, bytes)?;
        let mut builder = builder(&file, &layout)?;
        for (index, function) in (0..).zip(function_symbols::all(&file, &layout)?) {
            builder.function(FuncKey::new(0, index), function.range(), function.name)?;
        }
        Ok(builder.finish().map_err(ImageError::from)?)
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
    /// **Cost**: that of sorting the functions, and linear in the rest. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`ElfError`], also for artifacts without symbols (`Config::debug_symbols(false)`) and those
    /// for wasmtime's interpreter. (Without memory for the file's sections, as
    /// [`CodeImage::from_elf`].)
    pub fn from_wasmtime_artifact(bytes: &[u8]) -> Result<Self, ElfError> {
        artifact::read(bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<File<'_>, ElfError> {
    let file = File::parse(bytes)?;
    // What else `object` can read depends on what others in the program have it compiled with.
    if file.format() == BinaryFormat::Elf { Ok(file) } else { Err(ElfError::NotElf) }
}

/// A builder with the text, its alignment, and a word on debug information.
fn builder(file: &File<'_>, layout: &TextLayout<'_>) -> Result<CodeImageBuilder, ElfError> {
    let mut builder = CodeImage::builder(layout.text()?);
    builder.text_align(layout.align)?;
    const DEBUG_INFO: [&[u8]; 3] = [b".debug_info", b".zdebug_info", b".wasmtime.dwarf"];
    let debug = |name: &[u8]| DEBUG_INFO.contains(&name);
    let mut sections = file.sections();
    builder.unparsed_debug_info(sections.any(|section| section.name_bytes().is_ok_and(debug)));
    Ok(builder)
}
