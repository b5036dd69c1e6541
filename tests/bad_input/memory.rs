//! Memory for code that cannot be had, and code in the wrong state.

use crate::refusing::{Outcome, each_refusal, refusing};
use pcmap::OutOfMemory;
use pcmap::registry::{
    CodeAllocator, CodeImage, CodeMemory, Component, Engine, EngineCode, EngineConfig, LoadError,
    MemoryError, Module, PatchRefused, StoreCode, SystemPages,
};

fn engine(private_copies: bool) -> Engine {
    Engine::new(EngineConfig::new().private_copies(private_copies)).expect("memory")
}

fn image(text: Vec<u8>) -> CodeImage {
    CodeImage::builder(text).finish().expect("a text, and no more")
}

#[test]
fn pages_that_cannot_be_had() {
    for (len, align) in [(0, 16), (usize::MAX, 16), (1 << 60, 16), (64, 0), (64, 3), (64, 1 << 62)]
    {
        let error = SystemPages.allocate(len, align).expect_err("nobody has that");
        assert!(matches!(error, MemoryError::Allocate { len: of, .. } if of == len), "{error}");
    }
    let mut far = CodeImage::builder(vec![0; 8]);
    far.text_align(1 << 31).expect("a power of two");
    // Two gigabytes of addresses may be had.
    match EngineCode::load(&engine(false), far.finish().expect("sound")) {
        Ok(code) => assert_eq!(code.text_range().start.address() % (1 << 31), 0),
        Err(error) => assert!(matches!(error.into(), LoadError::Memory(_))),
    }
}

#[test]
fn code_in_the_wrong_state() {
    let engine = engine(true);
    let mut memory = CodeMemory::publish(&engine, image(vec![0xc3; 8])).expect("memory");
    assert_eq!(memory.write(0, &[0]), Err(PatchRefused::Executable));
    memory.republish().expect("it is published");
    memory.unpublish().expect("memory");
    memory.unpublish().expect("it is unpublished");
    for (offset, bytes) in [(8, 1), (0, 9), (usize::MAX, 2), (usize::MAX, 0)] {
        assert_eq!(memory.write(offset, &[0; 9][..bytes]), Err(PatchRefused::OutsideOfText));
    }
    assert_eq!(memory.write(8, &[]), Ok(()), "nothing, at the end");
    // A copy of what is unpublished can be executed, and what is registered is published.
    assert!(memory.deep_clone().expect("memory").is_executable() && !memory.is_executable());
    memory.write(7, &[0x90]).expect("inside");
    let code = EngineCode::register(&engine, memory).expect("free");
    assert_eq!(code.text(), [0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0xc3, 0x90]);
}

/// An image without text takes no memory and no place in the map.
#[test]
fn no_text() {
    let engine = engine(true);
    let mut memory = CodeMemory::publish(&engine, image(Vec::new())).expect("nothing is asked for");
    memory.unpublish().expect("nothing to do");
    memory.republish().expect("nothing to do");
    assert_eq!(memory.write(0, &[]), Err(PatchRefused::Executable));
    let code = EngineCode::register(&engine, memory).expect("nothing is registered");
    assert!(code.text_range().is_empty() && code.text().is_empty());
    let again = code.share_with(&engine).expect("nothing is registered");
    let mut store = StoreCode::new(&again).expect("nothing is copied");
    assert!(store.text_range().is_empty() && store.is_private());
    assert!(store.code_memory_mut().is_some_and(|memory| memory.text().is_empty()));
}

#[test]
fn no_heap_memory_for_handles() {
    fn refuse<X>(name: &str, make: impl Fn() -> Result<X, OutOfMemory>) {
        each_refusal(name, |k, for_good| {
            let Outcome { result, asked, refused } = refusing(k, for_good, &make);
            Outcome { result: result.is_ok(), asked, refused }
        });
    }
    refuse("engine", || Engine::new(EngineConfig::new()));
    let code = EngineCode::load(&engine(false), image(vec![0xc3; 8])).expect("memory");
    refuse("module", || Module::new(&code, 0));
    refuse("component", || Component::new(&code, 0..9));
}
