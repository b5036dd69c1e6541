//! Artifacts of wasmtime in memory, in engines and in stores: what the code map and the registries
//! say of every address is what wasmtime's own readers say.

use pcmap::registry::{
    CodeImage, Component, Engine, EngineCode, EngineConfig, FuncKind, Module, ModuleRegistry,
    process_code_map,
};
use pcmap_wasmtime_tests::{Artifact, Oracle, all};
use std::collections::BTreeSet;

/// How far outside of a text is looked.
const BESIDE: usize = 64;

/// What the test went through, in numbers.
#[derive(Debug, Default)]
struct Figures {
    stores: usize,
    addresses: usize,
    in_functions: usize,
    traps: usize,
}

/// An artifact that an engine has loaded.
struct Loaded<'a> {
    artifact: &'a Artifact,
    oracle: Oracle<'a>,
    code: EngineCode,
    component: Component,
}

impl<'a> Loaded<'a> {
    fn new(engine: &Engine, artifact: &'a Artifact) -> Self {
        let image = CodeImage::from_wasmtime_artifact(&artifact.elf).expect(&artifact.name);
        let defined = image.tables().functions().map(|function| function.key);
        let defined = defined.filter(|key| key.kind() == FuncKind::DEFINED);
        let modules: BTreeSet<u32> = defined.map(|key| key.module()).chain([0]).collect();
        let code = EngineCode::load(engine, image).expect(&artifact.name);
        let component = Component::new(&code, modules).expect("memory");
        Self { artifact, oracle: Oracle::new(artifact), code, component }
    }

    /// Compares what is said of each address with what wasmtime says of the offset there. Traps and
    /// functions are asked in the code map, as a handler would, and frames in the store.
    fn compare(&self, store: &ModuleRegistry, figures: &mut Figures) {
        let Self { artifact: Artifact { name, .. }, oracle, code, component } = self;
        let Some(start) = store.store_code_base(code).map(|base| base.address()) else {
            assert!(oracle.text.is_empty(), "{name} is not loaded");
            return;
        };
        assert!(store.store_code(code).expect("loaded").text() == oracle.text, "{name}");
        for pc in start - BESIDE..start + oracle.text.len() + BESIDE {
            let offset = pc.checked_sub(start).filter(|&offset| offset < oracle.text.len());
            let Some(offset) = offset else {
                let frame = store.lookup_frame_info(pc);
                assert!(frame.is_none_or(
                    |frame| frame.store_code().engine_code().text_range() != code.text_range()
                ));
                continue;
            };
            figures.addresses += 1;
            let at = u32::try_from(offset).expect("a short text");
            let (trap, function) = process_code_map()
                .lookup(pc, |hit| {
                    assert_eq!(hit.offset(), offset);
                    let resident = hit.value();
                    let function = resident.function_at(offset).map(|function| function.range);
                    (resident.trap_at(offset).map(|code| code.get()), function)
                })
                .expect("registered");
            assert_eq!(trap, oracle.trap(at), "{name}: {at:#x}");
            figures.traps += usize::from(trap.is_some());
            let known = oracle.function(at);
            let range = function.map(|range| (range.start().get(), range.end().get()));
            assert_eq!(range, known.map(|known| (known.start, known.end)), "{name}: {at:#x}");

            // A frame is in a function that a module defines.
            let module =
                known.map(|known| known.namespace).filter(|&namespace| namespace >> 28 == 0);
            let Some(frame) = store.lookup_frame_info(pc) else {
                assert_eq!(module, None, "{name}: {at:#x}");
                continue;
            };
            figures.in_functions += 1;
            let found = frame.function();
            assert_eq!(Some(found.key.namespace()), module, "{name}: {at:#x}");
            assert_eq!(Some(found.key.index()), known.map(|known| known.index));
            assert_eq!(Some(found.range), function);
            assert_eq!(frame.source_offset().map(|source| source.get()), oracle.source(at));
            assert_eq!(frame.module_offset().get(), at);
            assert_eq!(Some(frame.module().index()), module, "{name}: {at:#x}");
            let of_the_component = component.modules().iter().map(Module::id);
            assert!(of_the_component.into_iter().any(|id| id == frame.module().id()));
            assert_eq!(
                frame.has_unparsed_debug_info(),
                name.contains("with native debug information")
            );
        }
    }
}

#[test]
fn every_address_in_every_store() {
    let artifacts = all();
    let mut figures = Figures::default();
    for (private_copies, stores) in [(false, 1), (true, 2)] {
        let config = EngineConfig::new().private_copies(private_copies);
        let engine = Engine::new(config).expect("memory");
        let load = |artifact| Loaded::new(&engine, artifact);
        let loaded: Vec<_> = artifacts.iter().map(load).collect();
        let stores = (0..stores).map(|_| {
            let mut store = ModuleRegistry::new(&engine);
            for Loaded { component, .. } in &loaded {
                store.register_component(component).expect("memory");
                for module in component.modules().iter().rev() {
                    store.register_module(module).expect("memory");
                }
            }
            store
        });
        for store in &stores.collect::<Vec<_>>() {
            figures.stores += 1;
            loaded.iter().for_each(|loaded| loaded.compare(store, &mut figures));
        }
    }
    println!("{figures:?}");
    assert!(figures.traps > 30_000 && figures.in_functions > 500_000, "{figures:?}");
    process_code_map().synchronize();
    assert_eq!(process_code_map().stats().entries, 0);
}
