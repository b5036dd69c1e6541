//! What wasmtime registers modules with, written anew for comparison: for handlers, one `BTreeMap`
//! from end addresses behind a reader-writer lock, for the whole process; for each store, three
//! plain `BTreeMap`s.

use pcmap::registry::{CodeMemory, FuncKey, SignatureKey, TextOffset};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, RwLock};

/// By end address, inclusive: start, and the memory whose tables answer.
type GlobalCode = BTreeMap<usize, (usize, Arc<CodeMemory>)>;

static GLOBAL_CODE: RwLock<GlobalCode> = RwLock::new(BTreeMap::new());

fn register_code(answers: &Arc<CodeMemory>, start: usize, end: usize) {
    let previous =
        GLOBAL_CODE.write().expect("not poisoned").insert(end - 1, (start, answers.clone()));
    assert!(previous.is_none());
}

fn unregister_code(end: usize) {
    assert!(GLOBAL_CODE.write().expect("not poisoned").remove(&(end - 1)).is_some());
}

/// What a handler does: the memory, counted, and the offset.
pub(crate) fn lookup_code(pc: usize) -> Option<(Arc<CodeMemory>, usize)> {
    let all = GLOBAL_CODE.read().expect("not poisoned");
    let (_, (start, memory)) = all.range(pc..).next()?;
    Some((memory.clone(), pc.checked_sub(*start)?))
}

/// A compiled module's code: in the global map as long as it lives.
#[derive(Debug)]
pub(crate) struct EngineCode {
    memory: Arc<CodeMemory>,
}

impl EngineCode {
    pub(crate) fn new(memory: CodeMemory) -> Arc<Self> {
        let memory = Arc::new(memory);
        let range = memory.text_range();
        register_code(&memory, range.start(), range.end());
        Arc::new(Self { memory })
    }
}

impl Drop for EngineCode {
    fn drop(&mut self) {
        unregister_code(self.memory.text_range().end());
    }
}

/// A module: its number, and its code.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) id: u64,
    pub(crate) code: Arc<EngineCode>,
}

/// What a store runs.
#[derive(Debug)]
enum StoreCode {
    Shared(Arc<CodeMemory>),
    Private(CodeMemory),
}

impl StoreCode {
    fn memory(&self) -> &CodeMemory {
        match self {
            Self::Shared(memory) => memory,
            Self::Private(memory) => memory,
        }
    }
}

impl Drop for StoreCode {
    fn drop(&mut self) {
        if let Self::Private(memory) = self {
            unregister_code(memory.text_range().end());
        }
    }
}

#[derive(Debug)]
struct LoadedCode {
    code: StoreCode,
    /// By module index.
    modules: BTreeMap<u32, u64>,
}

/// One store's registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    private_copies: bool,
    loaded_code: BTreeMap<usize, LoadedCode>,
    store_code: BTreeMap<usize, usize>,
    modules: BTreeMap<u64, Module>,
}

impl Registry {
    pub(crate) fn new(private_copies: bool) -> Self {
        Self { private_copies, ..Self::default() }
    }

    /// Where the store's code for a module starts.
    pub(crate) fn base(&self, module: &Module) -> Option<usize> {
        self.store_code.get(&module.code.memory.text_range().start()).copied()
    }

    pub(crate) fn register_module(&mut self, module: &Module) {
        self.modules.entry(module.id).or_insert_with(|| module.clone());
        let original = &module.code.memory;
        let base = match self.store_code.entry(original.text_range().start()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let code = if self.private_copies {
                    let copy = original.deep_clone().expect("memory");
                    let range = copy.text_range();
                    register_code(original, range.start(), range.end());
                    StoreCode::Private(copy)
                } else {
                    StoreCode::Shared(original.clone())
                };
                let range = code.memory().text_range();
                if let Some((&start, _)) = self.loaded_code.range(range.start()..).next() {
                    assert!(start >= range.end());
                }
                if let Some((_, before)) = self.loaded_code.range(..range.end()).next_back() {
                    assert!(before.code.memory().text_range().end() <= range.start());
                }
                let loaded = LoadedCode { code, modules: BTreeMap::new() };
                self.loaded_code.insert(range.start(), loaded);
                *free.insert(range.start())
            }
        };
        let loaded = self.loaded_code.get_mut(&base).expect("just looked up");
        loaded.modules.insert(0, module.id);
    }

    /// Module, function, and its place.
    pub(crate) fn frame(&self, pc: usize) -> Option<(u64, FuncKey)> {
        let (start, loaded) = self.loaded_code.range(..=pc).next_back()?;
        let offset = TextOffset::try_from(pc - start).ok()?;
        let function = loaded.code.memory().tables().function_at(offset)?.key;
        let id = loaded.modules.get(&function.module())?;
        Some((self.modules.get(id)?.id, function))
    }

    /// A search of one module after the other.
    pub(crate) fn trampoline(&self, signature: SignatureKey) -> Option<usize> {
        self.modules.values().find_map(|module| {
            let memory = &module.code.memory;
            let trampoline = memory.tables().trampoline(signature)?;
            Some(memory.text_range().start() + trampoline.range.start().get() as usize)
        })
    }
}
