//! A call of the store side that is about to be made, and what it is made with.

use super::call::{Call, Operation::*};
use super::code::{LEN, Pages, image, owners_of};
use super::sight::{Sight, Target};
use crate::allocator;
use pcmap::CodeMap;
use pcmap::registry::{
    CodeImage, CodeMemory, Component, Engine, EngineCode, EngineConfig, LoadError, Module,
    ModuleRegistry, RegisterModuleError, RegisteredModuleId, ResidentCode, SignatureKey, StoreCode,
    TextOffset,
};
use std::sync::Arc;

/// What lookups say about some code, in turn: it is absent, or has so many owners. The last owner
/// that leaves closes the entry, and then takes it out.
type States = &'static [Option<usize>];
const ABSENT: States = &[None];
const STAYS: States = &[Some(1)];
const APPEARS: States = &[None, Some(1)];
const DISAPPEARS: States = &[Some(1), Some(0), None];
const IS_JOINED: States = &[Some(1), Some(2)];
const IS_LEFT: States = &[Some(2), Some(1)];

/// The code that a call is about has this number; more of it, those behind.
const TARGET: u8 = 100;
/// So much code a store that is dropped has.
const STORED: u8 = 3;
/// Writes take out garbage once in so many.
const WRITES_PER_RECLAIM: u64 = 6;

/// A code map, and the engines that use it.
pub(crate) struct Site {
    pub(crate) pages: Arc<Pages>,
    pub(crate) engine: &'static Engine,
    /// Another one with the same map and private copies, whose memory is not written down.
    pub(crate) rival: Engine,
    /// How many entries others have in the map.
    entries: usize,
}

impl Site {
    /// Around the process's map, or one of its own.
    fn new(call: &Call, is_process: bool) -> Self {
        let pages = Pages::new();
        let map = (!is_process).then(|| Arc::new(CodeMap::new()));
        let config = EngineConfig::new();
        let config = map.iter().fold(config, |config, map| config.code_map(map.clone()));
        let rival = Engine::new(config.clone().private_copies(true)).expect("memory");
        let config = config.private_copies(call.private_copies).code_allocator(pages.clone());
        let engine = Engine::new(config).expect("memory");
        let entries = engine.code_map().stats().entries;
        Self { pages, engine: Box::leak(Box::new(engine)), rival, entries }
    }

    pub(crate) fn map(&self) -> &'static CodeMap<ResidentCode> {
        self.engine.code_map()
    }

    fn load(&self, id: u8) -> EngineCode {
        EngineCode::load(self.engine, image(id)).expect("memory")
    }
}

/// A call that is about to be made, and what it is made with.
pub(crate) struct Scene {
    call: Call,
    pub(crate) site: Site,
    targets: Vec<Target>,
    neighbours: Vec<EngineCode>,
    image: Option<CodeImage>,
    memory: Option<CodeMemory>,
    pub(crate) codes: Vec<EngineCode>,
    module: Option<Module>,
    component: Option<Component>,
    store_code: Option<StoreCode>,
    store: Option<ModuleRegistry>,
    id: Option<RegisteredModuleId>,
    /// The same mapping in another map, where others have it from.
    pub(crate) mirror: Option<EngineCode>,
    /// Brings the number of publications to where it should be.
    extra: Option<EngineCode>,
}

impl Scene {
    /// `mirrored`: the code is kept in another map as well, if it is there already.
    pub(crate) fn new(call: Call, is_process: bool, mirrored: bool) -> Self {
        let site = Site::new(&call, is_process);
        let mut scene = Self {
            call,
            site,
            targets: Vec::new(),
            neighbours: Vec::new(),
            image: None,
            memory: None,
            codes: Vec::new(),
            module: None,
            component: None,
            store_code: None,
            store: None,
            id: None,
            mirror: None,
            extra: None,
        };
        scene.neighbours = (1..=call.neighbours).map(|id| scene.site.load(id)).collect();
        scene.set();
        let code = scene.codes.first();
        if let Some(code) = code.filter(|_| mirrored && scene.mirror.is_none()) {
            scene.mirror = Some(code.share_with(&elsewhere()).expect("memory"));
        }
        if call.has_neighbours() {
            scene.settle_number();
        }
        if scene.targets.is_empty() {
            // What is allocated next.
            scene.expect(scene.site.pages.count(), TARGET, APPEARS);
        }
        match call.operation {
            Publish | RegisterRefused => scene.targets[0].states = ABSENT,
            NewStoreCode | RegisterModule | RegisterComponent | RegisterForeign => {
                if !call.private_copies || call.operation == RegisterForeign {
                    scene.targets[0].states = ABSENT;
                }
                scene.expect(usize::from(call.neighbours), TARGET, STAYS);
            }
            _ => {}
        }
        scene.site.pages.refuse_to_publish(call.operation == RegisterRefused);
        scene
    }

    /// Lookups see code `id`, in the region of that number, go through these states.
    fn expect(&mut self, region: usize, id: u8, states: States) {
        self.targets.push(Target { region, id, states });
    }

