//! What breakpoints may be set, and what they change. (That they fire: `tests/breakpoint_signal.rs`.)

use crate::Bench;
use crate::guests::images::Layout;
use pcmap::registry::{
    BreakpointError, CodePatch, Component, EngineCode, Module, ModuleRegistry, StoreCodeMut,
    TextOffset,
};

#[test]
fn only_at_sites_of_registered_modules_with_private_code() {
    let bench = Bench::new(true);
    let layout = Layout::new(2, 4);
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let component = Component::new(&code, 0..2).expect("memory");
    let modules = component.modules();
    let (mut store, mut other) =
        (ModuleRegistry::new(&bench.engine), ModuleRegistry::new(&bench.engine));
    let id = store.register_module(&modules[0]).expect("memory");
    let elsewhere = other.register_module(&modules[1]).expect("memory");
    let of = |module| layout.functions.iter().filter(move |f| f.key.module() == module);
    let site = of(0).next().expect("a function").range().start();
    let foreign = of(1).next().expect("a function").range().start();
    let not_a_site = Err(BreakpointError::NotASite);

    assert_eq!(store.set_breakpoint(id, foreign), not_a_site, "a site of another module");
    for offset in [site.get() + 1, layout.text.len() as u32, u32::MAX] {
        assert_eq!(store.set_breakpoint(id, TextOffset::new(offset)), not_a_site);
        assert_eq!(store.clear_breakpoint(id, TextOffset::new(offset)), not_a_site);
    }
    let unknown = Err(BreakpointError::NotRegistered);
    assert_eq!(store.set_breakpoint(elsewhere, foreign), unknown);
    assert_eq!(store.clear_breakpoint(elsewhere, foreign), unknown);
    assert_eq!(store.clear_breakpoint(id, site), Ok(false));
    let text = |store: &ModuleRegistry| store.store_code(&code).expect("loaded").text().to_vec();
    assert_eq!(text(&store), layout.text);

    // Two are set, the other module comes, and both stay until they are cleared, in any order.
    let second = of(0).nth(2).expect("a function").range().start();
    assert_eq!(store.set_breakpoint(id, site), Ok(true));
    assert_eq!(store.set_breakpoint(id, second), Ok(true));
    let patched = text(&store);
    let differs = |at: &usize| patched[*at] != layout.text[*at];
    let differences: Vec<_> = (0..patched.len()).filter(differs).collect();
    let within = |at: &TextOffset| differences.contains(&(at.get() as usize));
    assert!([site, second].iter().all(within) && differences.len() <= 8, "{differences:?}");
    let later = store.register_module(&modules[1]).expect("memory");
    assert_eq!(text(&store), patched);
    assert_eq!(store.set_breakpoint(later, foreign), Ok(true));
    assert_eq!(store.clear_breakpoint(id, site), Ok(true));
    assert_eq!(store.clear_breakpoint(later, foreign), Ok(true));
    assert_eq!(store.breakpoints().count(), 1);
    assert_eq!(store.clear_breakpoint(id, second), Ok(true));
    assert_eq!(
        (text(&store), text(&other), code.text().to_vec()),
        (layout.text.clone(), layout.text.clone(), layout.text.clone())
    );
}

/// What is lent for patching can be exchanged among what is lent only: each store keeps its code.
/// (That the code itself cannot be exchanged, examples of [`CodePatch`] and [`StoreCodeMut`] say.)
#[test]
fn what_is_lent_is_not_exchanged() {
    let (here, there) = (Bench::new(true), Bench::new(true));
    let layout = Layout::new(1, 3);
    let at = layout.functions[2].range().start();
    let [mut one, mut other] = [&here, &there].map(|bench| {
        let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
        let module = Module::new(&code, 0).expect("memory");
        let mut store = ModuleRegistry::new(&bench.engine);
        let id = store.register_module(&module).expect("memory");
        assert_eq!(store.set_breakpoint(id, at), Ok(true));
        let base = store.store_code_base(&code).expect("loaded");
        (store, base, id)
    });
    {
        let mut lent: StoreCodeMut<'_> = one.0.store_code_mut(one.1).expect("loaded");
        let mut far = other.0.store_code_mut(other.1).expect("loaded");
        std::mem::swap(&mut lent, &mut far);
        assert_eq!((lent.text_range().start, far.text_range().start), (other.1, one.1));
        let mut patch: CodePatch<'_> = lent.code_memory_mut().expect("private");
        let mut far = far.code_memory_mut().expect("private");
        std::mem::swap(&mut patch, &mut far);
        assert_eq!(patch.text_range().start(), one.1.address());
        patch.unpublish().expect("memory");
    }
    for (bench, (mut store, base, id)) in [(&here, one), (&there, other)] {
        assert_eq!(store.clear_breakpoint(id, at), Ok(true));
        let (code, offset) = store.store_code_by_pc(base.address()).expect("still there");
        assert_eq!((code.text(), offset), (&*layout.text, 0));
        assert!(code.code_memory().is_executable(), "published again");
        assert_eq!(bench.map.lookup(base.address(), |hit| hit.offset()), Some(0));
        drop(store);
        bench.assert_empty();
    }
}

#[test]
fn shared_code_has_none() {
    let bench = Bench::new(false);
    let layout = Layout::new(1, 1);
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let module = Module::new(&code, 0).expect("memory");
    let mut store = ModuleRegistry::new(&bench.engine);
    let id = store.register_module(&module).expect("memory");
    let site = layout.functions[0].range().start();
    assert_eq!(store.set_breakpoint(id, site), Err(BreakpointError::SharedCode));
    let base = store.store_code_base(&code).expect("loaded");
    assert!(store.store_code_mut(base).expect("loaded").code_memory_mut().is_none());
    assert_eq!(code.text(), layout.text);
}
