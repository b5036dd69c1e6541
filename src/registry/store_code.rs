//! What one store runs: the shared original, or a private copy of it.

use super::code_memory::CodeMemory;
use super::code_patch::CodePatch;
use super::engine::LoadError;
use super::engine_code::EngineCode;
use super::pc::StoreCodePc;
use super::residence::CodeClaim;
use crate::memory::{OutOfMemory, try_box};
use core::fmt;
use core::ops::Range;

/// The code that one store runs.
///
/// With an engine that has private copies it is the store's own, in the code map at its own range,
/// where lookups answer from the original's tables; else it is the original. The methods that only
/// ask are constant time, without errors or panics, and signal-safe; dropping a private copy
/// unregisters it, and is not.
pub struct StoreCode {
    storage: Storage,
    original: EngineCode,
}

/// Small, for registries move it about.
enum Storage {
    Shared,
    Private(Box<PrivateCopy>),
}

struct PrivateCopy {
    memory: CodeMemory,
    /// None without text.
    _claim: Option<CodeClaim>,
}

impl StoreCode {
    /// What a store of the code's engine is to run.
    ///
    /// **Cost**: constant for shared code; a copy of the text, system calls and a registration for
    /// a private copy. **Progress**: lock-free but for the system's calls. **Panics**: none.
    /// **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// For a private copy, as [`EngineCode::load`]; nothing has changed.
    pub fn new(original: &EngineCode) -> Result<Self, LoadError> {
        let engine = original.engine();
        let storage = if engine.has_private_copies() {
            let memory = original.memory().deep_clone()?;
            let claim = match memory.mapping() {
                None => None,
                Some(mapping) => {
                    Some(CodeClaim::on(engine.map_handle(), mapping, memory.shared_tables())?)
                }
            };
            let copy = try_box(PrivateCopy { memory, _claim: claim });
            Storage::Private(copy.map_err(|_| OutOfMemory::of::<PrivateCopy>(1))?)
        } else {
            Storage::Shared
        };
        Ok(Self { storage, original: original.clone() })
    }

    /// The original that this is, or is a copy of.
    pub fn engine_code(&self) -> &EngineCode {
        &self.original
    }

    /// Whether no other store runs it.
    pub fn is_private(&self) -> bool {
        matches!(self.storage, Storage::Private(_))
    }

    /// The memory that is run.
    pub fn code_memory(&self) -> &CodeMemory {
        match &self.storage {
            Storage::Shared => self.original.memory(),
            Storage::Private(copy) => &copy.memory,
        }
    }

    /// The memory, for patching: none if it is shared.
    pub fn code_memory_mut(&mut self) -> Option<CodePatch<'_>> {
        match &mut self.storage {
            Storage::Shared => None,
            Storage::Private(copy) => Some(CodePatch::new(&mut copy.memory)),
        }
    }

    /// Where its text is: half-open; empty without text.
    pub fn text_range(&self) -> Range<StoreCodePc> {
        let range = self.code_memory().text_range();
        StoreCodePc::new(range.start())..StoreCodePc::new(range.end())
    }

    /// The text as this store runs it.
    pub fn text(&self) -> &[u8] {
        self.code_memory().text()
    }
}

impl fmt::Debug for StoreCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCode")
            .field("text_range", &self.text_range())
            .field("private", &self.is_private())
            .finish_non_exhaustive()
    }
}
