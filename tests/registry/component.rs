//! Components, modules without text, and code of another engine.

use crate::Bench;
use crate::guests::images::Layout;
use pcmap::registry::{
    Component, EngineCode, LoadError, Module, ModuleRegistry, RegisterModuleError, SignatureKey,
};

/// Modules are registered in every order; one that is not there yet gives no frames.
#[test]
fn modules_come_in_any_order() {
    for private_copies in [false, true] {
        let bench = Bench::new(private_copies);
        let layout = Layout::new(4, 5);
        let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
        // The last module is made when it is wanted.
        let component = Component::new(&code, 0..3).expect("memory");
        let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
        for order in orders {
            let mut store = ModuleRegistry::new(&bench.engine);
            assert!(store.store_code(&code).is_none());
            store.register_component(&component).expect("memory");
            store.register_component(&component).expect("again changes nothing");
            let start = store.store_code_base(&code).expect("loaded").address();
            assert_eq!(store.all_modules().count(), 0);
            assert!(store.wasm_to_array_trampoline(layout.trampolines[0].0).is_some());
            let mut there = [false; 4];
            for step in 0..=order.len() {
                for pc in start - 1..start + layout.text.len() + 1 {
                    let function =
                        pc.checked_sub(start).and_then(|offset| layout.function_at(offset));
                    let module = function.map(|function| function.key.module());
                    let expected = module.filter(|&module| there[module as usize]);
                    let found = store.lookup_frame_info(pc).map(|frame| frame.module().index());
                    assert_eq!(found, expected);
                }
                let Some(&next) = order.get(step) else { break };
                let module = match component.modules().get(next) {
                    Some(module) => module.clone(),
                    None => Module::new(&code, next as u32).expect("memory"),
                };
                let functions = module.functions().map(|function| function.key.index());
                assert!(functions.eq(0..5));
                let function = module.function(4).expect("one of them");
                assert!(layout.functions.iter().any(|f| f.range() == function.range));
                assert!(module.function(5).is_none());
                let base = store.store_code_base_or_register(&module).expect("memory");
                assert_eq!(base.map(|base| base.address()), Some(start), "the code is shared");
                there[next] = true;
            }
            assert_eq!(store.all_modules().count(), 4);
        }
        drop((component, code));
        bench.assert_empty();
    }
}

/// Modules of the same functions: each has its identity, frames name the first, and what is asked by
/// either of them is the same.
#[test]
fn of_modules_of_one_index_the_first_is_named() {
    let bench = Bench::new(true);
    let layout = Layout::new(1, 3);
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let modules = [(); 3].map(|()| Module::new(&code, 0).expect("memory"));
    let mut store = ModuleRegistry::new(&bench.engine);
    // Not in the order of their identities.
    let ids = [1, 0, 2, 0].map(|i| store.register_module(&modules[i]).expect("memory"));
    assert!(ids[0] > ids[1] && ids[1] == ids[3] && ids[1] != ids[2]);
    assert_eq!(store.all_modules().count(), 3);
    let base = store.store_code_base(&code).expect("loaded").address();
    for function in &layout.functions {
        let frame = store.lookup_frame_info(base + function.start).expect("a function is there");
        assert_eq!((frame.module_id(), frame.module().id()), (ids[0], modules[1].id()));
    }
    let at = layout.functions[0].range().start();
    assert_eq!(store.set_breakpoint(ids[2], at), Ok(true));
    assert_eq!(store.set_breakpoint(ids[0], at), Ok(false), "it is set");
}

#[test]
fn modules_without_text_are_kept() {
    for private_copies in [false, true] {
        let bench = Bench::new(private_copies);
        let layout = Layout::with_signatures(1, 0, &[]);
        let mut store = ModuleRegistry::new(&bench.engine);
        let mut ids = Vec::new();
        for _ in 0..3 {
            let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
            assert!(code.text_range().is_empty() && code.text().is_empty());
            let module = Module::new(&code, 0).expect("memory");
            assert_eq!(store.store_code_base_or_register(&module), Ok(None));
            let id = store.register_module(&module).expect("memory");
            assert!(store.store_code(&code).is_none());
            assert_eq!(store.module_by_id(id).map(|module| module.id()), Some(id.compiled_id()));
            ids.push(id);
        }
        assert!(store.all_modules().map(|(id, _)| id).eq(ids), "each is one of its own");
        assert!(store.lookup_frame_info(0).is_none() && store.store_code_by_pc(0).is_none());
        assert_eq!((bench.memory.live(), bench.map.stats().publications), (0, 0));
    }
}

