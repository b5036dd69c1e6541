//! What one store has loaded: plain ordered maps, owned, without locks or atomics.
//!
//! ```text
//!   module's EngineCode start --> StoreCode start --> StoreCode, modules by index
//!   RegisteredModuleId -------------------------------> Module
//!   signature -------------> trampoline in some StoreCode
//! ```
//!
//! What a store loads is also in the engine's code map, for handlers: the original by way of its
//! `EngineCode`, a private copy at its own range. What a handler needs is there. Everything richer
//! (functions, names, source offsets) is asked here, later, on the thread that has the store.
//!
//! A registration either happens as a whole or leaves everything as it was: what can fail is done
//! first, and undoing never allocates.

use super::breakpoint::Breakpoints;
use super::code_patch::StoreCodeMut;
use super::component::Component;
use super::engine::{Engine, LoadError};
use super::engine_code::EngineCode;
use super::frame_info::FrameInfo;
use super::keys::SignatureKey;
use super::module::{CompiledModuleId, Module, defining_module};
use super::ordered_map::OrderedMap;
use super::pc::{EngineCodePc, StoreCodePc};
use super::store_code::StoreCode;
use super::text_offset::TextOffset;
use crate::memory::OutOfMemory;
use smallvec::SmallVec;

/// A module that has been registered with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegisteredModuleId(CompiledModuleId);

impl RegisteredModuleId {
    /// The module's identity in its engine.
    pub const fn compiled_id(self) -> CompiledModuleId {
        self.0
    }
}

/// Code that is in a store, and the modules of it that were registered.
#[derive(Debug)]
pub(crate) struct LoadedCode {
    pub(crate) code: StoreCode,
    /// By their index in the code, sorted.
    modules: SmallVec<[(u32, RegisteredModuleId); 1]>,
}

impl LoadedCode {
    /// `Ok`: where the module with that index is in the list; `Err`: where it would be.
    fn position(&self, index: u32) -> Result<usize, usize> {
        self.modules.binary_search_by_key(&index, |&(known, _)| known)
    }
}

/// A module or component was not registered. The store and the code map are as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterModuleError {
    /// It was compiled for another engine than the store's.
    #[error("the code was compiled for another engine")]
    ForeignEngine,
    /// Its code could not be loaded; or there is no heap memory.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<OutOfMemory> for RegisterModuleError {
    fn from(error: OutOfMemory) -> Self {
        Self::Load(error.into())
    }
}

/// The modules and the code of one store.
///
/// Methods that ask are O(log n) in what is registered, unless they say otherwise, allocate
/// nothing, cannot fail and do not panic. None is for signal handlers: those ask the engine's
/// [code map](Engine::code_map).
#[derive(Debug)]
pub struct ModuleRegistry {
    engine: Engine,
    pub(crate) loaded_code: OrderedMap<StoreCodePc, LoadedCode>,
    store_code: OrderedMap<EngineCodePc, StoreCodePc>,
    modules: OrderedMap<RegisteredModuleId, Module>,
    trampolines: OrderedMap<SignatureKey, StoreCodePc>,
    pub(crate) breakpoints: Breakpoints,
}

