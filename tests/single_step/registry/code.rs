#![expect(unsafe_code, reason = "an allocator of code memory, and calls of machine code")]
//! Code that tells who it is, and memory for it that is known to a handler as soon as it is mapped.

use pcmap::registry::{
    CodeAllocator, CodeImage, FuncKey, FuncKind, MemoryError, ResidentCode, SignatureKey,
    SystemPages, TrapCode,
};
use pcmap::{Hit, Reader};
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// A function: `mov eax, id; ret; ud2`, and then as many bytes that are of no function.
const FUNCTION: usize = 8;
const STRIDE: usize = 16;
const FUNCTIONS: usize = 4;
/// Where in a function it traps, if it ever came there.
const TRAP: usize = 6;
/// The length of the text.
pub(crate) const LEN: usize = FUNCTIONS * STRIDE + FUNCTION;

/// The namespace of trampolines: of no module.
const TRAMPOLINES: u32 = (FuncKind::ARRAY_TO_WASM.get() as u32) << 28;

/// An image of four functions, which give `id` and trap with that code, and of a trampoline for a
/// signature of that number (which is a function like the others: nobody calls it).
pub(crate) fn image(id: u8) -> CodeImage {
    let function = [0xb8, id, 0, 0, 0, 0xc3, 0x0f, 0x0b];
    let mut text = [function, [0xcc; STRIDE - FUNCTION]].concat().repeat(FUNCTIONS + 1);
    text.truncate(LEN);
    let mut image = CodeImage::builder(text);
    for i in 0..FUNCTIONS {
        let (at, key) = (i * STRIDE, FuncKey::of_module(FuncKind::DEFINED, 0, i as u32));
        let key = key.expect("few modules");
        image.function(key, at..at + FUNCTION, "f").expect("a range");
        image.trap(at + TRAP, TrapCode::new(id)).expect("an offset");
        image.breakpoint_site(at..at + 5, None).expect("a range");
    }
    let (at, key) = (FUNCTIONS * STRIDE, FuncKey::new(TRAMPOLINES, 0));
    image.function(key, at..at + FUNCTION, None).expect("a range");
    image.trampoline(SignatureKey::new(id.into()), key).expect("memory");
    image.finish().expect("all is well with it")
}

/// What is wrong with an answer.
pub(crate) type Wrong = &'static str;

/// What lookups say about the code `id` that starts at `start`, if it is there: how many owners keep
/// it. All that is said about it is compared; with `run` it is also called. Signal-safe.
pub(crate) fn owners_of(
    reader: &Reader<'_, ResidentCode>,
    start: usize,
    id: u8,
    run: bool,
) -> Result<Option<usize>, Wrong> {
    let at = |offset: usize| reader.lookup(start.wrapping_add(offset));
    let first = at(0);
    let last = at(LEN - 1);
    if first.is_some() != last.is_some() {
        return Err("a part of the code is there");
    }
    let is_ours = |hit: Hit<'_, ResidentCode>| hit.range().start() == start;
    if at(LEN).is_some_and(is_ours) || at(0_usize.wrapping_sub(1)).is_some_and(is_ours) {
        return Err("the neighbourhood is there");
    }
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let range = first.range();
    if (range.start(), range.end(), last.offset()) != (start, start + LEN, LEN - 1) {
        return Err("another range");
    }
    let code = first.value();
    if !std::ptr::eq(code, last.value()) {
        return Err("two answers");
    }
    let (function, trap) = (STRIDE * 2, STRIDE * 2 + TRAP);
    if code.trap_at(trap) != Some(TrapCode::new(id)) || code.trap_at(function).is_some() {
        return Err("other traps");
    }
    let index = code.function_at(trap).map(|found| found.key.index());
    if index != Some(2) || code.function_at(function + FUNCTION).is_some() {
        return Err("other functions");
    }
    if !code.is_breakpoint_site(function) || code.is_breakpoint_site(trap) {
        return Err("other breakpoint sites");
    }
    if run && call(start + function) != id.into() {
        return Err("other machine code");
    }
    Ok(Some(code.owners()))
}

/// Calls a function of an [`image`].
pub(crate) fn call(function: usize) -> u32 {
    let function = std::ptr::with_exposed_provenance::<u8>(function);
    // SAFETY: such a function, in code that is published, which whoever calls this keeps mapped.
    let function = unsafe { mem::transmute::<*const u8, extern "C" fn() -> u32>(function) };
    function()
}

/// Whether the code `id` that starts at `start` is mapped and executable, though no lookup may find it any
/// more. Signal-safe.
pub(crate) fn runs_still(start: usize, id: u8) -> bool {
    call(start + STRIDE * 2) == id.into()
}

/// The first byte of a region. Signal-safe.
pub(crate) fn first_byte(start: usize) -> u8 {
    // SAFETY: whoever calls this keeps the region mapped; it is readable in either state. Volatile:
    // the call that is stepped through may be just about to change it.
    unsafe { std::ptr::with_exposed_provenance::<u8>(start).read_volatile() }
}

/// The system's pages, written down.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Where each region was that was ever allocated, in that order.
    starts: [AtomicUsize; Pages::MOST],
    count: AtomicUsize,
    live: AtomicUsize,
    refuses_to_publish: AtomicBool,
}

impl Pages {
    const MOST: usize = 32;

    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many regions were allocated so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Where the region of that number is or was; none before it was allocated. Signal-safe.
    pub(crate) fn start(&self, number: usize) -> Option<usize> {
        (number < self.count()).then(|| self.starts[number].load(SeqCst))
    }

    /// How many regions were not given back.
    pub(crate) fn live(&self) -> usize {
        self.live.load(SeqCst)
    }

    /// From now on, or no more, no region is made executable.
    pub(crate) fn refuse_to_publish(&self, refuse: bool) {
        self.refuses_to_publish.store(refuse, SeqCst);
    }
}

// SAFETY: 1. to 5. hands every request to the system's pages, which keep that promise, or refuses it
// before anything has changed.
unsafe impl CodeAllocator for Pages {
    fn allocate(&self, len: usize, align: usize) -> Result<NonNull<[u8]>, MemoryError> {
        let number = self.count();
        if number == Self::MOST {
            return Err(MemoryError::Allocate { len, os_error: 0 });
        }
        let region = SystemPages.allocate(len, align)?;
        self.live.fetch_add(1, SeqCst);
        self.starts[number].store(region.cast::<u8>().as_ptr().addr(), SeqCst);
        self.count.store(number + 1, SeqCst);
        Ok(region)
    }

    unsafe fn make_executable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        if self.refuses_to_publish.load(SeqCst) {
            return Err(MemoryError::MakeExecutable { os_error: 0 });
        }
        // SAFETY: the caller's promise is passed on: regions are those of the system's pages.
        unsafe { SystemPages.make_executable(region) }
    }

    unsafe fn make_writable(&self, region: NonNull<[u8]>) -> Result<(), MemoryError> {
        // SAFETY: as above.
        unsafe { SystemPages.make_writable(region) }
    }

    unsafe fn deallocate(&self, region: NonNull<[u8]>) {
        self.live.fetch_sub(1, SeqCst);
        // SAFETY: as above.
        unsafe { SystemPages.deallocate(region) };
    }
}
