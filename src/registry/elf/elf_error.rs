//! Why bytes are no code image.

use crate::registry::image_error::ImageError;

/// Why an ELF file gives no code image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfError {
    /// The bytes do not begin as an ELF file does.
    #[error("not an ELF file")]
    NotElf,
    /// The headers or tables are not inside the file, or are of an unknown kind.
    #[error("not a well-formed ELF file: {0}")]
    Malformed(MalformedElf),
    /// The file is not what wasmtime compiles to.
    #[error("not an artifact of wasmtime")]
    NotAnArtifact,
    /// The code is for wasmtime's interpreter, not for a machine.
    #[error("the artifact has code for an interpreter")]
    NotMachineCode,
    /// An artifact has code, but no symbols to tell functions by.
    #[error("the artifact has no symbols for its code")]
    NoSymbols,
    /// A section is missing.
    #[error("there is no section {name}")]
    MissingSection {
        /// Its name.
        name: &'static str,
    },
    /// A section of an artifact does not hold what it should.
    #[error("section {name} is malformed")]
    MalformedSection {
        /// Its name.
        name: &'static str,
    },
    /// Executable code of an object file waits for relocations.
    #[error("section {section} has code with relocations, which nobody has applied")]
    Relocations {
        /// The number of the section with the code.
        section: usize,
    },
    /// The executable sections lie so far apart that text would be longer than the file.
    #[error(
        "{len:#x} bytes of text are more than the file is long: its sections lie too far apart"
    )]
    TextTooSparse {
        /// The length of the text in bytes, from the first section to the last.
        len: u64,
    },
    /// Two executable sections have the same addresses.
    #[error("two executable sections have the address {address:#x}")]
    SectionsOverlap {
        /// The address, as the file has it.
        address: u64,
    },
    /// The names of the function symbols are longer than the file, together: they share bytes.
    #[error("the names of the functions are together longer than the file")]
    NamesTooLong,
    /// A function symbol is not inside its section.
    #[error("a function at {address:#x}, {size:#x} bytes long, is not inside its section")]
    SymbolOutside {
        /// The symbol's address, as the file has it.
        address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// What the file holds does not make an image.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// What is wrong with an ELF file, in words: [`ElfError::Malformed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct MalformedElf(object::Error);

impl From<object::Error> for ElfError {
    fn from(error: object::Error) -> Self {
        Self::Malformed(MalformedElf(error))
    }
}
