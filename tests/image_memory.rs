//! Memory and code images: without it building is an error that loses nothing, and reading a file
//! takes no more of it than the file is worth.
//!
//! The allocator below refuses the k-th allocation of the calling thread, or all from the k-th on, and counts.
#![cfg(feature = "elf")]
#![expect(unsafe_code, reason = "a global allocator")]

#[path = "images/compile.rs"]
mod compile;
#[path = "images/hostile.rs"]
mod hostile;
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
    /// The number of the first allocation to refuse, from 1; 0 for none.
    refuse: usize,
    /// Whether those behind it are refused as well.
    for_good: bool,
    asked: usize,
    /// Bytes that are allocated and not freed, and the most that there were.
    live: isize,
    peak: isize,
}

const NOTHING: Tally = Tally { refuse: 0, for_good: false, asked: 0, live: 0, peak: 0 };

thread_local! {
    static TALLY: Cell<Tally> = const { Cell::new(NOTHING) };
}

struct Counting;

/// Counts a request; tells whether to grant it.
fn count(bytes: usize) -> bool {
    let mut tally = TALLY.get();
    tally.asked += 1;
    let refused = tally.asked == tally.refuse || tally.for_good && tally.asked > tally.refuse;
    if !refused {
        tally.live += bytes as isize;
        tally.peak = tally.peak.max(tally.live);
    }
    TALLY.set(tally);
    !refused
}

fn free(bytes: usize) {
    let tally = TALLY.get();
    TALLY.set(Tally { live: tally.live - bytes as isize, ..tally });
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
        // For a moment there are both.
        if !count(size) {
            return std::ptr::null_mut();
        }
        free(layout.size());
        // SAFETY: the caller's promise is passed on; all memory is the system's.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        free(layout.size());
        // SAFETY: the caller's promise about both is passed on; all memory is the system's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does `work` while allocation number `refuse` is refused, and those behind it if `for_good`; tells what
/// was asked for meanwhile.
fn refusing<R>(refuse: usize, for_good: bool, work: impl FnOnce() -> R) -> (R, Tally) {
    TALLY.set(Tally { refuse, for_good, ..NOTHING });
    let result = work();
    (result, TALLY.replace(NOTHING))
}

/// Runs `one` for every k, once and for good, until a run asks for less. `one` is told both and gives
/// whether it was refused an allocation. Gives the refusals of each.
fn each_refusal(mut one: impl FnMut(usize, bool) -> bool) -> usize {
    let refusals = [false, true].map(|for_good| (1..).take_while(|&k| one(k, for_good)).count());
    println!("{refusals:?} refusals");
    refusals[0].min(refusals[1])
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

    let refusals = each_refusal(|k, for_good| {
        let mut builder = builder(&functions);
        let (result, tally) = refusing(k, for_good, || fill(&mut builder, &functions));
        // What it took is sound.
        builder.finish().expect("a part of a sound image");
        if tally.asked < k {
            return false;
        }
        assert_eq!(result, Err(ImageError::OutOfMemory), "allocation {k}");
        true
    });
    assert!(refusals >= 20, "{refusals} while adding");

    let refusals = each_refusal(|k, for_good| {
        let builder = whole.clone();
        let (result, tally) = refusing(k, for_good, || builder.finish());
        if tally.asked < k {
            return false;
        }
        let refused = result.expect_err("an allocation was refused");
        assert_eq!(refused.reason, ImageError::OutOfMemory, "allocation {k}");
        // Nothing is lost.
        assert!(refused.builder.finish().expect("enough memory") == expected, "allocation {k}");
        true
    });
    assert!(refusals >= 8, "{refusals} while finishing");

    let other = |signature: SignatureKey| SignatureKey::new(!signature.get());
    let refusals = each_refusal(|k, for_good| {
        let mut image = expected.clone();
        let (result, tally) = refusing(k, for_good, || image.renumber_signatures(other));
        let refused = tally.asked >= k;
        assert_eq!(result, if refused { Err(ImageError::OutOfMemory) } else { Ok(()) });
        assert_eq!(image == expected, refused, "as it was, if refused");
        refused
    });
    assert_eq!(refusals, 1);
}

/// Reading files, of which nothing is left when there is no memory for what they hold.
#[test]
fn every_refused_allocation_of_reading_is_an_error() {
    let functions = functions();
    for apart in [false, true] {
        let file = written::object_file(&functions, apart);
        let expected = CodeImage::from_elf(&file).expect("an image");
        let refusals = each_refusal(|k, for_good| {
            let (result, tally) = refusing(k, for_good, || CodeImage::from_elf(&file));
            let refused = tally.asked >= k;
            if refused {
                assert_eq!(result, Err(ElfError::Image(ImageError::OutOfMemory)), "allocation {k}");
                assert_eq!(tally.live, 0, "allocation {k}: memory leaked");
            } else {
                assert!(result.expect("nothing was refused") == expected);
            }
            refused
        });
        assert!(refusals >= 10, "{refusals}");
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
    let each = |build: &dyn Fn() -> Result<(), TableError>| {
        let refusals = each_refusal(|k, for_good| {
            let (result, tally) = refusing(k, for_good, build);
            let refused = tally.asked >= k;
            assert_eq!(result, if refused { Err(TableError::OutOfMemory) } else { Ok(()) });
            assert_eq!(tally.live, 0, "allocation {k}: memory leaked");
            refused
        });
        assert!(refusals >= 1);
    };
    each(&|| TrapTable::build(&traps).map(drop));
    each(&|| AddressMap::build(&sources).map(drop));
    each(&|| FunctionTable::build(&ranges).map(drop));
}

/// The most memory that is held while a file is read in either way.
fn peaks(file: &[u8]) -> [usize; 2] {
    let elf = refusing(0, false, || drop(CodeImage::from_elf(file))).1;
    let artifact = refusing(0, false, || drop(CodeImage::from_wasmtime_artifact(file))).1;
    [elf, artifact].map(|tally| {
        assert_eq!(tally.live, 0, "memory leaked");
        tally.peak as usize
    })
}

/// What the documentation of both says: so many times the length of the file, and a KiB.
const MOST: [usize; 2] = [8, 32];

#[test]
fn reading_takes_no_more_than_the_file_is_worth() {
    let functions = compile::all();
    let file = written::object_file(&functions, true);
    let honest = peaks(&file);
    let mut most = [0; 2];
    for at in 0..file.len() - 8 {
        for lie in [0x7fff_ffff_u64, u64::MAX, 1 << 40, 0x10_0000] {
            let mut file = file.clone();
            file[at..at + 8].copy_from_slice(&lie.to_le_bytes());
            let found = peaks(&file);
            most = [most[0].max(found[0]), most[1].max(found[1])];
        }
    }
    println!("{} bytes long: {honest:?} at once, at most {most:?} with a lie in it", file.len());
    for (most, times) in most.into_iter().zip(MOST) {
        assert!(most <= times * file.len() + 1024, "{most} bytes for {}", file.len());
    }
}

/// Files whose tables share bytes.
#[test]
fn hostile_files_take_no_more_than_they_are_worth() {
    for (name, file) in hostile::files(1 << 20) {
        let peaks = peaks(&file);
        let times = peaks.map(|peak| peak as f64 / file.len() as f64);
        println!("{name}: {} bytes, {times:.2?} times that at once", file.len());
        for (peak, times) in peaks.into_iter().zip(MOST) {
            assert!(peak <= times * file.len() + 1024, "{name}: {peak} bytes");
        }
    }
}
