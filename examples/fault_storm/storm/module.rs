//! A module: one mapping that holds several units of guests, with its tables; and the map in which
//! modules are registered.

use super::library::Library;
use super::pages::{ExecutablePages, WritablePages};
use super::random::Random;
use super::tables::{FunctionSpan, FunctionTable, TrapSite, TrapTable};
use pcmap::{CodeMap, Registration};
use std::io::Error;
use std::num::NonZeroU8;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Every module that may run, by the addresses of its text. Handlers look here.
pub(crate) static CODE: CodeMap<Arc<Module>> = CodeMap::new();

/// A module that is in the map. As long as one of these is held, its code is registered.
pub(crate) type Resident = Registration<'static, Arc<Module>>;

/// Modules mapped and unmapped so far.
static MAPPED: AtomicU64 = AtomicU64::new(0);
static UNMAPPED: AtomicU64 = AtomicU64::new(0);

const MOST_UNITS: usize = 8;
const FUNCTION_ALIGNMENT: usize = 16;

/// Code, and what a handler needs to know about it.
#[derive(Debug)]
pub(crate) struct Module {
    /// No two modules share it, though one may come to lie where another was.
    serial: u64,
    pages: ExecutablePages,
    text_len: usize,
    functions: FunctionTable,
    traps: TrapTable,
    /// What each function is, in the order of the function table. Not for handlers.
    placed: Vec<Placed>,
}

/// A function of the library, placed in a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) unit: usize,
    pub(crate) function: usize,
}

/// What a module says about an offset into its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribution {
    /// The module's serial number.
    pub(crate) module: u64,
    /// The function, by its position in the module, and the offset from its start. `None` between
    /// functions, where nothing runs.
    pub(crate) place: Option<(u32, u32)>,
    /// The trap at exactly this offset.
    pub(crate) trap: Option<NonZeroU8>,
}

impl Module {
    /// Maps, fills and publishes a module of random units, not registered yet.
    ///
    /// # Errors
    ///
    /// What the system says about the mapping.
    pub(crate) fn load(library: &Library, random: &mut Random) -> Result<Self, Error> {
        let (placed, spans) = lay_out(library, random);
        let text_len = spans.last().map_or(0, |span| span.end as usize);
        let mut pages = WritablePages::map(text_len)?;
        let mut traps = Vec::new();
        for (position, (placed, span)) in placed.iter().zip(&spans).enumerate() {
            let unit = &library.units[placed.unit];
            let function = &unit.functions[placed.function];
            let start = span.start as usize;
            let text = pages.bytes();
            text[start..span.end as usize].copy_from_slice(&function.code);
            for call in &function.calls {
                let callee = unit.position(call.callee()).expect("the unit was checked");
                let callee = position - placed.function + callee;
                call.resolve(text, start, spans[callee].start as usize);
            }
            traps.extend(function.traps.iter().map(|&(offset, code)| TrapSite {
                offset: span.start + offset,
                code: code.as_raw(),
            }));
        }
        let pages = pages.publish()?;
        Ok(Self {
            serial: MAPPED.fetch_add(1, Relaxed) + 1,
            pages,
            text_len,
            functions: FunctionTable::new(spans),
            traps: TrapTable::new(traps),
            placed,
        })
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// The addresses of its text: what is registered.
    pub(crate) fn text(&self) -> Range<usize> {
        let start = self.pages.addresses().start;
        start..start + self.text_len
    }

    pub(crate) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// The address of a function's first instruction, by position.
    pub(crate) fn address_of(&self, position: usize) -> usize {
        self.pages.addresses().start + self.functions.spans()[position].start as usize
    }

    /// What is at an offset into the text. Signal-safe.
    pub(crate) fn explain(&self, offset: usize) -> Attribution {
        // Texts are far smaller than 4 GiB.
        let offset = offset as u32;
        Attribution {
            module: self.serial,
            place: self.functions.find(offset),
            trap: self.traps.find(offset),
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        UNMAPPED.fetch_add(1, Relaxed);
    }
}

/// How many modules were mapped, and how many of them unmapped.
pub(crate) fn mapped_and_unmapped() -> (u64, u64) {
    (MAPPED.load(Relaxed), UNMAPPED.load(Relaxed))
}

/// Draws units and gives each function its place, with random gaps between them.
fn lay_out(library: &Library, random: &mut Random) -> (Vec<Placed>, Vec<FunctionSpan>) {
    let (mut placed, mut spans) = (Vec::new(), Vec::new());
    let mut end = 0;
    for _ in 0..1 + random.below(MOST_UNITS) {
        let unit = random.below(library.units.len());
        for (position, function) in library.units[unit].functions.iter().enumerate() {
            let gap = FUNCTION_ALIGNMENT * random.below(4);
            let start = (end + gap).next_multiple_of(FUNCTION_ALIGNMENT);
            end = start + function.code.len();
            placed.push(Placed { unit, function: position });
            spans.push(FunctionSpan { start: start as u32, end: end as u32 });
        }
    }
    (placed, spans)
}
