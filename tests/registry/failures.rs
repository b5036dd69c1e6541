#![expect(clippy::result_large_err, reason = "what was given comes back, and without memory")]
//! Every allocation, and every call for memory for code, fails once: an error that changes nothing,
//! or success; and nothing leaks.

use crate::Bench;
use crate::guests::images::Layout;
use crate::refusing::{Outcome, live_bytes, refusing};
use pcmap::registry::{
    BreakpointError, CodeImage, CodeMemory, Component, Engine, EngineCode, EngineConfig,
    LoadCodeError, Module, ModuleRegistry, RegisteredModuleId, SignatureKey, StoreCode,
    StoreCodePc,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is refused.
#[derive(Clone, Copy, Debug)]
enum Refuse {
    /// The k-th allocation; and those behind it.
    Heap { for_good: bool },
    /// The k-th call for memory for code; and those behind it.
    Memory { for_good: bool },
}

const ALL: [Refuse; 4] = [
    Refuse::Heap { for_good: false },
    Refuse::Heap { for_good: true },
    Refuse::Memory { for_good: false },
    Refuse::Memory { for_good: true },
];

impl Refuse {
    /// Runs `operation` while the `k`-th is refused; how many were.
    fn run<R>(self, bench: &Bench, k: usize, operation: impl FnOnce() -> R) -> (R, usize) {
        match self {
            Self::Heap { for_good } => {
                let Outcome { result, refused, .. } = refusing(k, for_good, operation);
                (result, refused)
            }
            Self::Memory { for_good } => {
                bench.memory.refuse(k, if for_good { usize::MAX } else { 1 });
                let result = operation();
                let refused = bench.memory.refused();
                bench.memory.refuse(0, 0);
                (result, refused)
            }
        }
    }
}

/// Goes through every k until nothing is refused. `one` is given what to refuse and k, and says
/// whether the operation succeeded and how many calls were refused.
fn each_refusal(name: &str, mut one: impl FnMut(Refuse, usize) -> (bool, usize)) {
    let mut total = 0;
    for refuse in ALL {
        let (mut refusals, mut errors) = (0, 0);
        for k in 1.. {
            let before = live_bytes();
            let (success, refused) = one(refuse, k);
            assert_eq!(live_bytes(), before, "{name}, {refuse:?}, {k}: memory leaked");
            if refused == 0 {
                assert!(success, "{name}, {refuse:?}: nothing was refused, and still an error");
                break;
            }
            refusals += 1;
            errors += usize::from(!success);
        }
        println!("{name}, {refuse:?}: {refusals} refusals, {errors} errors");
        total += refusals;
    }
    assert_ne!(total, 0, "{name}: nothing was refused, nothing was tested");
}

/// The images, which belong to the caller, made once.
fn images() -> [(Layout, CodeImage); 2] {
    // So many modules that what a store knows of them has to grow, for one more.
    [Layout::with_signatures(40, 2, &[1, 2, 3, 5]), Layout::with_signatures(1, 4, &[3, 4])]
        .map(|layout| (layout.clone(), layout.image()))
}

/// A store with some code, one of whose modules is registered.
struct Populated {
    bench: Bench,
    code: EngineCode,
    component: Component,
    store: ModuleRegistry,
    id: RegisteredModuleId,
}

/// All that a refused call must leave as it is.
#[derive(Debug, PartialEq)]
struct Picture {
    entries: usize,
    mappings: usize,
    modules: Vec<RegisteredModuleId>,
    frames: Vec<Option<RegisteredModuleId>>,
    trampolines: Vec<Option<StoreCodePc>>,
    breakpoints: Vec<StoreCodePc>,
    text: Vec<u8>,
}

impl Populated {
    fn new(private_copies: bool, image: &CodeImage) -> Self {
        let bench = Bench::new(private_copies);
        let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
        let component = Component::new(&code, 0..40).expect("memory");
        let mut store = ModuleRegistry::new(&bench.engine);
        let ids: Vec<_> = component.modules()[..32]
            .iter()
            .map(|module| store.register_module(module).expect("memory"))
            .collect();
        // And so much code that its lists have to grow for more.
        for _ in 1..4 {
            let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
            let component = Component::new(&code, []).expect("memory");
            store.register_component(&component).expect("memory");
        }
        Self { bench, code, component, store, id: ids[1] }
    }

    fn picture(&self) -> Picture {
        self.bench.map.synchronize();
        let code = self.store.store_code(&self.code).expect("loaded");
        let (start, end) = (code.text_range().start, code.text_range().end);
        let frame = |pc| self.store.lookup_frame_info(pc).map(|frame| frame.module_id());
        let signatures = (0..6).map(SignatureKey::new);
        Picture {
            entries: self.bench.map.stats().entries,
            mappings: self.bench.memory.live(),
            modules: self.store.all_modules().map(|(id, _)| id).collect(),
            frames: (start.address()..end.address()).map(frame).collect(),
            trampolines: signatures.map(|key| self.store.wasm_to_array_trampoline(key)).collect(),
            breakpoints: self.store.breakpoints().collect(),
            text: code.text().to_vec(),
        }
    }

    fn end(self) {
        let Self { bench, code, component, store, .. } = self;
        drop((code, component, store));
        bench.assert_empty();
    }
}

#[test]
fn loading() {
    for private_copies in [false, true] {
        let [(layout, image), _] = images();
        each_refusal("load", |refuse, k| {
            let bench = Bench::new(private_copies);
            let given = image.clone();
            let (loaded, refused) =
                refuse.run(&bench, k, || EngineCode::load(&bench.engine, given));
            let success = match loaded {
                Ok(code) => {
                    assert_eq!(code.text(), layout.text);
                    assert_eq!(bench.map.stats().entries, 1);
                    true
                }
                Err(LoadCodeError::Publish(error)) => {
                    assert!(error.image == image, "what was given comes back");
                    false
                }
                Err(LoadCodeError::Register(error)) => {
                    assert_eq!(error.memory.text(), layout.text, "in memory");
                    assert!(error.memory.is_executable());
                    false
                }
                Err(_) => panic!("an error of another kind"),
            };
            bench.assert_empty();
            (success, refused)
        });
        each_refusal("register unpublished", |refuse, k| {
            let bench = Bench::new(private_copies);
            let mut memory = CodeMemory::publish(&bench.engine, image.clone()).expect("memory");
            memory.unpublish().expect("writable");
            let (registered, refused) =
                refuse.run(&bench, k, || EngineCode::register(&bench.engine, memory));
            let success = match registered {
                Ok(code) => code.text() == layout.text,
                Err(mut error) => {
                    // As it was: code can still be written.
                    assert!(!error.memory.is_executable());
                    error.memory.write(0, &layout.text[..1]).expect("writable");
                    assert_eq!(bench.map.stats().entries, 0);
                    drop(EngineCode::register(&bench.engine, error.memory).expect("memory"));
                    false
                }
            };
            bench.assert_empty();
            (success, refused)
        });
        each_refusal("publish and register", |refuse, k| {
            let bench = Bench::new(private_copies);
            let given = image.clone();
            let (published, refused) =
                refuse.run(&bench, k, || CodeMemory::publish(&bench.engine, given));
            let memory = match published {
                Ok(memory) => memory,
                Err(error) => {
                    assert!(error.image == image, "what was given comes back");
                    bench.assert_empty();
                    return (false, refused);
                }
            };
            let (registered, refused_too) =
                refuse.run(&bench, k, || EngineCode::register(&bench.engine, memory));
            let success = match registered {
                Ok(code) => {
                    drop(code);
                    true
                }
                Err(error) => {
                    assert_eq!(
                        (error.memory.text(), bench.map.stats().entries),
                        (&*layout.text, 0)
                    );
                    drop(EngineCode::register(&bench.engine, error.memory).expect("memory"));
                    false
                }
            };
            let refused = refused + refused_too;
            bench.assert_empty();
            (success, refused)
        });
        each_refusal("share", |refuse, k| {
            let bench = Bench::new(private_copies);
            let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
            let other = Bench::new(private_copies);
            for engine in [bench.another_engine(), other.engine.clone()] {
                let (shared, _) = refuse.run(&bench, k, || code.share_with(&engine));
                assert_eq!(bench.map.stats().entries, 1);
                assert_eq!(
                    other.map.stats().entries,
                    usize::from(shared.is_ok() && std::ptr::eq(engine.code_map(), &*other.map))
                );
            }
            let (shared, refused) = refuse.run(&bench, k, || code.share_with(&other.engine));
            let success = shared.is_ok();
            drop((code, shared));
            other.map.synchronize();
            bench.assert_empty();
            (success, refused)
        });
    }
}

/// What is made of an engine or of code, one call each.
#[test]
fn handles_and_copies() {
    each_refusal("an engine", |refuse, k| {
        let bench = Bench::new(false);
        let config = EngineConfig::new().code_map(bench.map.clone());
        let (engine, refused) = refuse.run(&bench, k, || Engine::new(config));
        (engine.is_ok(), refused)
    });
    let [(layout, image), _] = images();
    let with_code = |one: &dyn Fn(&EngineCode) -> bool, refuse: Refuse, k| {
        let bench = Bench::new(true);
        let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
        let (success, refused) = refuse.run(&bench, k, || one(&code));
        bench.map.synchronize();
        assert_eq!((bench.map.stats().entries, bench.memory.live()), (1, 1));
        drop(code);
        bench.assert_empty();
        (success, refused)
    };
    each_refusal("a module", |refuse, k| {
        with_code(&|code| Module::new(code, 0).is_ok(), refuse, k)
    });
    each_refusal("a component", |refuse, k| {
        with_code(&|code| Component::new(code, 0..40).is_ok(), refuse, k)
    });
    each_refusal("a store's code", |refuse, k| {
        let copy = |code: &EngineCode| {
            StoreCode::new(code).map(|copy| assert_eq!(copy.text(), layout.text)).is_ok()
        };
        with_code(&copy, refuse, k)
    });
    each_refusal("a deep clone", |refuse, k| {
        let bench = Bench::new(false);
        let memory = CodeMemory::publish(&bench.engine, image.clone()).expect("memory");
        let (copy, refused) = refuse.run(&bench, k, || memory.deep_clone());
        let success = copy.map(|copy| assert_eq!(copy.text(), layout.text)).is_ok();
        assert_eq!((memory.text(), bench.memory.live()), (&*layout.text, 1));
        drop(memory);
        bench.assert_empty();
        (success, refused)
    });
}

#[test]
fn registering_modules() {
    for private_copies in [false, true] {
        let [(_, image), (_, other)] = images();
        // New code with new and known signatures; another module of code that is there; a component.
        each_refusal("register new code", |refuse, k| {
            let mut populated = Populated::new(private_copies, &image);
            let code = EngineCode::load(&populated.bench.engine, other.clone()).expect("memory");
            let module = Module::new(&code, 0).expect("memory");
            let before = populated.picture();
            let Populated { bench, store, .. } = &mut populated;
            let (result, refused) = refuse.run(bench, k, || store.register_module(&module));
            match result {
                Ok(id) => assert!(populated.store.module_by_id(id).is_some()),
                Err(_) => {
                    assert_eq!(populated.picture(), before);
                    assert!(populated.store.store_code(&code).is_none());
                    // And with memory it works.
                    populated.store.register_module(&module).expect("memory");
                }
            }
            assert!(populated.store.wasm_to_array_trampoline(SignatureKey::new(4)).is_some());
            drop((module, code));
            populated.end();
            (result.is_ok(), refused)
        });
        each_refusal("register another module", |refuse, k| {
            let mut populated = Populated::new(private_copies, &image);
            let before = populated.picture();
            let Populated { bench, store, component, .. } = &mut populated;
            let module = &component.modules()[32];
            let (result, refused) = refuse.run(bench, k, || store.register_module(module));
            if result.is_err() {
                assert_eq!(populated.picture(), before);
            }
            populated.end();
            (result.is_ok(), refused)
        });
        each_refusal("where a module's code is, or register it", |refuse, k| {
            let mut populated = Populated::new(private_copies, &image);
            let code = EngineCode::load(&populated.bench.engine, other.clone()).expect("memory");
            let module = Module::new(&code, 0).expect("memory");
            let before = populated.picture();
            let Populated { bench, store, .. } = &mut populated;
            let (result, refused) =
                refuse.run(bench, k, || store.store_code_base_or_register(&module));
            match result {
                Ok(base) => assert_eq!(base, populated.store.store_code_base(&code)),
                Err(_) => assert_eq!(populated.picture(), before),
            }
            drop((module, code));
            populated.end();
            (result.is_ok(), refused)
        });
        each_refusal("register a component", |refuse, k| {
            let mut populated = Populated::new(private_copies, &image);
            let code = EngineCode::load(&populated.bench.engine, other.clone()).expect("memory");
            let component = Component::new(&code, [0]).expect("memory");
            let before = populated.picture();
            let Populated { bench, store, .. } = &mut populated;
            let (result, refused) = refuse.run(bench, k, || store.register_component(&component));
            if result.is_err() {
                assert_eq!(populated.picture(), before);
            }
            drop((code, component));
            populated.end();
            (result.is_ok(), refused)
        });
    }
}

/// Dropping a store asks for no memory.
#[test]
fn dropping_a_store() {
    let [(_, image), (_, other)] = images();
    for private_copies in [false, true] {
        let Populated { bench, code, component, mut store, .. } =
            Populated::new(private_copies, &image);
        let later = EngineCode::load(&bench.engine, other.clone()).expect("memory");
        store.register_module(&Module::new(&later, 0).expect("memory")).expect("memory");
        drop((code, component, later));
        bench.map.synchronize();
        assert_ne!(bench.map.stats().entries, 0);
        let publications = bench.map.stats().publications;
        let Outcome { asked, .. } = refusing(1, true, || drop(store));
        assert_eq!((asked, bench.map.stats().entries), (0, 0));
        assert_eq!(bench.map.stats().publications, publications);
        bench.assert_empty();
    }
}

/// A destructor that panics meanwhile keeps none of the entries in the map.
#[test]
fn dropping_a_store_while_a_destructor_panics() {
    for private_copies in [false, true] {
        let bench = Bench::new(private_copies);
        let image = Layout::new(1, 1).image();
        let mut store = ModuleRegistry::new(&bench.engine);
        for _ in 0..100 {
            let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
            let module = Module::new(&code, 0).expect("memory");
            store.register_module(&module).expect("memory");
        }
        bench.memory.unwind();
        let result = catch_unwind(AssertUnwindSafe(|| drop(store)));
        assert!(!bench.memory.is_to_unwind(), "a region's end");
        assert!(result.is_err(), "the panic is seen");
        assert_eq!(bench.map.stats().entries, 0);
        bench.assert_empty();
    }
}

#[test]
fn breakpoints() {
    let [(layout, image), _] = images();
    let sites: Vec<_> =
        layout.functions.iter().filter(|function| function.key.module() == 1).collect();
    let (first, second) = (sites[0].range().start(), sites[1].range().start());
    each_refusal("set and clear", |refuse, k| {
        let mut populated = Populated::new(true, &image);
        let id = populated.id;
        let (mut success, mut refused) = (true, 0);
        for (set, at) in [(true, first), (true, second), (false, first)] {
            let before = populated.picture();
            let Populated { bench, store, .. } = &mut populated;
            let (result, refused_here) = refuse.run(bench, k, || match set {
                true => store.set_breakpoint(id, at),
                false => store.clear_breakpoint(id, at),
            });
            refused += refused_here;
            if !settle(&mut populated, &before, result) {
                success = false;
                // And when nothing is refused it works.
                let again = match set {
                    true => populated.store.set_breakpoint(id, at),
                    false => populated.store.clear_breakpoint(id, at),
                };
                assert_eq!(again, Ok(true));
            }
        }
        assert_eq!(populated.store.breakpoints().count(), 1);
        populated.end();
        (success, refused)
    });
}

/// After a refusal the breakpoints and the bytes are as before, and the code is executable or said
/// not to be; whether there was none.
fn settle(
    populated: &mut Populated,
    before: &Picture,
    result: Result<bool, BreakpointError>,
) -> bool {
    let code = populated.store.store_code(&populated.code).expect("loaded");
    let executable = code.code_memory().is_executable();
    let base = code.text_range().start;
    match result {
        Ok(changed) => {
            assert!(changed && executable);
            return true;
        }
        Err(BreakpointError::LeftUnpublished(_)) => {
            assert!(!executable);
            let code = populated.store.store_code_mut(base).expect("loaded");
            code.code_memory_mut().expect("private").republish().expect("nothing is refused now");
        }
        Err(_) => assert!(executable),
    }
    assert_eq!(populated.picture(), *before);
    false
}
