//! An engine: what its stores have in common.

use super::code_allocator::{AllocatorHandle, CodeAllocator, MemoryError};
use super::process_code_map::CodeMapHandle;
use super::residence::ResidentCode;
use crate::memory::OutOfMemory;
use crate::memory::Shared;
use crate::{CodeMap, Refused};
use core::fmt;
use std::sync::Arc;

/// How an [`Engine`] is to be.
///
/// ```
/// use pcmap::CodeMap;
/// use pcmap::registry::{Engine, EngineConfig};
/// use std::sync::Arc;
///
/// let map = Arc::new(CodeMap::new());
/// let config = EngineConfig::new().private_copies(true).code_map(map.clone());
/// let engine = Engine::new(config)?;
/// assert!(engine.has_private_copies() && std::ptr::eq(engine.code_map(), &*map));
/// # Ok::<(), pcmap::OutOfMemory>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    private_copies: bool,
    map: CodeMapHandle,
    allocator: AllocatorHandle,
}

impl EngineConfig {
    /// Stores run the shared original; the process's code map; memory from the system.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether each store runs a copy of its own of all code, which breakpoints may patch.
    pub fn private_copies(mut self, on: bool) -> Self {
        self.private_copies = on;
        self
    }

    /// Registers in `map` and not in that of the process: for tests.
    pub fn code_map(mut self, map: Arc<CodeMap<ResidentCode>>) -> Self {
        self.map = CodeMapHandle::Own(map);
        self
    }

    /// Takes memory for code from `allocator` and not from the system.
    pub fn code_allocator(mut self, allocator: Arc<dyn CodeAllocator>) -> Self {
        self.allocator = AllocatorHandle::Own(allocator);
        self
    }
}

/// What the code and the stores of a runtime have in common; a handle, cheap to clone.
///
/// All methods but [`Engine::new`]: constant time, no errors, no panics.
#[derive(Clone)]
pub struct Engine {
    config: Shared<EngineConfig>,
}

impl Engine {
    /// A new engine. Constant time, an allocation; not signal-safe.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new(config: EngineConfig) -> Result<Self, OutOfMemory> {
        let config = Shared::try_new(config).map_err(|_| OutOfMemory::of::<EngineConfig>(1))?;
        Ok(Self { config })
    }

    /// Whether both are handles of the same engine.
    pub fn same(a: &Self, b: &Self) -> bool {
        a.config.as_raw() == b.config.as_raw()
    }

    /// Whether each store of this engine runs a copy of its own of all code.
    pub fn has_private_copies(&self) -> bool {
        self.config.private_copies
    }

    /// The map that the code of this engine is registered in. Its lookups are for handlers.
    pub fn code_map(&self) -> &CodeMap<ResidentCode> {
        self.config.map.get()
    }

    pub(crate) fn map_handle(&self) -> &CodeMapHandle {
        &self.config.map
    }

    pub(crate) fn allocator(&self) -> &AllocatorHandle {
        &self.config.allocator
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("config", &*self.config).finish()
    }
}

/// Code could not be put into memory or into the code map. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No memory for code, or it could not be made executable.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The code map refused it: overlap, or out of memory. (Without heap memory for anything else
    /// it is [`Refused::OutOfMemory`] as well.)
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<OutOfMemory> for LoadError {
    fn from(error: OutOfMemory) -> Self {
        Self::Refused(error.into())
    }
}
