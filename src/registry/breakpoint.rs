//! Breakpoints: instructions of a store's private copy, replaced by one that traps.
//!
//! The original and the copies of other stores are not touched, so a breakpoint stops one store. A
//! copy is unpublished, patched and published again: it is never writable and executable at once,
//! so none of its code may run meanwhile, on any thread. A breakpoint stays where it is whatever
//! else is registered with the store.

use super::code_allocator::MemoryError;
use super::code_patch::CodePatch;
use super::module::defining_module;
use super::module_registry::{ModuleRegistry, RegisteredModuleId};
use super::ordered_map::OrderedMap;
use super::pc::StoreCodePc;
use super::text_offset::TextOffset;

/// The instruction that traps: `int3`.
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const TRAP: [u8; 1] = [0xcc];
/// The instruction that traps: `brk #0`, little-endian as instructions always are.
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86")))]
const TRAP: [u8; 4] = 0xd420_0000_u32.to_le_bytes();

/// What stood where a breakpoint is.
type Saved = [u8; TRAP.len()];

/// The breakpoints that are set in a store: what they replaced, by their addresses.
pub(crate) type Breakpoints = OrderedMap<StoreCodePc, Saved>;

/// The address of the breakpoint at which a thread has stopped, from the program counter in its
/// SIGTRAP frame: x86 processors have gone past the instruction then, others have not.
///
/// ```
/// let stopped_at = 0x1001;
/// let pc = pcmap::registry::breakpoint_address(stopped_at);
/// assert_eq!(pc, if cfg!(target_arch = "x86_64") { 0x1000 } else { 0x1001 });
/// ```
///
/// Constant time; signal-safe.
pub const fn breakpoint_address(stopped_at: usize) -> usize {
    if cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        stopped_at.wrapping_sub(TRAP.len())
    } else {
        stopped_at
    }
}

/// A breakpoint was neither set nor cleared. The code is as before, unless
/// [`BreakpointError::LeftUnpublished`] says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakpointError {
    /// No such module is registered with the store.
    #[error("the module is not registered with this store")]
    NotRegistered,
    /// The engine's stores share the code, so it cannot be patched for one of them.
    #[error("the store shares its code with others")]
    SharedCode,
    /// The image has no breakpoint site that starts there and has room for the instruction, or it is
    /// not in a function of the module.
    #[error("the module has no breakpoint site at that offset")]
    NotASite,
    /// There is no heap memory.
    #[error("out of memory")]
    OutOfMemory,
    /// The code could not be made writable, or not executable again at first.
    #[error(transparent)]
    Memory(MemoryError),
    /// The bytes are as before, but the code could not be made executable again: whoever calls it
    /// faults, until a later patch or [`CodePatch::republish`] succeeds.
    #[error("the code is left unpublished: {0}")]
    LeftUnpublished(MemoryError),
}

impl ModuleRegistry {
    /// Sets a breakpoint in a module's code, as this store runs it; whether it was not set before.
    ///
    /// `at` is where one of the image's breakpoint sites starts, in a function of the module. No
    /// code of the image may be running in this store meanwhile.
    ///
    /// **Cost**: O(log n), two system calls (and on aarch64 O(text)). **Panics**: none.
    /// **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`BreakpointError`].
    pub fn set_breakpoint(
        &mut self,
        module: RegisteredModuleId,
        at: TextOffset,
    ) -> Result<bool, BreakpointError> {
        let place = self.breakpoint_place(module, at)?;
        if self.breakpoints.contains(&place.pc) {
            return Ok(false);
        }
        let Some(memory) = memory_mut(self, &place) else {
            return Err(BreakpointError::SharedCode);
        };
        let saved = memory.text().get(place.offset..).and_then(<[u8]>::first_chunk);
        let saved = *saved.ok_or(BreakpointError::NotASite)?;
        self.breakpoints.try_insert(place.pc, saved).map_err(|_| BreakpointError::OutOfMemory)?;
        let patched = self.patch(&place, TRAP, saved);
        if patched.is_err() {
            self.breakpoints.remove(&place.pc);
        }
        patched.map(|()| true)
    }

    /// Clears a breakpoint: restores what stood there; whether it was set.
    ///
    /// Cost and errors as [`ModuleRegistry::set_breakpoint`]; if there is one, it stays set.
    pub fn clear_breakpoint(
        &mut self,
        module: RegisteredModuleId,
        at: TextOffset,
    ) -> Result<bool, BreakpointError> {
        let place = self.breakpoint_place(module, at)?;
        let Some(&saved) = self.breakpoints.get(&place.pc) else { return Ok(false) };
        self.patch(&place, saved, TRAP)?;
        self.breakpoints.remove(&place.pc);
        Ok(true)
    }

    /// Whether a breakpoint is set at this address, as [`breakpoint_address`] gives it. O(log n).
    pub fn has_breakpoint(&self, pc: StoreCodePc) -> bool {
        self.breakpoints.contains(&pc)
    }

    /// The addresses of all breakpoints that are set, in order. Constant time a step.
    pub fn breakpoints(&self) -> impl Iterator<Item = StoreCodePc> {
        self.breakpoints.iter().map(|(pc, _)| pc)
    }

    /// Where a breakpoint is to be, if there may be one.
    fn breakpoint_place(
        &self,
        id: RegisteredModuleId,
        at: TextOffset,
    ) -> Result<Place, BreakpointError> {
        let module = self.module_by_id(id).ok_or(BreakpointError::NotRegistered)?;
        let tables = module.engine_code().tables();
        let sites = tables.breakpoint_sites();
        let site = sites.binary_search_by_key(&at, |site| site.range.start());
        let has_room = site.is_ok_and(|site| sites[site].range.len() as usize >= TRAP.len());
        let function = tables.function_at(at).and_then(|function| defining_module(function.key));
        if !has_room || function != Some(module.index()) {
            return Err(BreakpointError::NotASite);
        }
        let base = self.store_code_base(module.engine_code());
        let base = base.ok_or(BreakpointError::NotRegistered)?;
        let offset = at.get() as usize;
        let pc = base.checked_add(offset).ok_or(BreakpointError::NotASite)?;
        Ok(Place { base, offset, pc })
    }

    /// Replaces `old` by `new`; if the code cannot be made executable again, back.
    fn patch(&mut self, place: &Place, new: Saved, old: Saved) -> Result<(), BreakpointError> {
        let Some(mut memory) = memory_mut(self, place) else {
            return Err(BreakpointError::SharedCode);
        };
        memory.unpublish().map_err(BreakpointError::Memory)?;
        let written = memory.write(place.offset, &new).map_err(|_| BreakpointError::NotASite);
        let published = |()| memory.republish().map_err(BreakpointError::Memory);
        let Err(error) = written.and_then(published) else { return Ok(()) };
        // Where the new bytes were refused the old ones are too, and are there still.
        let _ = memory.write(place.offset, &old);
        Err(memory.republish().map_or_else(BreakpointError::LeftUnpublished, |()| error))
    }
}

/// A breakpoint's place in a store.
struct Place {
    base: StoreCodePc,
    /// From there.
    offset: usize,
    pc: StoreCodePc,
}

fn memory_mut<'r>(registry: &'r mut ModuleRegistry, place: &Place) -> Option<CodePatch<'r>> {
    registry.store_code_mut(place.base)?.code_memory_mut()
}
