//! An image of what Cranelift compiles: every offset of it against the compiler's own lists.

use crate::compile::{self, Compiled};
use pcmap::registry::{
    CodeImage, FuncKey, SignatureKey, SourceOffset, TextOffset, TextRange, TrapCode,
};

/// What is known about one byte of text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Known {
    function: Option<usize>,
    trap: Option<u8>,
    source: Option<u32>,
}

/// Functions in a text, with gaps between some of them, and what is known byte by byte.
struct Laid {
    text: Vec<u8>,
    starts: Vec<usize>,
    known: Vec<Known>,
}

fn lay_out(functions: &[Compiled]) -> Laid {
    let mut laid = Laid { text: Vec::new(), starts: Vec::new(), known: Vec::new() };
    for (number, function) in functions.iter().enumerate() {
        // Every third stands apart, and one behind the first 64 KiB.
        let gap = match number {
            5 => 0x1_0000,
            _ if number % 3 == 0 => 100,
            _ => 0,
        };
        let start = (laid.text.len() + gap).next_multiple_of(function.align as usize);
        laid.text.resize(start, 0);
        laid.text.extend(&function.code);
        laid.starts.push(start);
        laid.known.resize(start, Known::default());
        laid.known.resize(laid.text.len(), Known { function: Some(number), ..Known::default() });
        for &(at, code) in &function.traps {
            laid.known[start + at as usize].trap = Some(code);
        }
        for &(from, to, source) in &function.sources {
            let places = &mut laid.known[start + from as usize..start + to as usize];
            places.iter_mut().for_each(|place| place.source = Some(source));
        }
    }
    laid
}

#[test]
fn every_offset_is_what_the_compiler_says() {
    let functions = compile::all();
    let laid = lay_out(&functions);
    let mut builder = CodeImage::builder(laid.text.clone());
    // Given backwards, and with keys that do not follow the text.
    let key = |number: usize| FuncKey::new(3, (number as u32).wrapping_mul(0x9E37_79B9));
    for (number, function) in functions.iter().enumerate().rev() {
        let start = laid.starts[number];
        let end = start + function.code.len();
        builder.function(key(number), start..end, &*function.name).expect("taken");
        for &(at, code) in &function.traps {
            builder.trap(start + at as usize, TrapCode::new(code)).expect("taken");
        }
        builder.trampoline(SignatureKey::new(number as u32), key(number)).expect("taken");
    }
    let mut last = None;
    for (offset, known) in laid.known.iter().enumerate() {
        if last != Some(known.source) {
            builder.address(offset, known.source.map(SourceOffset::new)).expect("taken");
        }
        last = Some(known.source);
    }
    let image = builder.finish().expect("a sound image");
    assert_eq!(image.text(), laid.text);

    let tables = image.tables();
    for offset in 0..laid.text.len() + 100 {
        let known = laid.known.get(offset).copied().unwrap_or_default();
        let at = TextOffset::try_from(offset).expect("a short text");
        let found = tables.function_at(at);
        assert_eq!(found.map(|function| function.key), known.function.map(key), "{at}");
        if let (Some(found), Some(number)) = (found, known.function) {
            let range = laid.starts[number]..laid.starts[number] + functions[number].code.len();
            assert_eq!(found.range, TextRange::try_from(range.clone()).expect("a range"));
            assert_eq!(&image.text()[range], functions[number].code);
            assert_eq!(found.name, Some(&*functions[number].name));
            assert_eq!(tables.function(found.key), Some(found));
            assert_eq!(tables.trampoline(SignatureKey::new(number as u32)), Some(found));
        }
        assert_eq!(tables.trap_at(at).map(TrapCode::get), known.trap, "{at}");
        if offset < laid.text.len() {
            assert_eq!(tables.source_at(at).map(SourceOffset::get), known.source, "{at}");
        }
    }
    let traps: usize = functions.iter().map(|function| function.traps.len()).sum();
    let sources: usize = functions.iter().map(|function| function.sources.len()).sum();
    println!("{} functions, {traps} traps, {sources} places in sources", functions.len());
    assert!(functions.len() >= 20 && traps >= 20 && sources >= 6, "too little was compiled");
}
