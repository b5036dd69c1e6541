#![expect(unsafe_code, reason = "calls machine code")]
//! Images of guests, with the truth about them kept beside: what is where.

use super::{Guest, guests};
use pcmap::registry::{
    CodeImage, FuncKey, FuncKind, ImageError, SignatureKey, SourceOffset, TextRange, TrapCode,
};

const ALIGNMENT: usize = 16;

/// How many bytes the first instruction of a function has.
const SITE: usize = if cfg!(target_arch = "aarch64") { 4 } else { 1 };

/// The namespace of trampolines: of no module.
const TRAMPOLINES: u32 = (FuncKind::ARRAY_TO_WASM.get() as u32) << 28;

/// A function in its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) key: FuncKey,
    /// Its own name, and that of the guest that it is a copy of.
    pub(crate) name: String,
    pub(crate) guest: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Placed {
    pub(crate) fn range(&self) -> TextRange {
        (self.start..self.end).try_into().expect("texts are small")
    }
}

/// What is where in a text.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) modules: usize,
    pub(crate) text: Vec<u8>,
    /// In the order of their places. Those of several modules take turns.
    pub(crate) functions: Vec<Placed>,
    /// Offset and code.
    pub(crate) traps: Vec<(usize, u8)>,
    /// The trampoline, the same code in a place of its own for each of these signatures.
    pub(crate) trampolines: Vec<(SignatureKey, TextRange)>,
}

impl Layout {
    /// So many modules, of so many functions each.
    pub(crate) fn new(modules: usize, functions: usize) -> Self {
        Self::with_signatures(modules, functions, &[1, 2])
    }

    /// The same, with trampolines for these signatures.
    pub(crate) fn with_signatures(modules: usize, functions: usize, signatures: &[u32]) -> Self {
        let (guests, trampoline) = guests();
        let mut layout = Self {
            modules,
            text: Vec::new(),
            functions: Vec::new(),
            traps: Vec::new(),
            trampolines: Vec::new(),
        };
        for i in 0..modules * functions {
            let (module, index) = (i % modules, i / modules);
            let guest = &guests[i % guests.len()];
            let (start, end) = layout.place(guest, i % 3 * ALIGNMENT);
            let key = FuncKey::of_module(FuncKind::DEFINED, module as u32, index as u32);
            layout.functions.push(Placed {
                key: key.expect("few modules"),
                name: format!("m{module}_{}_{index}", guest.name),
                guest: guest.name.clone(),
                start,
                end,
            });
        }
        for &signature in signatures {
            let (start, end) = layout.place(trampoline, 0);
            let range = (start..end).try_into().expect("texts are small");
            layout.trampolines.push((SignatureKey::new(signature), range));
        }
        layout
    }

    fn place(&mut self, guest: &Guest, gap: usize) -> (usize, usize) {
        let start = (self.text.len() + gap).next_multiple_of(ALIGNMENT);
        self.text.resize(start, 0);
        self.text.extend(&guest.code);
        let traps = guest.traps.iter().map(|&(offset, code)| (start + offset as usize, code));
        self.traps.extend(traps);
        (start, self.text.len())
    }

    /// The image, with a breakpoint site at the start of each function.
    pub(crate) fn image(&self) -> CodeImage {
        self.try_image().expect("all is well with it")
    }

    fn try_image(&self) -> Result<CodeImage, ImageError> {
        let mut image = CodeImage::builder(self.text.clone());
        image.text_align(ALIGNMENT as u32)?;
        for function in &self.functions {
            let at = function.start;
            image
                .function(function.key, function.range(), &*function.name)?
                .address(at, self.source_of(function))?
                .address(function.end, None)?
                .breakpoint_site(at..at + SITE, self.source_of(function))?;
        }
        for &(offset, code) in &self.traps {
            image.trap(offset, TrapCode::new(code))?;
        }
        for (i, &(signature, range)) in self.trampolines.iter().enumerate() {
            let key = FuncKey::new(TRAMPOLINES, i as u32);
            image.function(key, range, None)?.trampoline(signature, key)?;
        }
        Ok(image.finish()?)
    }

    /// The function at an offset into the text.
    pub(crate) fn function_at(&self, offset: usize) -> Option<&Placed> {
        let behind = self.functions.partition_point(|function| function.start <= offset);
        self.functions[..behind].last().filter(|function| offset < function.end)
    }

    /// Where a function's code came from, by offset: each function is told to begin at a source
    /// offset of its own.
    pub(crate) fn source_of(&self, function: &Placed) -> SourceOffset {
        SourceOffset::new(1000 + function.start as u32)
    }
}

/// Calls a guest.
///
/// # Safety
///
/// 1. `code` is the start of a guest that takes and returns numbers, mapped and executable during
///    the call.
pub(crate) unsafe fn call(code: *const u8, a: i64, b: i64) -> i64 {
    // SAFETY: by 1. such a function; pointers to data and to functions are alike here.
    let code =
        unsafe { std::mem::transmute::<*const u8, unsafe extern "C" fn(i64, i64) -> i64>(code) };
    // SAFETY: by 1.
    unsafe { code(a, b) }
}

/// Calls a guest through the trampoline, which takes its arguments and leaves its result in memory.
///
/// # Safety
///
/// 1. `trampoline` is the start of the trampoline, mapped and executable during the call.
/// 2. `code` is as for [`call`].
pub(crate) unsafe fn call_through(trampoline: *const u8, code: *const u8, a: i64, b: i64) -> i64 {
    type Trampoline = unsafe extern "C" fn(*const u8, *mut [i64; 2]);
    // SAFETY: by 1. such a function.
    let trampoline = unsafe { std::mem::transmute::<*const u8, Trampoline>(trampoline) };
    let mut values = [a, b];
    // SAFETY: by 1. and 2.; it reads and writes two numbers.
    unsafe { trampoline(code, &raw mut values) };
    values[0]
}
