#![expect(unsafe_code, reason = "hands signals to the actions that were there before")]
//! The actions that were there before, and handing a signal on to them as if ours had never been.

use super::action::{Action, Delivery, Handler};
use super::ending::take_default_action;
use super::machine::Departure;
use super::signal::{FAULTS, is_forced};
use crate::memory::try_box;
use crate::sys::pages::ErrorNumber;
use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// What was installed for one signal.
struct Remembered {
    action: Action,
    /// `SA_RESETHAND`: it has had its one call, and the kernel would have restored the default.
    spent: AtomicBool,
}

/// One signal's place in the chain.
pub(crate) struct Link {
    signal: c_int,
    /// Set before ours is installed, and never freed: a handler may be reading it.
    before: AtomicPtr<Remembered>,
    /// Ours was installed, and not seen to be gone since: if there is another handler, ours may be below it.
    below: AtomicBool,
}

/// Where ours is among a signal's handlers, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The kernel calls it.
    Top,
    /// Somebody has installed a handler over it since, which may hand on to it.
    Below,
    /// It was not installed, or somebody has taken it out: the action is the default, none, or what was there
    /// before.
    Nowhere,
}

/// Why the chain was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    System(ErrorNumber),
    OutOfMemory,
    /// Somebody else has installed over ours.
    InstalledOver,
}

impl From<ErrorNumber> for ChainError {
    fn from(error: ErrorNumber) -> Self {
        Self::System(error)
    }
}

static CHAIN: [Link; FAULTS.len()] = {
    let mut chain = [const { Link::of(0) }; FAULTS.len()];
    let mut i = 0;
    while i < FAULTS.len() {
        chain[i] = Link::of(FAULTS[i].0);
        i += 1;
    }
    chain
};

/// How often ours was installed for a signal.
static TIMES_TAKEN_OVER: AtomicUsize = AtomicUsize::new(0);

/// How often signals were taken over: as long as this is the same, they are the same signals, or fewer.
#[inline]
pub(crate) fn times_taken_over() -> usize {
    // Acquire: pairs with Release in `install`; the links that were counted tell so.
    TIMES_TAKEN_OVER.load(Ordering::Acquire)
}

/// The links of the signals for which `wanted` holds.
pub(crate) fn links(wanted: impl Fn(c_int) -> bool) -> impl Iterator<Item = &'static Link> {
    CHAIN.iter().filter(move |link| wanted(link.signal))
}

impl Link {
    const fn of(signal: c_int) -> Self {
        Self { signal, before: AtomicPtr::new(ptr::null_mut()), below: AtomicBool::new(false) }
    }

    pub(crate) fn signal(&self) -> c_int {
        self.signal
    }

