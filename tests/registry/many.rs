//! Many modules in one store, and many stores of one module.

use crate::Bench;
use crate::guests::images::Layout;
use pcmap::registry::{EngineCode, Module, ModuleRegistry, SignatureKey};
use std::time::{Duration, Instant};

const MODULES: usize = 10_000;
const STORES: usize = 1_000;

fn micros(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// As many modules as the system has mappings for: a private copy is one more.
fn many_modules(private_copies: bool) {
    let bench = Bench::new(private_copies);
    let layouts: Vec<_> = (0..8).map(|i| Layout::with_signatures(1, 1 + i, &[i as u32])).collect();
    let mut store = ModuleRegistry::new(&bench.engine);
    let mut modules = Vec::new();
    let began = Instant::now();
    for i in 0..MODULES {
        let code = EngineCode::load(&bench.engine, layouts[i % layouts.len()].image());
        modules.push(Module::new(&code.expect("memory"), 0).expect("memory"));
    }
    let loading = began.elapsed();
    let began = Instant::now();
    let ids: Vec<_> =
        modules.iter().map(|module| store.register_module(module).expect("memory")).collect();
    let registering = began.elapsed();
    let in_map = if private_copies { 2 * MODULES } else { MODULES };
    assert_eq!((bench.map.stats().entries, bench.memory.live()), (in_map, in_map));

    let began = Instant::now();
    for (i, (module, id)) in modules.iter().zip(&ids).enumerate() {
        let layout = &layouts[i % layouts.len()];
        let start = store.store_code_base(module.engine_code()).expect("loaded").address();
        for function in &layout.functions {
            for pc in [start + function.start, start + function.end - 1] {
                let frame = store.lookup_frame_info(pc).expect("a function");
                assert_eq!((frame.module_id(), frame.function().key), (*id, function.key));
            }
        }
        assert!(
            store.lookup_frame_info(start + layout.text.len()).is_none_or(|f| f.module_id() != *id)
        );
    }
    let lookups = modules.len() * 9;
    let looking = began.elapsed();
    let began = Instant::now();
    for _ in 0..100 {
        for signature in 0..layouts.len() as u32 + 1 {
            let found = store.wasm_to_array_trampoline(SignatureKey::new(signature));
            assert_eq!(found.is_some(), (signature as usize) < layouts.len());
        }
    }
    let trampolines = began.elapsed();

    // Everything goes, and nothing is published for it: the copies, and the originals that nobody else has.
    let publications = bench.map.stats().publications;
    drop(modules);
    assert_eq!(bench.map.stats().publications, publications);
    let began = Instant::now();
    drop(store);
    let dropping = began.elapsed();
    assert_eq!(bench.map.stats().publications, publications, "nothing to build");
    assert_eq!(bench.map.stats().entries, 0);
    bench.assert_empty();
    println!(
        "{MODULES} modules, private copies {private_copies}: load {:.2} us, register {:.2} us, \
         frame {:.3} us, trampoline {:.3} us, drop of the store {:.2} us a module",
        micros(loading, MODULES),
        micros(registering, MODULES),
        micros(looking, lookups),
        micros(trampolines, 900),
        micros(dropping, MODULES)
    );
}

#[test]
fn modules_that_stores_share() {
    many_modules(false);
}

#[test]
fn modules_that_each_store_copies() {
    many_modules(true);
}

/// Nothing but the store's own maps changes when code is shared; each private copy is an entry.
#[test]
fn stores_of_one_module() {
    for private_copies in [false, true] {
        let bench = Bench::new(private_copies);
        let layout = Layout::new(1, 10);
        let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
        let module = Module::new(&code, 0).expect("memory");
        let publications = bench.map.stats().publications;
        let began = Instant::now();
        let stores: Vec<_> = (0..STORES)
            .map(|_| {
                let mut store = ModuleRegistry::new(&bench.engine);
                store.register_module(&module).expect("memory");
                store
            })
            .collect();
        let registering = began.elapsed();
        let copies = if private_copies { STORES } else { 0 };
        assert_eq!(bench.map.stats().entries, 1 + copies);
        assert_eq!(bench.map.stats().publications, publications + copies as u64);
        for store in &stores {
            let start = store.store_code_base(&code).expect("loaded").address();
            for function in &layout.functions {
                let frame = store.lookup_frame_info(start + function.start).expect("a function");
                assert_eq!(frame.function().key, function.key);
            }
        }
        let began = Instant::now();
        drop(stores);
        let dropping = began.elapsed();
        assert_eq!(bench.map.stats().entries, 1);
        println!(
            "{STORES} stores, private copies {private_copies}: register {:.2} us, drop {:.2} us a store",
            micros(registering, STORES),
            micros(dropping, STORES)
        );
        drop((module, code));
        bench.assert_empty();
    }
}