    /// Loads the code that the call is about.
    fn load(&mut self, states: Option<States>) -> EngineCode {
        let region = self.site.pages.count();
        let code = self.site.load(TARGET);
        if let Some(states) = states {
            self.expect(region, TARGET, states);
        }
        code
    }

    /// Makes what the call is made with.
    fn set(&mut self) {
        let engine = self.site.engine;
        match self.call.operation {
            Publish | Load => self.image = Some(image(TARGET)),
            RegisterCode => {
                self.expect(self.site.pages.count(), TARGET, APPEARS);
                self.memory = Some(CodeMemory::publish(engine, image(TARGET)).expect("memory"));
            }
            Share => self.codes = vec![self.load(Some(IS_JOINED))],
            ShareFromElsewhere => {
                let code = self.load(Some(APPEARS));
                self.mirror = Some(code.share_with(&elsewhere()).expect("memory"));
                drop(code);
            }
            DropCode => self.codes = vec![self.load(Some(DISAPPEARS))],
            DropOneOwner => {
                let code = self.load(Some(IS_LEFT));
                self.codes = vec![code.share_with(engine).expect("memory"), code];
            }
            DropModule => {
                let code = self.load(Some(DISAPPEARS));
                self.module = Some(Module::new(&code, 0).expect("memory"));
            }
            NewStoreCode => self.codes = vec![self.load(None)],
            DropStoreCode => {
                let code = self.load(Some(STAYS));
                self.expect(self.site.pages.count(), TARGET, DISAPPEARS);
                self.store_code = Some(StoreCode::new(&code).expect("memory"));
                self.codes = vec![code];
            }
            RegisterModule | RegisterRefused | RegisterForeign => {
                let code = self.load(None);
                self.module = Some(Module::new(&code, 0).expect("memory"));
                let other = RegisterForeign == self.call.operation;
                let store = ModuleRegistry::new(if other { &self.site.rival } else { engine });
                (self.store, self.codes) = (Some(store), vec![code]);
            }
            RegisterComponent => {
                let code = self.load(None);
                self.component = Some(Component::new(&code, [0]).expect("memory"));
                (self.store, self.codes) = (Some(ModuleRegistry::new(engine)), vec![code]);
            }
            RegisterModuleAgain | RegisterAnother | LookupFrame | SetBreakpoint
            | ClearBreakpoint => self.set_store(),
            DropStore | DropStoreWithoutMemory | DropStoreOfKept => self.set_store_to_drop(),
        }
    }

    /// A store with a module registered.
    fn set_store(&mut self) {
        let code = self.load(Some(STAYS));
        self.expect(self.site.pages.count(), TARGET, STAYS);
        let module = Module::new(&code, 0).expect("memory");
        let mut store = ModuleRegistry::new(self.site.engine);
        let id = store.register_module(&module).expect("memory");
        if self.call.operation == ClearBreakpoint {
            assert_eq!(store.set_breakpoint(id, TextOffset::new(0)), Ok(true));
        }
        (self.store, self.id) = (Some(store), Some(id));
        let another = self.call.operation == RegisterAnother;
        self.module = Some(if another { Module::new(&code, 1).expect("memory") } else { module });
        self.codes = vec![code];
    }

    /// A store with several modules, which has all their code, or shares it.
    fn set_store_to_drop(&mut self) {
        let is_kept = self.call.operation == DropStoreOfKept;
        let states = if is_kept { STAYS } else { DISAPPEARS };
        let mut store = ModuleRegistry::new(self.site.engine);
        for id in TARGET..TARGET + STORED {
            let from = self.site.pages.count();
            let code = self.site.load(id);
            let module = Module::new(&code, 0).expect("memory");
            store.register_module(&module).expect("memory");
            for region in from..self.site.pages.count() {
                self.expect(region, id, states);
            }
            self.codes.extend(is_kept.then_some(code));
        }
        self.store = Some(store);
    }

    /// Brings the map to where the next write takes out garbage, or does not, as it should be.
    fn settle_number(&mut self) {
        let wanted = if self.call.takes_out_garbage { WRITES_PER_RECLAIM - 1 } else { 1 };
        let map = self.site.map();
        while map.stats().publications % WRITES_PER_RECLAIM != wanted {
            self.extra = match self.extra.take() {
                Some(_) => None,
                None => Some(self.site.load(50)),
            };
        }
    }

    /// What lookups are to see.
    pub(crate) fn sight(&self) -> Sight {
        let neighbours = self.neighbours.iter().map(|code| code.text_range().start.address());
        Sight {
            map: self.site.map(),
            pages: self.site.pages.clone(),
            targets: self.targets.clone(),
            neighbours: (1..).zip(neighbours).collect(),
            is_one_publication: self.call.is_one_publication(),
            // What is being patched is not executable.
            runs: !matches!(self.call.operation, SetBreakpoint | ClearBreakpoint),
            byte: match self.call.operation {
                SetBreakpoint => Some([0xb8, 0xcc]),
                ClearBreakpoint => Some([0xcc, 0xb8]),
                _ => None,
            },
        }
    }