    /// Whether ours is in the chain, for all that was seen.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.below.load(Ordering::Acquire)
    }

    fn before(&self) -> Option<&'static Remembered> {
        // Acquire: pairs with Release in `remember`.
        let before = self.before.load(Ordering::Acquire);
        // SAFETY: null, or a box that `remember` leaked.
        unsafe { before.as_ref() }
    }

    /// Installs `handler`, and remembers what was there, unless it is in the chain; says whether it was not.
    ///
    /// Any number of threads may do this at a time: whoever comes second helps or finds it done.
    pub(crate) fn install(&self, handler: Handler) -> Result<bool, ChainError> {
        let found = Action::installed(self.signal)?;
        let place = self.place_by(&found, handler);
        match place {
            Place::Below => {}
            Place::Top if found.is_called_right() => {}
            Place::Top => {
                let before = self.before().map_or(found, |known| known.action);
                Action::of_runtime(handler, &before).install(self.signal)?;
            }
            Place::Nowhere => {
                // First remember, then install: what faults in between goes the old way, and what
                // faults behind it finds it.
                self.remember(found)?;
                let replaced = Action::of_runtime(handler, &found).install(self.signal)?;
                if !replaced.is_handler(handler) && replaced != found {
                    // Somebody else was in between.
                    self.remember(replaced)?;
                }
            }
        }
        self.below.store(true, Ordering::Release);
        let is_fresh = place == Place::Nowhere;
        if is_fresh {
            TIMES_TAKEN_OVER.fetch_add(1, Ordering::Release);
        }
        Ok(is_fresh)
    }

    fn remember(&self, action: Action) -> Result<(), ChainError> {
        if self.before().is_some_and(|known| known.action == action && !known.is_spent()) {
            return Ok(());
        }
        let remembered = Remembered { action, spent: AtomicBool::new(false) };
        let remembered = try_box(remembered).map_err(|_| ChainError::OutOfMemory)?;
        // Release: a handler that finds it sees what is in it. What was there stays, for a handler
        // that has found it; there is one for each time that another action was found.
        self.before.store(Box::into_raw(remembered), Ordering::Release);
        Ok(())
    }

    /// Where `handler` is. The system is asked; only whether there is one below a foreign handler it
    /// cannot tell.
    pub(crate) fn place(&self, handler: Handler) -> Result<Place, ErrorNumber> {
        Ok(self.place_by(&Action::installed(self.signal)?, handler))
    }

    fn place_by(&self, found: &Action, handler: Handler) -> Place {
        if found.is_handler(handler) {
            return Place::Top;
        }
        let calls = !found.is_default() && !found.is_ignore();
        let is_of_before = self.before().is_some_and(|known| known.action == *found);
        if calls && !is_of_before && self.below.load(Ordering::Acquire) {
            return Place::Below;
        }
        self.below.store(false, Ordering::Release);
        Place::Nowhere
    }

    /// Puts back what was there before, unless `handler` is not what is installed.
    pub(crate) fn uninstall(&self, handler: Handler) -> Result<(), ChainError> {
        let before = self.before().filter(|known| !known.is_spent());
        let before = before.map_or_else(Action::default, |known| known.action);
        let replaced = before.install(self.signal)?;
        if !replaced.is_handler(handler) {
            replaced.install(self.signal)?;
            return Err(ChainError::InstalledOver);
        }
        self.below.store(false, Ordering::Release);
        Ok(())
    }

    /// Treats the signal as if `handler` had never been installed. Signal-safe as far as the
    /// previous handler is.
    ///
    /// # Safety
    ///
    /// 1. The delivery is that of this signal.
    unsafe fn pass_on(&self, delivery: Delivery) -> Departure {
        // SAFETY: by 1. the kernel has written it.
        let code = unsafe { (*delivery.info.cast::<libc::siginfo_t>()).si_code };
        match self.before() {
            Some(before) if before.is_callable() => {
                // SAFETY: (`call`) 1. a handler that was installed for this signal; 2. by 1. here.
                return unsafe { before.action.call(self.signal, delivery) };
            }
            // What somebody sent can be ignored, and a report; a fault cannot, and kills.
            Some(before) if before.action.is_ignore() && !is_forced(self.signal, code) => {}
            // SAFETY: (`take_default_action`) 1. by 1.; 2. nobody uses it any more.
            _ => unsafe { take_default_action(self.signal, delivery.info, delivery.context) },
        }
        Departure::NONE
    }
}

impl Remembered {
    fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// Whether it is a handler that the kernel would still call; once only, if it is for once.
    fn is_callable(&self) -> bool {
        let handler = !self.action.is_default() && !self.action.is_ignore();
        handler && !(self.action.is_for_once() && self.spent.swap(true, Ordering::Relaxed))
    }
}

/// Treats a signal as if our handler had never been installed; gives what its entry is to do then.
///
/// # Safety
///
/// 1. The delivery is what the handler of `signal` that is running was given.
#[cold]
#[inline(never)]
pub(crate) unsafe fn pass_on(signal: c_int, delivery: Delivery) -> Departure {
    match links(|known| known == signal).next() {
        // SAFETY: (`pass_on`) 1. by 1.
        Some(link) => unsafe { link.pass_on(delivery) },
        None => Departure::NONE,
    }
}
