//! Lent for patching: what a store runs can be changed in place, but not exchanged.
//!
//! A registry knows its code by where that is, and so does the code map. A `&mut` to the code or to
//! its memory could be swapped for another from outside, and then both would show addresses that
//! nobody keeps mapped. So what is lent has the steps of patching, and otherwise only reads.

use super::code_allocator::MemoryError;
use super::code_memory::{CodeMemory, PatchRefused};
use super::store_code::StoreCode;
use core::ops::Deref;

/// A store's code, lent by [`ModuleRegistry::store_code_mut`](super::ModuleRegistry::store_code_mut):
/// to read, and its memory to patch.
///
/// It cannot be exchanged for other code:
///
/// ```compile_fail,E0596
/// use pcmap::registry::{ModuleRegistry, StoreCode, StoreCodePc};
///
/// fn exchange(store: &mut ModuleRegistry, base: StoreCodePc, mut other: StoreCode) {
///     if let Some(mut code) = store.store_code_mut(base) {
///         core::mem::swap(&mut *code, &mut other);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct StoreCodeMut<'a> {
    code: &'a mut StoreCode,
}

impl<'a> StoreCodeMut<'a> {
    pub(crate) const fn new(code: &'a mut StoreCode) -> Self {
        Self { code }
    }

    /// The memory, for patching: none if it is shared. As [`StoreCode::code_memory_mut`], for as
    /// long as the registry is lent.
    ///
    /// Constant time, without errors or panics; signal-safe.
    pub fn code_memory_mut(self) -> Option<CodePatch<'a>> {
        self.code.code_memory_mut()
    }
}

impl Deref for StoreCodeMut<'_> {
    type Target = StoreCode;

    fn deref(&self) -> &StoreCode {
        self.code
    }
}

/// The memory of a private copy, lent for patching.
///
/// Unpublish, write, publish again. It cannot be exchanged for other memory:
///
/// ```compile_fail,E0596
/// use pcmap::registry::{CodeMemory, StoreCode};
///
/// fn exchange(code: &mut StoreCode, mut other: CodeMemory) {
///     if let Some(mut memory) = code.code_memory_mut() {
///         core::mem::swap(&mut *memory, &mut other);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct CodePatch<'a> {
    memory: &'a mut CodeMemory,
}

impl<'a> CodePatch<'a> {
    pub(crate) const fn new(memory: &'a mut CodeMemory) -> Self {
        Self { memory }
    }

    /// Makes the code writable, and no longer executable: [`CodeMemory::unpublish`].
    ///
    /// **Cost**: a system call. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; it is as before.
    pub fn unpublish(&mut self) -> Result<(), MemoryError> {
        self.memory.unpublish()
    }

    /// Replaces bytes of unpublished code: [`CodeMemory::write`].
    ///
    /// **Cost**: O(bytes). **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`PatchRefused`], and nothing has changed.
    pub fn write(&mut self, offset: usize, new: &[u8]) -> Result<(), PatchRefused> {
        self.memory.write(offset, new)
    }

    /// Makes the code executable again, and no longer writable: [`CodeMemory::republish`].
    ///
    /// **Cost**: O(text) on aarch64, a system call. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; it is still writable, and can be published later.
    pub fn republish(&mut self) -> Result<(), MemoryError> {
        self.memory.republish()
    }
}

impl Deref for CodePatch<'_> {
    type Target = CodeMemory;

    fn deref(&self) -> &CodeMemory {
        self.memory
    }
}
