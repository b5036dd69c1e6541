//! No page is ever writable and executable: the system's own list of mappings is asked.

use crate::Bench;
use crate::guests::images::Layout;
use pcmap::registry::{
    CodeImage, CodePatch, EngineCode, Module, ModuleRegistry, PatchRefused, StoreCodePc,
};
use std::fs;

/// The permissions of the mapping that an address is in; and that none in the process may be both
/// written and executed.
pub(crate) fn permissions(at: usize) -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").expect("on Linux");
    let mut found = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let range = words.next().and_then(|range| range.split_once('-')).expect("a range");
        let permissions = words.next().expect("permissions");
        assert!(!(permissions.contains('w') && permissions.contains('x')), "{line}");
        let address = |text| usize::from_str_radix(text, 16).expect("an address");
        if (address(range.0)..address(range.1)).contains(&at) {
            found = Some(permissions[..3].to_owned());
        }
    }
    found
}

#[test]
#[cfg(target_os = "linux")]
fn never_writable_and_executable() {
    let bench = Bench::new(true);
    bench.memory.watch();
    let layout = Layout::new(1, 30);
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let original = code.text_range().start.address();
    assert_eq!(permissions(original).as_deref(), Some("r-x"));
    let module = Module::new(&code, 0).expect("memory");
    let mut store = ModuleRegistry::new(&bench.engine);
    let id = store.register_module(&module).expect("memory");
    let base = store.store_code_base(&code).expect("loaded");
    let copy = base.address();
    assert_eq!(permissions(copy).as_deref(), Some("r-x"));

    let memory = |store: &mut ModuleRegistry, step: fn(&mut CodePatch<'_>)| {
        step(
            &mut store
                .store_code_mut(base)
                .and_then(|code| code.code_memory_mut())
                .expect("private"),
        );
    };
    memory(&mut store, |memory| assert_eq!(memory.write(0, &[0]), Err(PatchRefused::Executable)));
    memory(&mut store, |memory| memory.unpublish().expect("memory"));
    assert_eq!(permissions(copy).as_deref(), Some("rw-"));
    assert_eq!(permissions(original).as_deref(), Some("r-x"));
    memory(&mut store, |memory| {
        let end = memory.text().len();
        assert_eq!(memory.write(end, &[0]), Err(PatchRefused::OutsideOfText));
        assert_eq!(memory.write(usize::MAX, &[0]), Err(PatchRefused::OutsideOfText));
        assert_eq!(memory.write(end, &[]), Ok(()));
        assert_eq!(memory.write(end - 1, &[7]), Ok(()));
        memory.unpublish().expect("it is already");
        memory.republish().expect("memory");
        memory.republish().expect("it is already");
        assert_eq!(memory.text().last(), Some(&7));
    });
    assert_eq!(permissions(copy).as_deref(), Some("r-x"));

    // A breakpoint goes the same way: the memory looks at each step.
    for function in &layout.functions {
        assert_eq!(store.set_breakpoint(id, function.range().start()), Ok(true));
        assert_eq!(permissions(copy).as_deref(), Some("r-x"));
    }
    assert_eq!(StoreCodePc::new(copy), base);

    // A handler that holds a hit holds the mapping, whatever becomes of the store.
    let text = store.store_code(&code).expect("loaded").text().to_vec();
    let reader = bench.map.enter();
    let hit = reader.lookup(copy).expect("registered");
    drop((store, module, code));
    assert!(bench.map.lookup(copy, |_| ()).is_none());
    assert!(!bench.map.reclaim().is_empty());
    assert_eq!(permissions(copy).as_deref(), Some("r-x"));
    assert_eq!(hit.value().function_at(hit.offset()).map(|function| function.key.index()), Some(0));
    assert_eq!(hit.range().len(), text.len());
    drop(reader);
    bench.assert_empty();
    let gone = |at| permissions(at).as_deref() != Some("r-x");
    assert!(gone(copy) && gone(original), "unmapped");
}

/// Also where pages are less than the compiler asks for.
#[test]
fn text_is_aligned_as_the_compiler_wants() {
    for align in [1_u32, 1 << 12, 1 << 16, 1 << 21] {
        let bench = Bench::new(true);
        let mut image = CodeImage::builder(vec![0; 5000]);
        image.text_align(align).expect("a power of two");
        let code = EngineCode::load(&bench.engine, image.finish().expect("all is well with it"));
        let code = code.expect("memory");
        let module = Module::new(&code, 0).expect("memory");
        let mut store = ModuleRegistry::new(&bench.engine);
        let copy = store.store_code_base_or_register(&module).expect("memory").expect("text");
        for start in [code.text_range().start.address(), copy.address()] {
            assert_eq!(start % align as usize, 0);
        }
        drop((store, module, code));
        bench.assert_empty();
    }
}
