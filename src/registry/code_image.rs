//! What a compiler hands over: text, and what is known about it.
//!
//! An image is checked when it is built and never changes, but for the numbers of its signatures,
//! which are checked again. Its text is taken to be mapped somewhere, and the tables stay as they
//! are wherever that is: all places are text offsets.

use super::code_image_builder::CodeImageBuilder;
use super::code_tables::CodeTables;
use super::image_error::ImageError;
use super::keys::SignatureKey;
use core::fmt;

/// Machine code and its tables, checked: text, functions, traps, source offsets, trampolines,
/// breakpoint sites.
///
/// From [`CodeImage::builder`], or read from an ELF image. Relocations are the compiler's to
/// apply: the text is taken as it is. It may be empty.
///
/// ```
/// use pcmap::registry::{CodeImage, FuncKey, TextOffset, TrapCode};
///
/// # let text = vec![0x0f, 0x0b, 0xc3];
/// let mut image = CodeImage::builder(text); // ud2; ret
/// image.function(FuncKey::new(0, 0), 0..3_u32, "unreachable")?.trap(0_u32, TrapCode::new(9))?;
/// let image = image.finish()?;
/// assert_eq!(image.text().len(), 3);
/// assert_eq!(image.tables().trap_at(TextOffset::new(0)), Some(TrapCode::new(9)));
/// # Ok::<(), pcmap::registry::ImageError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct CodeImage {
    pub(super) text: Vec<u8>,
    pub(super) text_align: u32,
    pub(super) tables: CodeTables,
}

impl CodeImage {
    /// A builder of an image with this text. Constant time.
    pub fn builder(text: Vec<u8>) -> CodeImageBuilder {
        CodeImageBuilder::new(text)
    }

    /// The machine code. Constant time.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What the text must be aligned to where it is mapped: a power of two, in bytes.
    pub fn text_align(&self) -> u32 {
        self.text_align
    }

    /// What is known about the text. Constant time.
    pub fn tables(&self) -> &CodeTables {
        &self.tables
    }

    /// Replaces the number of each signature that has a trampoline: `engine_wide` is asked once for
    /// each, in their order, and gives the number that stands for the signature in all code of the
    /// engine.
    ///
    /// ```
    /// use pcmap::registry::{CodeImage, FuncKey, SignatureKey};
    ///
    /// # let text = vec![0xc3];
    /// let mut image = CodeImage::builder(text);
    /// let key = FuncKey::new(0, 0);
    /// image.function(key, 0..1_u32, None)?.trampoline(SignatureKey::new(0), key)?;
    /// let mut image = image.finish()?;
    /// image.renumber_signatures(|of_module| SignatureKey::new(of_module.get() + 40))?;
    /// assert!(image.tables().trampoline(SignatureKey::new(40)).is_some());
    /// assert!(image.tables().trampoline(SignatureKey::new(0)).is_none());
    /// # Ok::<(), pcmap::registry::ImageError>(())
    /// ```
    ///
    /// **Cost**: that of sorting the trampolines. **Progress**: as the allocator. **Panics**: if
    /// `engine_wide` does; the image is as it was. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`ImageError::DuplicateTrampoline`] if two signatures were given one number,
    /// [`ImageError::OutOfMemory`]; the image is as it was.
    pub fn renumber_signatures(
        &mut self,
        engine_wide: impl FnMut(SignatureKey) -> SignatureKey,
    ) -> Result<(), ImageError> {
        self.tables.renumber_signatures(engine_wide)
    }

    /// Text and tables apart, for keeping the tables where the text has been mapped. Constant time.
    pub fn into_parts(self) -> (Vec<u8>, CodeTables) {
        (self.text, self.tables)
    }
}

impl fmt::Debug for CodeImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeImage")
            .field("text", &self.text.len())
            .field("text_align", &self.text_align)
            .field("tables", &self.tables)
            .finish()
    }
}
