//! Loads and unloads modules as fast as it can: maps, publishes, registers; and once no guest pins
//! a module, unregisters, makes sure that no handler reads it, and unmaps.

use super::library::Library;
use super::module::{CODE, Module, Resident};
use super::random::Random;
use super::residents::Residents;
use pcmap::Retirement;
use std::collections::VecDeque;
use std::error::Error;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

/// Modules replaced but pinned by guests, and modules unregistered but perhaps still read: beyond
/// this many the loader waits for some to go.
const MOST_LEAVING: usize = 64;
const MOST_RETIRING: usize = 64;
/// Modules registered in one publication, when it is more than one.
const BATCH: usize = 6;

/// What the loader has done, for others to read.
#[derive(Debug, Default)]
pub(crate) struct LoaderTally {
    pub(crate) registrations: AtomicU64,
}

/// The loading thread's state.
#[derive(Debug)]
pub(crate) struct Loader<'s> {
    library: &'s Library,
    residents: &'s Residents,
    tally: &'s LoaderTally,
    random: Random,
    /// Replaced: no guest can pin them any more, some may still.
    leaving: Vec<Arc<Resident>>,
    /// Unregistered: no handler finds them any more, some may still read them.
    retiring: VecDeque<Retiring>,
}

#[derive(Debug)]
struct Retiring {
    retirement: Retirement<'static, Arc<Module>>,
    module: Arc<Module>,
}

impl<'s> Loader<'s> {
    pub(crate) fn new(
        library: &'s Library,
        residents: &'s Residents,
        tally: &'s LoaderTally,
    ) -> Self {
        let (leaving, retiring) = (Vec::new(), VecDeque::new());
        Self { library, residents, tally, random: Random::stream(0), leaving, retiring }
    }

    /// Works until told to stop. What is resident then stays so.
    ///
    /// # Errors
    ///
    /// What the system says about a mapping, or the map about a registration.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
        while !stop.load(Relaxed) {
            self.load()?;
            self.unload();
            self.settle();
        }
        Ok(())
    }

    /// Loads a module, or now and then a batch, in place of others.
    fn load(&mut self) -> Result<(), Box<dyn Error>> {
        let count = if self.random.chance(8) { BATCH } else { 1 };
        let modules = (0..count)
            .map(|_| Module::load(self.library, &mut self.random).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let items = modules.into_iter().map(|module| (module.text(), module));
        for resident in register(items)? {
            self.tally.registrations.fetch_add(1, Relaxed);
            let replaced = self.residents.replace(&mut self.random, Arc::new(resident));
            self.leaving.extend(replaced);
        }
        Ok(())
    }

    /// Unregisters what was replaced and is no longer pinned.
    fn unload(&mut self) {
        loop {
            for leaving in mem::take(&mut self.leaving) {
                match Arc::try_unwrap(leaving) {
                    Ok(resident) => self.unregister(resident),
                    Err(pinned) => self.leaving.push(pinned),
                }
            }
            if self.leaving.len() <= MOST_LEAVING {
                return;
            }
            thread::yield_now();
        }
    }

    /// Unregisters a module that nothing but the loader holds.
    fn unregister(&mut self, resident: Resident) {
        let module = Arc::clone(resident.value());
        let retirement = resident.unregister();
        match self.random.below(32) {
            // The three ways to let go. To wait, here and now:
            0 => Retiring { retirement, module }.finish(),
            // to leave it to the map, which then drops the last share, and so unmaps, whenever it
            // takes out garbage:
            1..=12 => drop(module),
            // and to ask again and again.
            _ => self.retiring.push_back(Retiring { retirement, module }),
        }
    }

    /// Unmaps what no handler reads any more.
    fn settle(&mut self) {
        while let Some(mut oldest) = self.retiring.pop_front() {
            if self.retiring.len() >= MOST_RETIRING {
                oldest.finish();
            } else if oldest.retirement.is_complete() {
                unmap(oldest.module);
            } else {
                self.retiring.push_front(oldest);
                return;
            }
        }
    }

    /// Unloads everything, when no guest runs any more.
    pub(crate) fn finish(mut self) {
        let residents = self.residents.take_all().chain(self.leaving.drain(..));
        let (modules, residents): (Vec<_>, Vec<_>) = residents
            .map(|resident| Arc::try_unwrap(resident).expect("no guest runs any more"))
            .map(|resident| (Arc::clone(resident.value()), resident))
            .unzip();
        CODE.unregister_all(residents).wait();
        self.retiring.drain(..).for_each(Retiring::finish);
        modules.into_iter().for_each(unmap);
    }
}

impl Retiring {
    /// Waits until no handler reads the module, and unmaps it.
    fn finish(self) {
        self.retirement.wait();
        unmap(self.module);
    }
}

/// Lets go of a module whose retirement is complete: no handler reads it. The last share unmaps it;
/// mostly this one, but a thread in the midst of a call on the map may hold another for a moment.
/// That every module was unmapped is checked at the end.
fn unmap(module: Arc<Module>) {
    drop(module);
}

/// Registers one module by itself, several in one publication.
fn register(
    mut items: impl ExactSizeIterator<Item = (Range<usize>, Arc<Module>)>,
) -> Result<Vec<Resident>, String> {
    match (items.len(), items.next()) {
        (1, Some((text, module))) => CODE
            .register(text, module)
            .map(|resident| vec![resident])
            .map_err(|e| e.reason.to_string()),
        (_, first) => {
            CODE.register_all(first.into_iter().chain(items)).map_err(|e| e.reason.to_string())
        }
    }
}