impl ModuleRegistry {
    /// An empty registry, for a store of the engine. Constant time, no allocation.
    pub fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            loaded_code: OrderedMap::new(),
            store_code: OrderedMap::new(),
            modules: OrderedMap::new(),
            trampolines: OrderedMap::new(),
            breakpoints: Breakpoints::new(),
        }
    }

    /// The engine whose code the store runs.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Registers a module, and loads its code if the store does not have it yet.
    ///
    /// Registering it again gives the same identity and changes nothing. A module without text is
    /// kept as well. Of several modules of the same index in the same code
    /// ([`EngineCode::share_with`] makes the same code, too) each is registered, and frames name
    /// the one that came first.
    ///
    /// **Cost**: O(log n); for new code, O(signatures · log n) more, and what
    /// [`StoreCode::new`] costs. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`RegisterModuleError`]; the registry and the code map are as before.
    pub fn register_module(
        &mut self,
        module: &Module,
    ) -> Result<RegisteredModuleId, RegisterModuleError> {
        self.check(module.engine())?;
        let id = RegisteredModuleId(module.id());
        if self.modules.contains(&id) {
            return Ok(id);
        }
        self.modules.try_insert(id, module.clone()).map_err(|_| OutOfMemory::of::<Module>(1))?;
        self.load_module(module, id).inspect_err(|_| {
            self.modules.remove(&id);
        })?;
        Ok(id)
    }

    /// Registers a component: loads its code, if the store does not have it yet. Its modules are
    /// registered one by one, with [`ModuleRegistry::register_module`].
    ///
    /// Cost and errors as there.
    pub fn register_component(&mut self, component: &Component) -> Result<(), RegisterModuleError> {
        self.check(component.engine())?;
        self.load(component.engine_code())?;
        Ok(())
    }

    fn check(&self, engine: &Engine) -> Result<(), RegisterModuleError> {
        if Engine::same(engine, &self.engine) {
            Ok(())
        } else {
            Err(RegisterModuleError::ForeignEngine)
        }
    }

    /// Loads a module's code and enters the module there; all, or nothing.
    fn load_module(
        &mut self,
        module: &Module,
        id: RegisteredModuleId,
    ) -> Result<(), RegisterModuleError> {
        let Some(Loaded { base, new }) = self.load(module.engine_code())? else { return Ok(()) };
        let Some(loaded) = self.loaded_code.get_mut(&base) else { return Ok(()) };
        // Another module of the same index is of the same functions: the first stays.
        let Err(at) = loaded.position(module.index()) else { return Ok(()) };
        if loaded.modules.try_reserve(1).is_err() {
            if new {
                self.unload(base);
            }
            return Err(OutOfMemory::of::<(u32, RegisteredModuleId)>(1).into());
        }
        loaded.modules.insert(at, (module.index(), id));
        Ok(())
    }

    /// Makes sure that code is loaded; all, or nothing. `None`: it has no text.
    fn load(&mut self, code: &EngineCode) -> Result<Option<Loaded>, LoadError> {
        let text = code.text_range();
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(&base) = self.store_code.get(&text.start) {
            return Ok(Some(Loaded { base, new: false }));
        }
        let loaded = LoadedCode { code: StoreCode::new(code)?, modules: SmallVec::new() };
        let range = loaded.code.text_range();
        let base = range.start;
        // The code map has refused whatever overlaps.
        debug_assert!(self.overlapping(&range).is_none());
        self.loaded_code.try_insert(base, loaded).map_err(|_| OutOfMemory::of::<LoadedCode>(1))?;
        if self.store_code.try_insert(text.start, base).is_err() {
            self.loaded_code.remove(&base);
            return Err(OutOfMemory::of::<StoreCodePc>(1).into());
        }
        if let Err(error) = self.add_trampolines(code, base) {
            self.unload(base);
            return Err(error.into());
        }
        Ok(Some(Loaded { base, new: true }))
    }

    /// The first loaded code that shares an address with `range`.
    fn overlapping(&self, range: &core::ops::Range<StoreCodePc>) -> Option<&StoreCode> {
        let last = range.end.checked_sub(1)?;
        let (_, loaded) = self.loaded_code.last_up_to(&last)?;
        (loaded.code.text_range().end > range.start).then_some(&loaded.code)
    }

    /// Undoes `load`. Allocates nothing.
    fn unload(&mut self, base: StoreCodePc) {
        let Some(LoadedCode { code, .. }) = self.loaded_code.remove(&base) else { return };
        let original = code.engine_code();
        self.store_code.remove(&original.text_range().start);
        let range = code.text_range();
        for (signature, _) in original.tables().trampolines() {
            let there = self.trampolines.get(&signature);
            if there.is_some_and(|pc| pc.offset_in(&range).is_some()) {
                self.trampolines.remove(&signature);
            }
        }
    }

    fn add_trampolines(&mut self, code: &EngineCode, base: StoreCodePc) -> Result<(), OutOfMemory> {
        for (signature, trampoline) in code.tables().trampolines() {
            let offset = trampoline.range.start().get() as usize;
            let Some(pc) = base.checked_add(offset) else { continue };
            if !self.trampolines.contains(&signature) {
                let inserted = self.trampolines.try_insert(signature, pc);
                inserted.map_err(|_| OutOfMemory::of::<StoreCodePc>(1))?;
            }
        }
        Ok(())
    }

    /// A module that has been registered.
    pub fn module_by_id(&self, id: RegisteredModuleId) -> Option<&Module> {
        self.modules.get(&id)
    }

    /// A module by its identity in the engine, if it has been registered.
    pub fn module_by_compiled_id(&self, id: CompiledModuleId) -> Option<&Module> {
        self.modules.get(&RegisteredModuleId(id))
    }

    /// All registered modules, in the order of their identities. Constant time a step.
    pub fn all_modules(&self) -> impl Iterator<Item = (RegisteredModuleId, &Module)> {
        self.modules.iter()
    }

    /// What the store runs for some code of the engine, if it has loaded that.
    pub fn store_code(&self, code: &EngineCode) -> Option<&StoreCode> {
        let base = self.store_code_base(code)?;
        self.loaded_code.get(&base).map(|loaded| &loaded.code)
    }

    /// Where the store's code starts for some code of the engine, if it has loaded that. (Code
    /// without text is not loaded.)
    pub fn store_code_base(&self, code: &EngineCode) -> Option<StoreCodePc> {
        self.store_code.get(&code.text_range().start).copied()
    }

    /// Where the store's code starts for a module, which is registered if it is not yet; `None`
    /// for a module without text.
    ///
    /// # Errors
    ///
    /// As [`ModuleRegistry::register_module`].
    pub fn store_code_base_or_register(
        &mut self,
        module: &Module,
    ) -> Result<Option<StoreCodePc>, RegisterModuleError> {
        self.register_module(module)?;
        Ok(self.store_code_base(module.engine_code()))
    }

    /// The store's code that starts at `base`, for patching: see [`StoreCode::code_memory_mut`].
    ///
    /// What is written where a breakpoint is set is overwritten when that is cleared.
    pub fn store_code_mut(&mut self, base: StoreCodePc) -> Option<StoreCodeMut<'_>> {
        self.loaded_code.get_mut(&base).map(|loaded| StoreCodeMut::new(&mut loaded.code))
    }

    /// The store's code that contains `pc`, and the offset into its text, in bytes.
    pub fn store_code_by_pc(&self, pc: usize) -> Option<(&StoreCode, usize)> {
        let (loaded, offset) = self.loaded_code_by_pc(pc)?;
        Some((&loaded.code, offset))
    }

    fn loaded_code_by_pc(&self, pc: usize) -> Option<(&LoadedCode, usize)> {
        let pc = StoreCodePc::new(pc);
        let (_, loaded) = self.loaded_code.last_up_to(&pc)?;
        Some((loaded, pc.offset_in(&loaded.code.text_range())?))
    }

    /// What is at `pc`: module, function, name, offsets. `None` outside of functions of registered
    /// modules: in no code of the store, between functions, in a trampoline, or in a module of a
    /// component that has not been registered yet.
    pub fn lookup_frame_info(&self, pc: usize) -> Option<FrameInfo<'_>> {
        let (loaded, offset) = self.loaded_code_by_pc(pc)?;
        let offset = TextOffset::try_from(offset).ok()?;
        let function = loaded.code.engine_code().tables().function_at(offset)?;
        let (_, id) = loaded.modules[loaded.position(defining_module(function.key)?).ok()?];
        let module = self.modules.get(&id)?;
        Some(FrameInfo { id, module, code: &loaded.code, function, offset })
    }

    /// Where code of this signature calls out to the host: the first trampoline that any code of
    /// the store brought along. Signatures mean the same in all images of an engine: see
    /// [`SignatureKey`].
    ///
    /// O(log signatures), however many modules there are.
    pub fn wasm_to_array_trampoline(&self, signature: SignatureKey) -> Option<StoreCodePc> {
        self.trampolines.get(&signature).copied()
    }
}

/// Code that is loaded, and whether it has just been.
struct Loaded {
    base: StoreCodePc,
    new: bool,
}
