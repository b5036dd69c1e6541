//! Loads and unloads modules as fast as it can: maps, publishes, registers; and once no guest pins a
//! module, lets go of it, in one of several ways.

use super::library::Library;
use super::module::Module;
use super::random::Random;
use super::residents::Residents;
use pcmap::registry::{self, Engine, ModuleRegistry, process_code_map};
use std::error::Error;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// Modules replaced but pinned by guests: beyond this many the loader waits for some to go.
const MOST_LEAVING: usize = 64;
/// Modules that leave the map in one publication, when it is more than one.
const BATCH: usize = 6;

/// What the loader has done, for others to read.
#[derive(Debug, Default)]
pub(crate) struct LoaderTally {
    pub(crate) registrations: AtomicU64,
}

/// The loading thread's state.
#[derive(Debug)]
pub(crate) struct Loader<'s> {
    engine: Engine,
    library: &'s Library,
    residents: &'s Residents,
    tally: &'s LoaderTally,
    random: Random,
    /// Replaced: no guest can pin them any more, some may still.
    leaving: Vec<Arc<Module>>,
    /// Let go of together, when there are enough.
    batch: Vec<Module>,
}

impl<'s> Loader<'s> {
    pub(crate) fn new(
        engine: Engine,
        library: &'s Library,
        residents: &'s Residents,
        tally: &'s LoaderTally,
    ) -> Self {
        let (leaving, batch) = (Vec::new(), Vec::new());
        Self { engine, library, residents, tally, random: Random::stream(0), leaving, batch }
    }

    /// Works until told to stop. What is resident then stays so.
    ///
    /// # Errors
    ///
    /// What the engine says about a module.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
        while !stop.load(Relaxed) {
            let module = Module::load(&self.engine, self.library, &mut self.random)?;
            self.tally.registrations.fetch_add(1, Relaxed);
            let replaced = self.residents.replace(&mut self.random, Arc::new(module));
            self.leaving.extend(replaced);
            self.unload()?;
        }
        Ok(())
    }

    /// Lets go of what was replaced and is no longer pinned.
    fn unload(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            for leaving in mem::take(&mut self.leaving) {
                match Arc::try_unwrap(leaving) {
                    Ok(module) => self.let_go(module)?,
                    Err(pinned) => self.leaving.push(pinned),
                }
            }
            if self.leaving.len() <= MOST_LEAVING {
                return Ok(());
            }
            thread::yield_now();
        }
    }

    /// Unregisters a module that nothing but the loader holds.
    fn let_go(&mut self, module: Module) -> Result<(), Box<dyn Error>> {
        match self.random.below(128) {
            // Waits, here and now, until no handler reads it and it is unmapped:
            0 => {
                drop(module);
                process_code_map().synchronize();
            }
            // leaves it to the map, which unmaps it whenever it takes out garbage:
            1..=80 => drop(module),
            // or to a store that goes, with all that it has loaded, in one publication.
            _ => {
                self.batch.push(module);
                if self.batch.len() >= BATCH {
                    self.leave_with_a_store()?;
                }
            }
        }
        Ok(())
    }

    fn leave_with_a_store(&mut self) -> Result<(), Box<dyn Error>> {
        let mut store = ModuleRegistry::new(&self.engine);
        for module in self.batch.drain(..) {
            // The store is the last that has it then.
            store.register_module(&registry::Module::new(&module.code, module.serial() as u32)?)?;
        }
        drop(store);
        Ok(())
    }

    /// Unloads everything, when no guest runs any more.
    ///
    /// # Errors
    ///
    /// Without memory for a store.
    pub(crate) fn finish(mut self) -> Result<(), Box<dyn Error>> {
        let residents = self.residents.take_all().chain(self.leaving.drain(..));
        let modules = residents.map(|it| Arc::try_unwrap(it).expect("no guest runs any more"));
        self.batch.extend(modules);
        self.leave_with_a_store()?;
        process_code_map().synchronize();
        Ok(())
    }
}
