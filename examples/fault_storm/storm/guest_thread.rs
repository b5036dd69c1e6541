#![expect(unsafe_code, reason = "calls guests")]
//! A guest thread: calls random functions of random modules, and judges what comes back.

use super::activation::{Activation, Ending};
use super::expectation::{Call, Outcome};
use super::guest_memory::GuestMemory;
use super::library::Library;
use super::module::{Attribution, Module};
use super::random::Random;
use super::residents::Residents;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// Calls made under one pin.
const CALLS_PER_PIN: usize = 12;

/// What all guest threads found wrong.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// Calls that did not end as they must.
    pub(crate) misattributed: AtomicU64,
    /// The first of them, in words.
    pub(crate) first: OnceLock<String>,
}

/// What guest threads share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestThread<'s> {
    pub(crate) library: &'s Library,
    pub(crate) memory: &'s GuestMemory,
    pub(crate) residents: &'s Residents,
    pub(crate) verdicts: &'s Verdicts,
    /// This thread's own.
    pub(crate) activation: &'static Activation,
}

impl GuestThread<'_> {
    /// Calls guests until told to stop.
    ///
    /// # Safety
    ///
    /// The fault handlers are installed.
    pub(crate) unsafe fn run(&self, mut random: Random, stop: &AtomicBool) {
        self.activation.adopt();
        while !stop.load(Relaxed) {
            let Some(pinned) = self.residents.pin(&mut random) else {
                // The loader has not filled the slot yet.
                thread::yield_now();
                continue;
            };
            for _ in 0..CALLS_PER_PIN {
                // SAFETY: the handlers are the caller's; adopted above; the pin keeps the module
                // registered, and with it mapped.
                unsafe { self.call_one(pinned.value(), &mut random) };
            }
        }
    }

    /// Draws a call, makes it, and compares.
    ///
    /// # Safety
    ///
    /// The fault handlers are installed, the record is this thread's, and the module is
    /// registered.
    unsafe fn call_one(&self, module: &Module, random: &mut Random) {
        let position = random.below(module.placed().len());
        let placed = module.placed()[position];
        let guest = self.library.units[placed.unit].functions[placed.function].guest;
        let call = (guest.draw)(random, self.memory);
        let base = self.memory.base();
        // SAFETY: 1 and 2 are the caller's.
        let ending = unsafe { self.activation.call(module, position, base, (call.a, call.b)) };
        let expected = self.expected_ending(module, position, &call);
        // A fault without an answer was counted as missed, by the handler.
        if ending != expected && ending != Ending::Faulted(None) {
            self.verdicts.misattributed.fetch_add(1, Relaxed);
            self.verdicts.first.get_or_init(|| {
                format!("%{} {call:x?}: {ending:?} instead of {expected:?}", guest.name)
            });
        }
    }

    /// How the call must end, in the words of the handler's answer. The place comes from the
    /// compiler's own list, not from the module's tables.
    fn expected_ending(&self, module: &Module, position: usize, call: &Call) -> Ending {
        let (function, code) = match call.outcome {
            Outcome::Returns(value) => return Ending::Returned(value),
            Outcome::Traps { function, code } => (function, code),
        };
        let placed = module.placed()[position];
        let unit = &self.library.units[placed.unit];
        let place = unit.position(function).and_then(|function| {
            let offset = unit.functions[function].offset_of(code)?;
            Some(((position - placed.function + function) as u32, offset))
        });
        Ending::Faulted(Some(Attribution {
            module: module.serial(),
            place,
            trap: Some(code.as_raw()),
        }))
    }
}
