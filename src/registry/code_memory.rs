#![expect(unsafe_code, reason = "reads and patches executable memory")]
//! Machine code in memory, with the tables of its image.
//!
//! One mapping: written, then published for execution, never writable and executable at once. It
//! can be unpublished for patching and published again. What handlers may hold of it (the mapping,
//! kept where it is, and the tables) is shared with the code map; the bytes are this value's own.

use super::code_allocator::{AllocatorHandle, MemoryError};
use super::code_image::CodeImage;
use super::code_tables::CodeTables;
use super::engine::{Engine, LoadError};
use super::mapping::{Draft, Mapping};
use crate::CodeRange;
use crate::memory::OutOfMemory;
use crate::memory::Shared;
use core::fmt;

/// Machine code in memory that can be executed.
///
/// From [`CodeMemory::publish`]. An image without text takes no memory, and has an empty range.
/// The memory is given back when it is dropped and no code map shows it any more, with no reader
/// inside.
///
/// Whoever calls the code (which is `unsafe`, and none of this module's business) holds an owner of
/// it, and sees to it that it is not unpublished meanwhile.
pub struct CodeMemory {
    tables: Shared<CodeTables>,
    /// What the text must be aligned to.
    align: u32,
    /// None without text.
    mapping: Option<Shared<Mapping>>,
    /// Or else it is writable.
    executable: bool,
}

impl CodeMemory {
    /// Puts the image's text into memory of the engine's allocator, and makes it executable.
    ///
    /// It is not in the code map yet: see [`EngineCode::register`](super::EngineCode::register).
    ///
    /// **Cost**: O(text), and a few system calls. **Progress**: lock-free but for the system's
    /// calls. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`LoadError::Memory`], or [`LoadError::Refused`] without heap memory; the image comes back.
    #[expect(clippy::result_large_err, reason = "what was given comes back, and without memory")]
    pub fn publish(engine: &Engine, image: CodeImage) -> Result<Self, LoadImageError> {
        let CodeImage { text, text_align, tables } = image;
        let tables = match Shared::try_new(tables) {
            Ok(tables) => tables,
            Err(tables) => {
                let image = CodeImage { text, text_align, tables };
                return Err(LoadImageError {
                    reason: OutOfMemory::of::<CodeTables>(1).into(),
                    image,
                });
            }
        };
        match copy(&text, text_align, engine.allocator()) {
            Ok(mapping) => Ok(Self { tables, align: text_align, mapping, executable: true }),
            Err(reason) => match tables.into_body_if_last() {
                Some(tables) => {
                    let image = CodeImage { text, text_align, tables };
                    Err(LoadImageError { reason, image })
                }
                None => unreachable!("nobody else was given them"),
            },
        }
    }

    /// A copy of the code as it is now, in memory of its own from the same allocator, executable,
    /// with the same tables.
    ///
    /// **Cost**: O(text), and a few system calls. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// As [`CodeMemory::publish`].
    pub fn deep_clone(&self) -> Result<Self, LoadError> {
        let mapping = match &self.mapping {
            None => None,
            Some(original) => copy(self.text(), self.align, original.allocator())?,
        };
        Ok(Self { tables: self.tables.clone(), align: self.align, mapping, executable: true })
    }

    /// The tables of the image that the code was made of.
    ///
    /// Constant time; signal-safe.
    pub fn tables(&self) -> &CodeTables {
        &self.tables
    }

    pub(crate) fn shared_tables(&self) -> &Shared<CodeTables> {
        &self.tables
    }

    /// Where the text is: half-open, absolute addresses; 0..0 without text.
    ///
    /// Constant time; signal-safe.
    pub fn text_range(&self) -> CodeRange {
        match &self.mapping {
            Some(mapping) => CodeRange::of_slot(mapping.start(), mapping.start() + mapping.len()),
            None => CodeRange::of_slot(0, 0),
        }
    }

