//! A component: several modules that were compiled together, into the same code.

use super::engine::Engine;
use super::engine_code::EngineCode;
use super::module::Module;
use crate::memory::OutOfMemory;
use crate::memory::Shared;
use core::fmt;

/// Several modules in one code.
///
/// A handle, cheap to clone. Registering a component with a store loads the code; its modules are
/// registered as they are instantiated, in any order, and may be made as late as that
/// ([`Module::new`]).
#[derive(Clone)]
pub struct Component {
    body: Shared<Body>,
}

struct Body {
    code: EngineCode,
    modules: Vec<Module>,
}

impl Component {
    /// A component of the code, with a module for each of `indices`; those of other indices may be
    /// made later. O(modules); not signal-safe.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new(
        code: &EngineCode,
        indices: impl IntoIterator<Item = u32>,
    ) -> Result<Self, OutOfMemory> {
        let mut modules = Vec::new();
        for index in indices {
            modules.try_reserve(1).map_err(|_| OutOfMemory::of::<Module>(1))?;
            modules.push(Module::new(code, index)?);
        }
        let body = Body { code: code.clone(), modules };
        Shared::try_new(body).map(|body| Self { body }).map_err(|_| OutOfMemory::of::<Body>(1))
    }

    /// The code that its modules share. Constant time.
    pub fn engine_code(&self) -> &EngineCode {
        &self.body.code
    }

    /// The engine that it was compiled for. Constant time.
    pub fn engine(&self) -> &Engine {
        self.body.code.engine()
    }

    /// The modules that it was made with, in that order. Constant time.
    pub fn modules(&self) -> &[Module] {
        &self.body.modules
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("code", self.engine_code())
            .field("modules", &self.modules())
            .finish()
    }
}
