//! The two ways to keep modules that are compared.

use pcmap::CodeMap;
use pcmap::registry::{
    CodeMemory, Engine, EngineCode, EngineConfig, FuncKey, Module, ModuleRegistry, SignatureKey,
};
use std::sync::Arc;

/// A way to keep modules.
pub(crate) trait Scheme: Sized {
    const NAME: &'static str;
    type Module;
    type Store;

    fn new(private_copies: bool) -> Self;
    fn load(&self, memory: CodeMemory) -> Self::Module;
    fn store(&self) -> Self::Store;
    fn register(store: &mut Self::Store, module: &Self::Module);
    /// Where the store's code for a module starts.
    fn base(store: &Self::Store, module: &Self::Module) -> usize;
    fn function(store: &Self::Store, pc: usize) -> Option<FuncKey>;
    fn trampoline(store: &Self::Store, signature: SignatureKey) -> Option<usize>;
    /// What a handler asks: whether the instruction traps, if it is code at all.
    fn trap(&self, pc: usize) -> Option<bool>;
    /// Gives memory back that waits for readers, if there is such; a part of what letting go costs.
    fn settle(&self) {}
    /// Tells the bytes that wait, where that is known. It borrows nothing: another thread asks.
    fn garbage_bytes(&self) -> Box<dyn Fn() -> Option<u64> + Sync> {
        Box::new(|| None)
    }
}

/// pcmap's, on a map of its own.
pub(crate) struct Pcmap {
    pub(crate) engine: Engine,
}

impl Scheme for Pcmap {
    const NAME: &'static str = crate::report::SUBJECT;
    type Module = Module;
    type Store = ModuleRegistry;

    fn new(private_copies: bool) -> Self {
        let config = EngineConfig::new().private_copies(private_copies);
        let config = config.code_map(Arc::new(CodeMap::new()));
        Self { engine: Engine::new(config).expect("memory") }
    }

    fn load(&self, memory: CodeMemory) -> Module {
        let code = EngineCode::register(&self.engine, memory).expect("memory");
        Module::new(&code, 0).expect("memory")
    }

    fn store(&self) -> ModuleRegistry {
        ModuleRegistry::new(&self.engine)
    }

    fn register(store: &mut ModuleRegistry, module: &Module) {
        store.register_module(module).expect("memory");
    }

    fn base(store: &ModuleRegistry, module: &Module) -> usize {
        store.store_code_base(module.engine_code()).expect("registered").address()
    }

    fn function(store: &ModuleRegistry, pc: usize) -> Option<FuncKey> {
        store.lookup_frame_info(pc).map(|frame| frame.function().key)
    }

    fn trampoline(store: &ModuleRegistry, signature: SignatureKey) -> Option<usize> {
        store.wasm_to_array_trampoline(signature).map(|pc| pc.address())
    }

    fn trap(&self, pc: usize) -> Option<bool> {
        self.engine.code_map().lookup(pc, |hit| hit.value().trap_at(hit.offset()).is_some())
    }

    fn settle(&self) {
        assert!(self.engine.code_map().reclaim().is_empty());
    }

    fn garbage_bytes(&self) -> Box<dyn Fn() -> Option<u64> + Sync> {
        let engine = self.engine.clone();
        Box::new(move || Some(engine.code_map().stats().retired_bytes))
    }
}

/// wasmtime's, written anew.
pub(crate) struct LockAndMaps {
    private_copies: bool,
    next: std::cell::Cell<u64>,
}

impl Scheme for LockAndMaps {
    const NAME: &'static str = "lock_and_maps";
    type Module = crate::lock_and_maps::Module;
    type Store = crate::lock_and_maps::Registry;

    fn new(private_copies: bool) -> Self {
        Self { private_copies, next: std::cell::Cell::new(0) }
    }

    fn load(&self, memory: CodeMemory) -> Self::Module {
        let id = self.next.get();
        self.next.set(id + 1);
        Self::Module { id, code: crate::lock_and_maps::EngineCode::new(memory) }
    }

    fn store(&self) -> Self::Store {
        Self::Store::new(self.private_copies)
    }

    fn register(store: &mut Self::Store, module: &Self::Module) {
        store.register_module(module);
    }

    fn base(store: &Self::Store, module: &Self::Module) -> usize {
        store.base(module).expect("registered")
    }

    fn function(store: &Self::Store, pc: usize) -> Option<FuncKey> {
        store.frame(pc).map(|(_, key)| key)
    }

    fn trampoline(store: &Self::Store, signature: SignatureKey) -> Option<usize> {
        store.trampoline(signature)
    }

    fn trap(&self, pc: usize) -> Option<bool> {
        let (memory, offset) = crate::lock_and_maps::lookup_code(pc)?;
        let offset = offset.try_into().expect("small");
        Some(memory.tables().trap_at(offset).is_some())
    }
}