    /// The text as it is in memory, with what was patched.
    ///
    /// Constant time; signal-safe.
    pub fn text(&self) -> &[u8] {
        match &self.mapping {
            // SAFETY: (`Mapping::bytes`) 1. the bytes are written by `write`, which has `self` for
            // itself; other owners of the mapping do not touch them.
            Some(mapping) => unsafe { mapping.bytes() },
            None => &[],
        }
    }

    /// Whether the code can be executed: it cannot while it is unpublished.
    ///
    /// Constant time; signal-safe.
    pub fn is_executable(&self) -> bool {
        self.executable
    }

    /// Makes the code writable, and no longer executable, for patching; nothing, if it is already.
    ///
    /// A thread that executes it faults.
    ///
    /// **Cost**: a system call. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; it is as before.
    pub fn unpublish(&mut self) -> Result<(), MemoryError> {
        if let (Some(mapping), true) = (&self.mapping, self.executable) {
            // SAFETY: (`Mapping::make_writable`) 1. by `executable`; 2. whoever calls code promised
            // that it is not unpublished meanwhile.
            unsafe { mapping.make_writable() }?;
            self.executable = false;
        }
        Ok(())
    }

    /// Makes the code executable again, and no longer writable, on every core; nothing, if it is
    /// already.
    ///
    /// **Cost**: O(text) on aarch64, a system call. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; it is still writable, and can be published later.
    pub fn republish(&mut self) -> Result<(), MemoryError> {
        if let (Some(mapping), false) = (&self.mapping, self.executable) {
            // SAFETY: (`Mapping::make_executable`) 1. by `executable`; 2. `write` asks it first.
            unsafe { mapping.make_executable() }?;
            self.executable = true;
        }
        Ok(())
    }

    /// Replaces bytes of unpublished code: `new`, at `offset` bytes from the start of the text.
    ///
    /// **Cost**: O(bytes). **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`PatchRefused`], and nothing has changed.
    pub fn write(&mut self, offset: usize, new: &[u8]) -> Result<(), PatchRefused> {
        if self.executable {
            return Err(PatchRefused::Executable);
        }
        let end = offset.checked_add(new.len());
        match &self.mapping {
            Some(mapping) if end.is_some_and(|end| end <= mapping.len()) => {
                // SAFETY: (`Mapping::write`) 1. by `executable`; 2. `text` borrows `self`, and other
                // owners do not touch the bytes.
                unsafe { mapping.write(offset, new) };
                Ok(())
            }
            _ => Err(PatchRefused::OutsideOfText),
        }
    }

    pub(crate) fn mapping(&self) -> Option<&Shared<Mapping>> {
        self.mapping.as_ref()
    }
}

/// An image was not put into memory; it comes back.
#[non_exhaustive]
pub struct LoadImageError {
    /// Why.
    pub reason: LoadError,
    /// The image.
    pub image: CodeImage,
}

/// Bytes were not replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchRefused {
    /// The code is published.
    #[error("the code is executable")]
    Executable,
    /// The bytes do not lie inside of the text.
    #[error("the bytes do not lie inside of the text")]
    OutsideOfText,
}

/// A published mapping that holds `text`; none if there is none.
fn copy(
    text: &[u8],
    align: u32,
    allocator: &AllocatorHandle,
) -> Result<Option<Shared<Mapping>>, LoadError> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut draft = Draft::allocate(text.len(), align as usize, allocator)?;
    draft.bytes().copy_from_slice(text);
    let mapping = Shared::try_new(draft.publish()?).map_err(|_| OutOfMemory::of::<Mapping>(1))?;
    Ok(Some(mapping))
}

impl fmt::Debug for CodeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMemory")
            .field("text_range", &self.text_range())
            .field("executable", &self.executable)
            .finish_non_exhaustive()
    }
}

impl From<LoadImageError> for LoadError {
    fn from(error: LoadImageError) -> Self {
        error.reason
    }
}

impl fmt::Display for LoadImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Debug for LoadImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadImageError")
            .field("reason", &self.reason)
            .field("image", &self.image)
            .finish()
    }
}

impl core::error::Error for LoadImageError {}
