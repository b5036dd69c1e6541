//! The modules that can be run now, each in a slot, and the pins that keep them there.
//!
//! A pin is a share in a module, and so in its registration. Guests run code only while they hold one, and the
//! loader unregisters only what it holds alone, so at every moment at which a guest executes, its
//! code is registered: a lookup that does not find it is wrong. The locks are for ordinary code;
//! no handler touches them.

use super::module::Module;
use super::random::Random;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// A fixed number of places for modules.
#[derive(Debug)]
pub(crate) struct Residents {
    slots: Box<[Mutex<Option<Arc<Module>>>]>,
}

impl Residents {
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots: (0..slots).map(|_| Mutex::new(None)).collect() }
    }

    /// A random module, if there is one in the slot drawn.
    pub(crate) fn pin(&self, random: &mut Random) -> Option<Arc<Module>> {
        let slot = &self.slots[random.below(self.slots.len())];
        slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a module into a random slot; what was there can be pinned no more.
    pub(crate) fn replace(&self, random: &mut Random, module: Arc<Module>) -> Option<Arc<Module>> {
        let slot = &self.slots[random.below(self.slots.len())];
        slot.lock().unwrap_or_else(PoisonError::into_inner).replace(module)
    }

    /// Empties all slots.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Arc<Module>> {
        self.slots
            .iter()
            .filter_map(|slot| mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