#[test]
fn code_of_another_engine_is_refused() {
    let bench = Bench::new(false);
    let code = EngineCode::load(&bench.another_engine(), Layout::new(1, 1).image());
    let code = code.expect("memory");
    let module = Module::new(&code, 0).expect("memory");
    let component = Component::new(&code, [0]).expect("memory");
    let mut store = ModuleRegistry::new(&bench.engine);
    assert_eq!(store.register_module(&module), Err(RegisterModuleError::ForeignEngine));
    assert_eq!(store.register_component(&component), Err(RegisterModuleError::ForeignEngine));
    assert_eq!(store.all_modules().count(), 0);
}

/// Two modules that number the same signatures the other way round: with the engine's numbers, the
/// store finds for each the trampoline that is meant, whichever came first.
#[test]
fn signatures_of_several_images() {
    for private_copies in [false, true] {
        let bench = Bench::new(private_copies);
        let layout = Layout::with_signatures(1, 1, &[0, 1]);
        let other_way = |signature: SignatureKey| SignatureKey::new(1 - signature.get());
        let mut crossed = layout.image();
        crossed.renumber_signatures(other_way).expect("memory");
        let mut of_its_own = Layout::with_signatures(1, 1, &[0]).image();
        of_its_own.renumber_signatures(|_| SignatureKey::new(2)).expect("memory");
        let modules = [layout.image(), crossed, of_its_own].map(|image| {
            let code = EngineCode::load(&bench.engine, image).expect("memory");
            Module::new(&code, 0).expect("memory")
        });
        for order in [[0, 1, 2], [1, 2, 0], [2, 1, 0]] {
            let mut store = ModuleRegistry::new(&bench.engine);
            for which in order {
                store.register_module(&modules[which]).expect("memory");
            }
            let first = *order.iter().find(|&&which| which != 2).expect("one of them");
            for signature in [0, 1, 2] {
                let (which, of_module) = match (signature, first) {
                    (2, _) => (2, 0),
                    (_, 0) => (0, signature),
                    _ => (first, 1 - signature),
                };
                let base = store.store_code_base(modules[which].engine_code()).expect("loaded");
                let place = layout.trampolines[of_module as usize].1.start().get() as usize;
                let found = store.wasm_to_array_trampoline(SignatureKey::new(signature));
                assert_eq!(found.map(|pc| pc.address()), Some(base.address() + place));
            }
        }
    }
}

/// What is in the way of a private copy is told, and nothing has changed: here, an allocator that
/// gives the same memory twice.
#[test]
fn overlap_is_an_error() {
    let bench = Bench::new(true);
    let layout = Layout::new(1, 4);
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let module = Module::new(&code, 0).expect("memory");
    let mut store = ModuleRegistry::new(&bench.engine);
    bench.memory.give_again(code.text_range().start.address());
    let error = store.register_module(&module).expect_err("it is taken");
    let RegisterModuleError::Load(LoadError::Refused(pcmap::Refused::Overlap {
        requested,
        existing,
    })) = error
    else {
        panic!("{error}");
    };
    assert_eq!((requested, existing.start()), (existing, code.text_range().start.address()));
    assert_eq!((store.all_modules().count(), bench.map.stats().entries), (0, 1));
    let id = store.register_module(&module).expect("with other memory it works");
    assert_eq!(store.all_modules().map(|(id, _)| id).collect::<Vec<_>>(), [id]);
    assert_eq!(store.wasm_to_array_trampoline(SignatureKey::new(99)), None);
    drop((store, module, code));
    bench.assert_empty();
}
