//! A module: which functions of some code belong together, under an identity of their own.

use super::code_tables::Function;
use super::engine::Engine;
use super::engine_code::EngineCode;
use super::keys::{FuncKey, FuncKind};
use crate::memory::OutOfMemory;
use crate::memory::Shared;
use core::fmt;

/// Tells the modules of an engine apart, also those that are gone. (No two modules of a process
/// share one.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompiledModuleId(u64);

impl CompiledModuleId {
    /// The number behind it.
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) fn fresh() -> Self {
        Self(crate::sync::unique_number())
    }
}

/// A compiled module: the functions of one module index in the code that it shares with its
/// component, or has for itself.
///
/// A handle, cheap to clone. It keeps its code registered. A module may have no functions, and its
/// code no text.
#[derive(Clone)]
pub struct Module {
    body: Shared<Body>,
}

struct Body {
    id: CompiledModuleId,
    index: u32,
    code: EngineCode,
}

impl Module {
    /// The module of that index in the code: what is numbered so in its functions' keys. Constant
    /// time, an allocation; not signal-safe.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new(code: &EngineCode, index: u32) -> Result<Self, OutOfMemory> {
        let body = Body { id: CompiledModuleId::fresh(), index, code: code.clone() };
        Shared::try_new(body).map(|body| Self { body }).map_err(|_| OutOfMemory::of::<Body>(1))
    }

    /// Its identity. Constant time.
    pub fn id(&self) -> CompiledModuleId {
        self.body.id
    }

    /// Its index in the code: 0 for a module that has the code for itself. Constant time.
    pub fn index(&self) -> u32 {
        self.body.index
    }

    /// The code that its functions are in. Constant time.
    pub fn engine_code(&self) -> &EngineCode {
        &self.body.code
    }

    /// The engine that it was compiled for. Constant time.
    pub fn engine(&self) -> &Engine {
        self.body.code.engine()
    }

    /// The functions that it defines, by index: key, place in the text, name.
    ///
    /// O(log functions), then constant time a step.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        let namespace = FuncKey::of_module(FuncKind::DEFINED, self.body.index, 0);
        let tables = self.body.code.tables();
        namespace.into_iter().flat_map(|key| tables.functions_in(key.namespace()))
    }

    /// The function that it defines with this index. O(log functions).
    pub fn function(&self, index: u32) -> Option<Function<'_>> {
        let key = FuncKey::of_module(FuncKind::DEFINED, self.body.index, index)?;
        self.body.code.tables().function(key)
    }
}

/// The index of the module that defines the function; `None` for trampolines and the like.
pub(crate) fn defining_module(key: FuncKey) -> Option<u32> {
    (key.kind() == FuncKind::DEFINED).then(|| key.module())
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("id", &self.id())
            .field("index", &self.index())
            .field("code", self.engine_code())
            .finish()
    }
}
