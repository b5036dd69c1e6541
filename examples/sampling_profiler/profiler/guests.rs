#![expect(unsafe_code, reason = "calls guests")]
//! Guests that do known shares of the work: each calls the same loop, for its own number of rounds.

use crate::compiler::compile;
use pcmap::registry::{Engine, EngineCode, EngineConfig, Module, ModuleRegistry};
use pcmap::trap::{GuestThread, Trap};
use std::error::Error;

/// Which part of the work is whose.
pub(crate) const SHARES: [(&str, f64); 4] =
    [("decode", 0.1), ("lower", 0.2), ("allocate", 0.3), ("emit", 0.4)];

/// Rounds of the loop for a tenth of the work.
const ROUNDS: i64 = 20_000;

/// All take two numbers and the address of the loop.
const SOURCE: &str = "
function %spin(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
    jump block1(v0, v1)
block1(v3: i64, v4: i64):
    v5 = iconst.i64 6364136223846793005
    v6 = imul v4, v5
    v7 = iconst.i64 -1
    v8 = iadd v3, v7
    brif v8, block1(v8, v6), block2
block2:
    return v6
}
";

/// A guest that calls the loop, and does something with what it gives, so that its frame stays.
fn caller(name: &str) -> String {
    format!(
        "function %{name}(i64, i64, i64) -> i64 system_v {{\n    sig0 = (i64, i64, i64) -> i64 system_v\n\
         block0(v0: i64, v1: i64, v2: i64):\n    v3 = call_indirect sig0, v2(v0, v1, v2)\n    \
         v4 = iadd v3, v1\n    return v4\n}}\n"
    )
}

/// Guests in a store.
pub(crate) struct Guests {
    registry: ModuleRegistry,
    /// Where the loop and the others start.
    spin: usize,
    callers: Vec<(usize, i64)>,
}

impl Guests {
    /// Compiles and loads them.
    ///
    /// # Errors
    ///
    /// What the compiler or the engine say.
    pub(crate) fn load() -> Result<Self, Box<dyn Error>> {
        let callers = SHARES.map(|(name, _)| caller(name)).concat();
        let engine = Engine::new(EngineConfig::new())?;
        let code = EngineCode::load(&engine, compile(&[&format!("{SOURCE}{callers}")])?)?;
        let module = Module::new(&code, 0)?;
        let mut registry = ModuleRegistry::new(&engine);
        registry.register_module(&module)?;
        let start = code.text_range().start.address();
        let at = |index: usize| {
            let function = module.function(index as u32).ok_or("no such function")?;
            Ok::<_, &str>(start + function.range.start().get() as usize)
        };
        let callers = SHARES
            .iter()
            .zip(1..)
            .map(|((_, share), index)| Ok((at(index)?, (share * 10.0).round() as i64 * ROUNDS)));
        let callers = callers.collect::<Result<_, &str>>()?;
        Ok(Self { registry, spin: at(0)?, callers })
    }

    pub(crate) fn registry(&self) -> &ModuleRegistry {
        &self.registry
    }

    /// Does all of the work once.
    ///
    /// # Errors
    ///
    /// None of them traps.
    pub(crate) fn work(&self, thread: &GuestThread) -> Result<(), Trap> {
        type Guest = unsafe extern "C" fn(i64, i64, i64) -> i64;
        thread.catch_traps(|activation| {
            for &(start, rounds) in &self.callers {
                let start = std::ptr::with_exposed_provenance::<u8>(start);
                // SAFETY: all guests are such functions.
                let guest = unsafe { std::mem::transmute::<*const u8, Guest>(start) };
                // SAFETY: (`call`) 1. kept by the store; 2. to 4. guests call guests, and no more.
                unsafe { activation.call(guest, (rounds, 1, self.spin as i64)) }?;
            }
            Ok(())
        })
    }
}
