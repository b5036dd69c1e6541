//! Memory and code images: without it building is an error that loses nothing, and reading a file
//! takes no more of it than the file is worth.
//!
//! The allocator below refuses the k-th allocation of the calling thread, and counts.
#![cfg(feature = "elf")]
#![expect(unsafe_code, reason = "a global allocator")]

#[path = "images/compile.rs"]
mod compile;
#[path = "images/written.rs"]
mod written;

use compile::Compiled;
use pcmap::registry::{
    AddressMap, CodeImage, CodeImageBuilder, ElfError, FuncKey, FunctionTable, ImageError,
    SignatureKey, SourceOffset, TableError, TextOffset, TrapCode, TrapTable,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy)]
struct Tally {
    /// The number of the allocation to refuse, from 1; 0 for none.
    refuse: usize,
    asked: usize,
    bytes: usize,
}

thread_local! {
    static TALLY: Cell<Tally> = const { Cell::new(Tally { refuse: 0, asked: 0, bytes: 0 }) };
}

struct Counting;

/// Counts a request; tells whether to grant it.
fn count(bytes: usize) -> bool {
    let mut tally = TALLY.get();
    tally.asked += 1;
    tally.bytes += bytes;
    TALLY.set(tally);
    tally.asked != tally.refuse
}

// SAFETY: hands every request to the system's allocator, or refuses it with null, as it may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !count(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !count(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise is passed on; all memory is the system's.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does `work` while allocation number `refuse` is refused; tells what was asked for meanwhile.
fn refusing<R>(refuse: usize, work: impl FnOnce() -> R) -> (R, Tally) {
    TALLY.set(Tally { refuse, asked: 0, bytes: 0 });
    let result = work();
    let tally = TALLY.replace(Tally { refuse: 0, asked: 0, bytes: 0 });
    (result, tally)
}

/// Every guest, many times over, one behind the other.
fn functions() -> Vec<Compiled> {
    let once = compile::all();
    (0..8).flat_map(|_| once.clone()).collect()
}

fn builder(functions: &[Compiled]) -> CodeImageBuilder {
    let mut text = Vec::new();
    functions.iter().for_each(|function| text.extend(&function.code));
    CodeImage::builder(text)
}

/// Gives a builder something of everything.
fn fill(builder: &mut CodeImageBuilder, functions: &[Compiled]) -> Result<(), ImageError> {
    let mut start = 0;
    for (index, function) in (0..).zip(functions) {
        let (key, end) = (FuncKey::new(0, index), start + function.code.len() as u32);
        builder.function(key, start..end, &*function.name)?;
        builder.trampoline(SignatureKey::new(index), key)?;
        for &(at, code) in &function.traps {
            builder.trap(start + at, TrapCode::new(code))?;
        }
        for &(from, to, source) in &function.sources {
            let source = SourceOffset::new(source);
            builder
                .address(start + from, source)?
                .breakpoint_site(start + from..start + to, source)?;
        }
        start = end;
    }
    Ok(())
}

#[test]
#[expect(clippy::result_large_err, reason = "what was given is in it")]
fn every_refused_allocation_is_an_error() {
    let functions = functions();
    let mut whole = builder(&functions);
    fill(&mut whole, &functions).expect("enough memory");
    let expected = whole.clone().finish().expect("a sound image");

    let mut refusals = 0;
    for k in 1.. {
        let mut builder = builder(&functions);
        let (result, tally) = refusing(k, || fill(&mut builder, &functions));
        if tally.asked < k {
            break;
        }
        assert_eq!(result, Err(ImageError::OutOfMemory), "allocation {k}");
        // What it took is sound.
        builder.finish().expect("a part of a sound image");
        refusals += 1;
    }
    println!("{refusals} refusals while adding");
    assert!(refusals >= 20, "{refusals}");

    refusals = 0;
    for k in 1.. {
        let builder = whole.clone();
        let (result, tally) = refusing(k, || builder.finish());
        if tally.asked < k {
            break;
        }
        let refused = result.expect_err("an allocation was refused");
        assert_eq!(refused.reason, ImageError::OutOfMemory, "allocation {k}");
        // Nothing is lost.
        assert!(refused.builder.finish().expect("enough memory") == expected, "allocation {k}");
        refusals += 1;
    }
    println!("{refusals} refusals while finishing");
    assert!(refusals >= 8, "{refusals}");

    let mut image = expected.clone();
    let other = |signature: SignatureKey| SignatureKey::new(!signature.get());
    let (result, tally) = refusing(1, || image.renumber_signatures(other));
    assert_eq!((result, tally.asked), (Err(ImageError::OutOfMemory), 1));
    assert!(image == expected, "as it was");
    let (result, tally) = refusing(2, || image.renumber_signatures(other));
    assert_eq!((result, tally.asked), (Ok(()), 1));
    assert!(image != expected);
}