    /// Makes the call.
    pub(crate) fn perform(&mut self) {
        let engine = self.site.engine;
        let module = self.module.as_ref();
        match self.call.operation {
            Publish => {
                let image = self.image.take().expect("one");
                self.memory = Some(CodeMemory::publish(engine, image).expect("memory"));
            }
            Load => {
                let image = self.image.take().expect("one");
                self.codes.push(EngineCode::load(engine, image).expect("memory"));
            }
            RegisterCode => {
                let memory = self.memory.take().expect("one");
                self.codes.push(EngineCode::register(engine, memory).expect("memory"));
            }
            Share => self.codes.push(self.codes[0].share_with(engine).expect("memory")),
            ShareFromElsewhere => {
                let mirror = self.mirror.as_ref().expect("one");
                self.codes.push(mirror.share_with(engine).expect("memory"));
            }
            DropCode | DropOneOwner => drop(self.codes.pop().expect("one")),
            DropModule => drop(self.module.take().expect("one")),
            NewStoreCode => {
                self.store_code = Some(StoreCode::new(&self.codes[0]).expect("memory"));
            }
            DropStoreCode => drop(self.store_code.take().expect("one")),
            RegisterModule | RegisterModuleAgain | RegisterAnother | RegisterForeign
            | RegisterRefused => {
                let store = self.store.as_mut().expect("one");
                let result = store.register_module(module.expect("one"));
                match self.call.operation {
                    RegisterForeign => {
                        assert_eq!(result, Err(RegisterModuleError::ForeignEngine));
                    }
                    RegisterRefused => assert!(matches!(
                        result,
                        Err(RegisterModuleError::Load(LoadError::Memory(_)))
                    )),
                    _ => self.id = Some(result.expect("memory")),
                }
            }
            RegisterComponent => {
                let store = self.store.as_mut().expect("one");
                store.register_component(self.component.as_ref().expect("one")).expect("memory");
            }
            DropStore | DropStoreOfKept => drop(self.store.take()),
            DropStoreWithoutMemory => allocator::refusing(|| drop(self.store.take())),
            LookupFrame => {
                let store = self.store.as_ref().expect("one");
                let pc = store.store_code_base(&self.codes[0]).expect("loaded").address();
                let frame = store.lookup_frame_info(pc + 1).expect("a function");
                assert_eq!((Some(frame.module_id()), frame.function_offset()), (self.id, 1));
            }
            SetBreakpoint | ClearBreakpoint => {
                let (store, id) = (self.store.as_mut().expect("one"), self.id.expect("one"));
                let at = TextOffset::new(0);
                let changed = match self.call.operation {
                    SetBreakpoint => store.set_breakpoint(id, at),
                    _ => store.clear_breakpoint(id, at),
                };
                assert_eq!(changed, Ok(true));
            }
        }
    }

    /// Compares what the store says with what the code map says: about each address of the code.
    ///
    /// The methods of a store are no handler's business, and borrow it: this is for after the call.
    pub(crate) fn compare_store(&self) {
        let Some(store) = &self.store else { return };
        let is_registered = self.id.is_some();
        for code in &self.codes {
            let base = store.store_code_base(code);
            assert_eq!(store.wasm_to_array_trampoline(SignatureKey::new(0)), None);
            let Some(base) = base.map(|base| base.address()) else {
                let start = code.text_range().start.address();
                assert!(!is_registered && store.store_code_by_pc(start).is_none());
                continue;
            };
            let trampoline = store.wasm_to_array_trampoline(SignatureKey::new(TARGET.into()));
            assert!(trampoline.is_some_and(|pc| (base..base + LEN).contains(&pc.address())));
            for pc in base - 1..=base + LEN {
                let offset = store.store_code_by_pc(pc).map(|(_, offset)| offset);
                let resident = self.site.map().lookup(pc, |hit| {
                    hit.value().function_at(hit.offset()).map(|function| function.key)
                });
                assert_eq!(offset, resident.map(|_| pc - base), "at {pc:#x}");
                let frame = store.lookup_frame_info(pc).map(|frame| frame.function().key);
                let key = resident.flatten().filter(|key| is_registered && key.namespace() == 0);
                assert_eq!(frame, key, "at {pc:#x}");
            }
        }
    }

    /// Takes back what the call did, and sees that nothing is left of it.
    pub(crate) fn undo(self) {
        let Self { site, .. } = self;
        drop((self.store, self.store_code, self.component, self.module, self.codes));
        drop((self.memory, self.image, self.mirror, self.extra));
        {
            let reader = site.map().enter();
            for (code, id) in self.neighbours.iter().zip(1..) {
                let start = code.text_range().start.address();
                assert_eq!(owners_of(&reader, start, id, true), Ok(Some(1)));
            }
        }
        drop(self.neighbours);
        site.map().synchronize();
        assert!(site.map().reclaim().is_empty());
        let stats = site.map().stats();
        assert_eq!((stats.entries, stats.retired), (site.entries, 0), "{stats}");
        assert_eq!(site.pages.live(), 0, "each region was given back");
    }
}

/// An engine with a map of its own.
fn elsewhere() -> Engine {
    let map = Arc::new(CodeMap::new());
    Engine::new(EngineConfig::new().code_map(map)).expect("memory")
}
