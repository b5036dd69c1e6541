#![expect(unsafe_code, reason = "calls guests")]
//! A guest thread: calls random functions of random modules, and judges what comes back.

use super::activation::Activation;
use super::expectation::{Call, Outcome};
use super::guest_memory::GuestMemory;
use super::library::Library;
use super::module::{Attribution, Module};
use super::random::Random;
use super::residents::Residents;
use pcmap::registry::TrapCode;
use pcmap::trap::{Cause, GuestThread as PreparedThread, Trap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::{mem, thread};

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

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Returned(u64),
    Trapped(Attribution),
}

/// All guests take the address of their memory and two numbers.
type Guest = unsafe extern "C" fn(usize, u64, u64) -> u64;

impl GuestThread<'_> {
    /// Calls guests until told to stop.
    pub(crate) fn run(&self, thread: &PreparedThread, mut random: Random, stop: &AtomicBool) {
        self.activation.adopt();
        while !stop.load(Relaxed) {
            let Some(pinned) = self.residents.pin(&mut random) else {
                // The loader has not filled the slot yet.
                thread::yield_now();
                continue;
            };
            for _ in 0..CALLS_PER_PIN {
                self.call_one(thread, &pinned, &mut random);
            }
        }
    }

    /// Draws a call, makes it, and compares.
    fn call_one(&self, thread: &PreparedThread, module: &Module, random: &mut Random) {
        let position = random.below(module.placed().len());
        let placed = module.placed()[position];
        let guest = self.library.units[placed.unit].functions[placed.function].guest;
        let call = (guest.draw)(random, self.memory);
        let ending = self.call(thread, module, position, call);
        let expected = self.expected_ending(module, position, &call);
        if ending != expected {
            self.verdicts.misattributed.fetch_add(1, Relaxed);
            self.verdicts.first.get_or_init(|| {
                format!("%{} {call:x?}: {ending:?} instead of {expected:?}", guest.name)
            });
        }
    }

    /// Calls the function at a position in `module`.
    fn call(
        &self,
        thread: &PreparedThread,
        module: &Module,
        position: usize,
        call: Call,
    ) -> Ending {
        // SAFETY: all guests are such functions, and this is the start of one.
        let guest = unsafe { mem::transmute::<*const u8, Guest>(module.start_of(position)) };
        let arguments = (self.memory.base(), call.a, call.b);
        self.activation.set_running(module.serial());
        let result = thread.catch_traps(|activation| {
            // SAFETY: (`call`) 1. a function's start, in a module that is kept by the caller; 2. guests
            // of the storm leave nothing; 3. and call guests only; 4. on this thread.
            unsafe { activation.call(guest, arguments) }
        });
        self.activation.set_running(0);
        match result {
            Ok(value) => Ending::Returned(value),
            Err(trap) => {
                self.activation.note_fault(trap.signal().unwrap_or(0));
                Ending::Trapped(attribution(module, &trap))
            }
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
            let position = (position - placed.function + function) as u32;
            Some((module.serial(), position, offset))
        });
        let trap = Some(TrapCode::new(code.as_raw().get()));
        Ending::Trapped(Attribution { place, trap })
    }
}

/// What a trap says of itself.
fn attribution(module: &Module, trap: &Trap) -> Attribution {
    let code = match trap.cause() {
        Cause::Code(code) => Some(code),
        _ => None,
    };
    let place = trap.function().zip(trap.text_offset()).and_then(|(key, offset)| {
        let start = module.code.tables().function(key)?.range.start();
        Some((u64::from(key.module()), key.index(), offset.checked_sub(start)?))
    });
    Attribution { place, trap: code }
}