/// Reading files, of which nothing is left when there is no memory for what they hold.
#[test]
fn every_refused_allocation_of_reading_is_an_error() {
    let functions = functions();
    for (name, apart) in [("one section", false), ("a section for each function", true)] {
        let file = written::object_file(&functions, apart);
        let expected = CodeImage::from_elf(&file).expect("an image");
        let mut refusals = 0;
        // The first is `object`'s, for a number per section: without it, it aborts.
        for k in 2.. {
            let (result, tally) = refusing(k, || CodeImage::from_elf(&file));
            if tally.asked < k {
                assert!(result.expect("nothing was refused") == expected);
                break;
            }
            let error = result.err().unwrap_or_else(|| panic!("allocation {k} was ridden out"));
            assert_eq!(error, ElfError::Image(ImageError::OutOfMemory), "allocation {k}");
            refusals += 1;
        }
        println!("{name}: {refusals} refusals");
        assert!(refusals >= 20, "{refusals}");
    }
}

/// The tables by themselves.
#[test]
fn every_refused_allocation_of_a_table_is_an_error() {
    let at = TextOffset::new;
    let traps: Vec<_> = (0..1000).map(|i| (at(i * 40), TrapCode::new((i % 7) as u8))).collect();
    let sources: Vec<_> =
        (0..1000).map(|i| (at(i * 40), (i % 3 != 0).then(|| SourceOffset::new(i)))).collect();
    let ranges: Vec<_> = (0..1000_u32)
        .map(|i| ((i * 40..i * 40 + 20).try_into().expect("a range"), FuncKey::new(0, i)))
        .collect();
    let mut refusals = 0;
    let mut each = |build: &dyn Fn() -> Result<(), TableError>| {
        for k in 1.. {
            let (result, tally) = refusing(k, build);
            if tally.asked < k {
                assert_eq!(result, Ok(()));
                break;
            }
            assert_eq!(result, Err(TableError::OutOfMemory), "allocation {k}");
            refusals += 1;
        }
    };
    each(&|| TrapTable::build(&traps).map(drop));
    each(&|| AddressMap::build(&sources).map(drop));
    each(&|| FunctionTable::build(&ranges).map(drop));
    println!("{refusals} refusals");
    assert!(refusals >= 3, "{refusals}");
}

#[test]
fn reading_takes_no_more_than_the_file_is_worth() {
    let functions = compile::all();
    let file = written::object_file(&functions, true);
    let read = |file: &[u8]| {
        let (result, tally) = refusing(0, || CodeImage::from_elf(file).map(|_| ()));
        (result, tally.bytes)
    };
    let (result, honest) = read(&file);
    result.expect("an image");
    assert!(honest < 8 * file.len(), "{honest} bytes for {}", file.len());
    let mut most = 0;
    for at in 0..file.len() - 8 {
        for lie in [0x7fff_ffff_u64, u64::MAX, 1 << 40, 0x10_0000] {
            let mut file = file.clone();
            file[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            most = most.max(read(&file).1);
        }
    }
    println!("{} bytes long: {honest} allocated, at most {most} with a lie in it", file.len());
    assert!(most < 16 * file.len(), "{most} bytes for {}", file.len());
}
