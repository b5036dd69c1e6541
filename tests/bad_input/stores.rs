//! Questions to a store about what it does not have.

use pcmap::registry::{
    CodeImage, Component, Engine, EngineCode, EngineConfig, FuncKey, Module, ModuleRegistry,
    SignatureKey, StoreCodePc,
};

fn load(engine: &Engine) -> EngineCode {
    let mut image = CodeImage::builder(vec![0xc3; 8]);
    image.function(FuncKey::new(0, 0), 0..4_u32, "four").expect("taken");
    EngineCode::load(engine, image.finish().expect("sound")).expect("memory")
}

#[test]
fn modules_that_there_are_not() {
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = load(&engine);
    for index in [1, 1 << 28, u32::MAX] {
        let module = Module::new(&code, index).expect("memory");
        assert_eq!((module.functions().count(), module.function(0)), (0, None));
        let mut store = ModuleRegistry::new(&engine);
        store.register_module(&module).expect("a module without functions is one");
        let base = store.store_code_base(&code).expect("loaded");
        assert!(store.lookup_frame_info(base.address()).is_none(), "of no registered module");
    }
    let module = Module::new(&code, 0).expect("memory");
    assert_eq!((module.function(1), module.function(u32::MAX)), (None, None));
    // The same index twice is two modules.
    let twice = Component::new(&code, [0, 0]).expect("memory");
    assert_ne!(twice.modules()[0].id(), twice.modules()[1].id());
}

#[test]
fn what_is_not_registered() {
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let (here, elsewhere) = (load(&engine), load(&engine));
    let module = Module::new(&here, 0).expect("memory");
    let other = Module::new(&elsewhere, 0).expect("memory");
    let mut store = ModuleRegistry::new(&engine);
    store.register_module(&module).expect("memory");
    let mut there = ModuleRegistry::new(&engine);
    let foreign = there.register_module(&other).expect("memory");

    assert!(store.module_by_id(foreign).is_none());
    assert!(store.module_by_compiled_id(other.id()).is_none());
    assert!(store.store_code(&elsewhere).is_none() && store.store_code_base(&elsewhere).is_none());
    let start = here.text_range().start.address();
    for pc in [0, start - 1, start + 8, usize::MAX] {
        assert!(store.store_code_by_pc(pc).is_none() && store.lookup_frame_info(pc).is_none());
        assert!(store.store_code_mut(StoreCodePc::new(pc)).is_none());
        assert!(!store.has_breakpoint(StoreCodePc::new(pc)));
    }
    assert!(store.store_code_mut(StoreCodePc::new(start + 1)).is_none(), "only by the start");
    assert!(store.lookup_frame_info(start + 4).is_none(), "in no function");
    assert!(store.store_code_by_pc(start + 4).is_some());
    assert_eq!(store.wasm_to_array_trampoline(SignatureKey::new(0)), None);
    // What a handler finds answers about its text only.
    engine.code_map().lookup(start, |hit| {
        let resident = hit.value();
        for offset in [4, 8, 1 << 32, usize::MAX] {
            assert!(resident.function_at(offset).is_none() && resident.trap_at(offset).is_none());
            assert!(!resident.is_breakpoint_site(offset));
        }
    });
}
