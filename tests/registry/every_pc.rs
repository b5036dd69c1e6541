#![expect(unsafe_code, reason = "calls machine code")]
//! Every address of every function of every module, store and engine; and every address beside them.

use crate::Bench;
use crate::guests::expected;
use crate::guests::images::{Layout, call, call_through};
use pcmap::registry::{EngineCode, Module, ModuleRegistry, RegisteredModuleId, TextOffset};

/// How far outside of a text is looked.
const BESIDE: usize = 64;

/// Compares every address of a store's code with the layout that it was made by. Gives how many
/// addresses were in functions and how many were not.
fn check(
    bench: &Bench,
    store: &ModuleRegistry,
    code: &EngineCode,
    layout: &Layout,
    modules: &[(Module, RegisteredModuleId)],
) -> (usize, usize) {
    let store_code = store.store_code(code).expect("loaded");
    assert_eq!(store_code.is_private(), bench.engine.has_private_copies());
    let text = store_code.text_range();
    let (start, end) = (text.start.address(), text.end.address());
    assert_eq!(end - start, layout.text.len());
    let (mut inside, mut outside) = (0, 0);
    for pc in start - BESIDE..end + BESIDE {
        let offset = pc.checked_sub(start).filter(|&offset| offset < layout.text.len());
        let function = offset.and_then(|offset| layout.function_at(offset));
        let frame = store.lookup_frame_info(pc);
        let found = store.store_code_by_pc(pc).map(|(code, offset)| (code.text_range(), offset));
        if let Some(offset) = offset {
            assert_eq!(found, Some((text.clone(), offset)));
            // What a handler is told.
            let answer = bench.map.lookup(pc, |hit| {
                let resident = hit.value();
                let same = std::ptr::eq(resident.tables(), code.tables());
                let function = resident.function_at(offset).map(|found| (found.range, found.key));
                (hit.offset(), same, resident.trap_at(offset), function)
            });
            let trap = layout.traps.iter().find(|(at, _)| *at == offset).map(|&(_, code)| code);
            let (at, same, trap_found, function_found) = answer.expect("registered");
            assert!(same, "the original's tables answer");
            assert_eq!((at, trap_found.map(|trap| trap.get())), (offset, trap));
            let truth = function.map(|function| (function.range(), function.key));
            assert_eq!(function_found.filter(|_| truth.is_some()), truth);
        } else if let Some((other, _)) = &found {
            assert_ne!(*other, text);
        }
        let Some(function) = function else {
            outside += 1;
            assert!(frame.is_none_or(|frame| !std::ptr::eq(frame.store_code(), store_code)));
            continue;
        };
        inside += 1;
        let frame = frame.unwrap_or_else(|| panic!("{pc:#x} is in {}", function.name));
        let (module, id) = &modules[function.key.module() as usize];
        assert_eq!((frame.module_id(), frame.module().id()), (*id, module.id()));
        let found = frame.function();
        assert_eq!((found.key, found.name), (function.key, Some(&*function.name)));
        assert_eq!(found.range, function.range());
        let offset = pc - start;
        assert_eq!(frame.module_offset(), TextOffset::try_from(offset).expect("small"));
        assert_eq!(frame.function_offset() as usize, offset - function.start);
        assert_eq!(frame.source_offset(), Some(layout.source_of(function)));
    }
    (inside, outside)
}

/// Calls every function, directly and through the trampoline.
fn run(store: &ModuleRegistry, code: &EngineCode, layout: &Layout) {
    let start = store.store_code_base(code).expect("loaded");
    let signature = layout.trampolines[0].0;
    let trampoline = store.wasm_to_array_trampoline(signature).expect("loaded");
    for function in &layout.functions {
        let at = start.checked_add(function.start).expect("an address").as_ptr();
        let truth = expected(&function.guest, 30, 4);
        // SAFETY: (`call`) 1. a guest, in code that the registry keeps.
        assert_eq!(unsafe { call(at, 30, 4) }, truth, "{}", function.name);
        // SAFETY: (`call_through`) 1. a trampoline, in code that the registry keeps; 2. as above.
        let through = unsafe { call_through(trampoline.as_ptr(), at, 30, 4) };
        assert_eq!(through, truth, "{}", function.name);
    }
}

fn every_pc(private_copies: bool) {
    let bench = Bench::new(private_copies);
    let engines = [bench.engine.clone(), bench.another_engine()];
    let layouts = [Layout::new(1, 1), Layout::new(1, 40), Layout::new(5, 9)];
    let (mut inside, mut outside, mut stores) = (0, 0, Vec::new());
    for engine in &engines {
        let codes: Vec<_> = layouts
            .iter()
            .map(|layout| {
                let code = EngineCode::load(engine, layout.image()).expect("memory");
                let modules = (0..layout.modules as u32).map(|index| Module::new(&code, index));
                let modules: Result<Vec<_>, _> = modules.collect();
                (code.clone(), modules.expect("memory"))
            })
            .collect();
        for _ in 0..3 {
            let mut store = ModuleRegistry::new(engine);
            let registered: Vec<_> = codes
                .iter()
                .map(|(code, modules)| {
                    let register = |module: &Module| {
                        let id = store.register_module(module).expect("memory");
                        assert_eq!(store.register_module(module), Ok(id), "again is the same");
                        assert_eq!(id.compiled_id(), module.id());
                        (module.clone(), id)
                    };
                    (code.clone(), modules.iter().map(register).collect::<Vec<_>>())
                })
                .collect();
            stores.push((store, registered));
        }
    }
    for (store, registered) in &stores {
        for ((code, modules), layout) in registered.iter().zip(&layouts) {
            let (i, o) = check(&bench, store, code, layout, modules);
            (inside, outside) = (inside + i, outside + o);
            run(store, code, layout);
            if private_copies {
                // The original is no code of the store.
                let original = code.text_range().start.address();
                assert!(store.store_code_by_pc(original).is_none());
                assert!(store.lookup_frame_info(original).is_none());
                assert!(bench.map.lookup(original, |hit| hit.offset()) == Some(0));
            }
        }
        let mut modules: Vec<_> = registered.iter().flat_map(|(_, modules)| modules).collect();
        modules.sort_by_key(|(_, id)| *id);
        let all = store.all_modules().map(|(id, module)| (id, module.id()));
        assert!(all.eq(modules.iter().map(|(module, id)| (*id, module.id()))));
        for (module, id) in modules {
            let found = |found: Option<&Module>| found.map(Module::id);
            assert_eq!(found(store.module_by_id(*id)), Some(module.id()));
            assert_eq!(found(store.module_by_compiled_id(module.id())), Some(module.id()));
        }
    }
    println!(
        "private copies: {private_copies}: {} stores of {} engines, {inside} addresses in functions, \
         {outside} beside them",
        stores.len(),
        engines.len()
    );
    assert!(inside > 10_000 && outside > 1_000);
    drop((stores, engines));
    bench.assert_empty();
}

#[test]
fn of_shared_code() {
    every_pc(false);
}

#[test]
fn of_private_copies() {
    every_pc(true);
}
