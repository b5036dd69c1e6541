//! Stores that come and go, with private copies or without: their guests trap, their breakpoints are
//! set and cleared, and each answer of the registry is checked.

use crate::storm::random::Random;
use crate::tally::{Tally, count};
use crate::trap_guests::Guests;
use pcmap::registry::{EngineConfig, RegisteredModuleId, StoreCodePc, TrapCode};
use pcmap::trap::{Cause, GuestThread, Trap};

#[derive(Debug)]
pub(crate) struct Stores<'s> {
    tally: &'s Tally,
    random: Random,
}

impl<'s> Stores<'s> {
    pub(crate) fn new(tally: &'s Tally) -> Self {
        Self { tally, random: Random::stream(3000) }
    }

    /// A store comes, is used, and goes.
    pub(crate) fn step(&mut self, thread: &GuestThread) {
        let private = self.random.chance(2);
        let mut guests = Guests::with(EngineConfig::new().private_copies(private));
        self.trap(thread, &guests);
        if private {
            self.breakpoints(&mut guests);
            // What they replaced is back.
            self.trap(thread, &guests);
        }
        count(&self.tally.stores);
    }

    fn trap(&self, thread: &GuestThread, guests: &Guests) {
        let added = guests.run(thread, "add", [1, 2, 3]);
        self.tally.check(added.as_ref().ok() == Some(&6), || format!("1 + 2 + 3 is {added:?}"));
        for (name, with, code) in
            [("load", [8, 0, 0], 1), ("store", [16, 0, 0], 2), ("unreachable", [0; 3], 3)]
        {
            match guests.run(thread, name, with) {
                Ok(value) => {
                    self.tally.check(false, || format!("%{name} gave {value}"));
                }
                Err(trap) => {
                    let right = attributed(guests, &trap, name, TrapCode::new(code));
                    self.tally.check(right, || format!("%{name} gave {trap:?}"));
                    count(&self.tally.traps);
                }
            }
        }
    }

    fn breakpoints(&self, guests: &mut Guests) {
        let module = guests.registry.all_modules().next().map(|(id, _)| id);
        let sites = guests.code.tables().breakpoint_sites().to_vec();
        let Some(module) = module else { return };
        for site in sites {
            let at = site.range.start();
            let set = guests.registry.set_breakpoint(module, at);
            let pc = StoreCodePc::new(self.base(guests) + at.get() as usize);
            let is_set = guests.registry.has_breakpoint(pc);
            self.tally.check(set == Ok(true) && is_set, || format!("not set: {set:?}"));
            self.check_frame(guests, module, pc);
            let cleared = guests.registry.clear_breakpoint(module, at);
            let is_set = guests.registry.has_breakpoint(pc);
            self.tally
                .check(cleared == Ok(true) && !is_set, || format!("not cleared: {cleared:?}"));
            count(&self.tally.breakpoints);
        }
    }

    fn base(&self, guests: &Guests) -> usize {
        guests.registry.store_code_base(&guests.code).map_or(0, StoreCodePc::address)
    }

    /// What the registry says of a function's first instruction.
    fn check_frame(&self, guests: &Guests, module: RegisteredModuleId, pc: StoreCodePc) {
        let frame = guests.registry.lookup_frame_info(pc.address());
        let right = frame.is_some_and(|frame| {
            frame.module_id() == module
                && frame.function_offset() == 0
                && frame.function().name.is_some()
        });
        self.tally.check(right, || format!("at {pc:?} there is {frame:?}"));
    }
}

/// Whether a trap is of this function of these guests, and for this reason.
fn attributed(guests: &Guests, trap: &Trap, name: &str, code: TrapCode) -> bool {
    let base = guests.registry.store_code_base(&guests.code).map_or(0, StoreCodePc::address);
    let offset = trap.text_offset();
    trap.cause() == Cause::Code(code)
        && trap.function() == Some(guests.function(name).key)
        && offset.is_some_and(|offset| {
            trap.pc() == Some(base + offset.get() as usize)
                && guests.code.tables().trap_at(offset) == Some(code)
        })
}
