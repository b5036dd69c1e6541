//! A module: code of several units of guests, loaded by an engine, and so in the process's code map.

use super::counted_pages::CountedPages;
use super::library::Library;
use super::random::Random;
use pcmap::registry::{
    CodeImage, Engine, EngineCode, EngineConfig, FuncKey, FuncKind, ResidentCode, TextRange,
    TrapCode,
};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Modules loaded so far.
static LOADED: AtomicU64 = AtomicU64::new(0);

const MOST_UNITS: usize = 8;
const FUNCTION_ALIGNMENT: usize = 16;

/// Code that can run: it is in the code map as long as this is there.
#[derive(Debug)]
pub(crate) struct Module {
    /// No two modules share it, though one may come to lie where another was. Functions' keys have it.
    serial: u64,
    pub(crate) code: EngineCode,
    /// What each function is, in the order of their places. Not for handlers.
    placed: Vec<Placed>,
}

/// A function of the library, placed in a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) unit: usize,
    pub(crate) function: usize,
    range: TextRange,
}

/// What the map says about a program counter, or a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attribution {
    /// The function, by the module's serial number and its position there, and the offset from its
    /// start. `None` between functions, where nothing runs.
    pub(crate) place: Option<(u64, u32, u32)>,
    /// The trap at exactly this offset.
    pub(crate) trap: Option<TrapCode>,
}

/// The engine that loads all modules.
///
/// # Errors
///
/// Without memory.
pub(crate) fn engine() -> Result<Engine, Box<dyn Error>> {
    Ok(Engine::new(EngineConfig::new().code_allocator(Arc::new(CountedPages)))?)
}

impl Module {
    /// Loads a module of random units.
    ///
    /// # Errors
    ///
    /// What the engine says.
    pub(crate) fn load(
        engine: &Engine,
        library: &Library,
        random: &mut Random,
    ) -> Result<Self, Box<dyn Error>> {
        let placed = lay_out(library, random)?;
        let len = placed.last().map_or(0, |placed| placed.range.end().get() as usize);
        let serial = LOADED.fetch_add(1, Relaxed) + 1;
        let mut text = vec![0; len];
        for (position, &Placed { unit, function, range }) in placed.iter().enumerate() {
            let unit = &library.units[unit];
            let compiled = &unit.functions[function];
            let start = range.start().get() as usize;
            text[start..range.end().get() as usize].copy_from_slice(&compiled.code);
            for call in &compiled.calls {
                let callee = unit.position(call.callee()).expect("the unit was checked");
                let callee = placed[position - function + callee].range.start().get();
                call.resolve(&mut text, start, callee as usize);
            }
        }
        let mut image = CodeImage::builder(text);
        image.text_align(FUNCTION_ALIGNMENT as u32)?;
        for (position, &Placed { unit, function, range }) in placed.iter().enumerate() {
            let compiled = &library.units[unit].functions[function];
            let key = FuncKey::of_module(FuncKind::DEFINED, serial as u32, position as u32);
            image.function(key.ok_or("too many modules")?, range, compiled.guest.name)?;
            for &(offset, code) in &compiled.traps {
                let code = TrapCode::new(code.as_raw().get());
                image.trap(range.start().get() + offset, code)?;
            }
        }
        let image = image.finish().map_err(|refused| refused.reason)?;
        let code = EngineCode::load(engine, image)?;
        Ok(Self { serial, code, placed })
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// A function's first instruction, by position.
    pub(crate) fn start_of(&self, position: usize) -> *const u8 {
        let start = self.placed[position].range.start().get() as usize;
        self.code.text_range().start.as_ptr().wrapping_add(start)
    }
}

/// What is at an offset into a text. Signal-safe.
pub(crate) fn explain(code: &ResidentCode, offset: usize) -> Attribution {
    let function = code.function_at(offset);
    let place = function.map(|function| {
        let within = (offset as u32).wrapping_sub(function.range.start().get());
        (u64::from(function.key.module()), function.key.index(), within)
    });
    Attribution { place, trap: code.trap_at(offset) }
}

/// Draws units and gives each function its place, with random gaps between them.
fn lay_out(library: &Library, random: &mut Random) -> Result<Vec<Placed>, Box<dyn Error>> {
    let mut placed = Vec::new();
    let mut end = 0;
    for _ in 0..1 + random.below(MOST_UNITS) {
        let unit = random.below(library.units.len());
        for (function, compiled) in library.units[unit].functions.iter().enumerate() {
            let gap = FUNCTION_ALIGNMENT * random.below(4);
            let start = (end + gap).next_multiple_of(FUNCTION_ALIGNMENT);
            end = start + compiled.code.len();
            placed.push(Placed { unit, function, range: (start..end).try_into()? });
        }
    }
    Ok(placed)
}
