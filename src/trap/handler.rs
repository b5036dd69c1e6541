//! Installing the fault handler: once for the process; and uninstalling it.

use super::error::{InstallError, UninstallError, UninstallRefused};
use super::fault::on_fault;
use crate::sys::signals::chain::{self, ChainError, Link, Place};
use crate::sys::signals::shared::Handles;
use crate::sys::signals::signal;

/// Handles of the one handler of the process.
static HANDLES: Handles = Handles::none();

/// Which signals are taken over.
///
/// ```
/// let options = pcmap::trap::TrapOptions::new().breakpoints(false);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapOptions {
    breakpoints: bool,
}

impl TrapOptions {
    /// SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP. Constant time; signal-safe.
    pub const fn new() -> Self {
        Self { breakpoints: true }
    }

    /// Whether SIGTRAP is taken over: not where a debugger of the program's own does that. Constant time;
    /// signal-safe.
    pub const fn breakpoints(mut self, on: bool) -> Self {
        self.breakpoints = on;
        self
    }

    fn links(self) -> impl Iterator<Item = &'static Link> {
        chain::links(move |number| self.breakpoints || !signal::is_breakpoint(number))
    }
}

impl Default for TrapOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows that the fault handler is installed: a handle, of which there may be any number.
///
/// The handler stays installed when the last handle is dropped; [`TrapHandler::uninstall`] takes it
/// out.
#[derive(Debug)]
pub struct TrapHandler {
    /// Each handle is counted.
    counted: (),
}

impl TrapHandler {
    /// Takes the fault signals over, unless that is done already; what options ask for adds up.
    ///
    /// Whether it is done, the system is asked: if somebody has taken the handler out since, by installing
    /// the default action, none, or what was there before, it is installed again.
    ///
    /// Whatever is installed for them at this moment is remembered, and gets every signal that is no
    /// trap: called with the arguments, on the stack and under the mask that the kernel would have
    /// given it, once only if it was installed for once; or ignored, or the default action, as it
    /// was. Actions that others install later come first, and can hand signals on to this one.
    ///
    /// The system has no way to replace an action only if it is still the one that was seen. So while
    /// this is called for the first time on several threads at once, nobody else should install
    /// actions for the same signals.
    ///
    /// ```
    /// # use pcmap::trap::{TrapHandler, TrapOptions, UninstallRefused};
    /// let handler = TrapHandler::install(TrapOptions::new())?;
    /// let same = TrapHandler::install(TrapOptions::new())?;
    /// let refused = handler.uninstall().unwrap_err();
    /// assert_eq!(refused.reason, UninstallRefused::InUse);
    /// drop(refused.handler);
    /// same.uninstall()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// **Cost**: a system call a signal; two, where the handler is not installed. **Progress**: lock-free.
    /// **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`InstallError`]; what is installed is what was before, unless others have handles.
    pub fn install(options: TrapOptions) -> Result<Self, InstallError> {
        if !HANDLES.join() {
            return Err(InstallError::BeingUninstalled);
        }
        let handler = Self { counted: () };
        let mut fresh: [Option<&Link>; signal::FAULTS.len()] = [None; signal::FAULTS.len()];
        for (link, place) in options.links().zip(0..) {
            match link.install(on_fault) {
                Ok(is_fresh) => fresh[place] = is_fresh.then_some(link),
                Err(error) => {
                    // As before, unless others have it installed as well.
                    if HANDLES.close() {
                        for link in fresh.into_iter().flatten() {
                            let _ = link.uninstall(on_fault);
                        }
                        HANDLES.closed(1);
                    }
                    return Err(match error {
                        ChainError::System(number) => InstallError::System(number),
                        // Only uninstalling can find somebody on top.
                        ChainError::OutOfMemory | ChainError::InstalledOver => {
                            InstallError::OutOfMemory
                        }
                    });
                }
            }
        }
        Ok(handler)
    }

    /// Puts back what was installed before, for all signals.
    ///
    /// **Cost**: two system calls a signal. **Progress**: lock-free. **Panics**: none.
    /// **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`UninstallError`], with the handle, and nothing has changed: there are other handles or
    /// prepared threads, or somebody has installed an action over this one, which may hand signals on
    /// to it.
    pub fn uninstall(self) -> Result<(), UninstallError> {
        if !HANDLES.close() {
            return Err(UninstallError { reason: UninstallRefused::InUse, handler: self });
        }
        match take_out() {
            Ok(()) => {
                core::mem::forget(self);
                HANDLES.closed(0);
                Ok(())
            }
            Err(reason) => {
                HANDLES.closed(1);
                Err(UninstallError { reason, handler: self })
            }
        }
    }
}

/// All of the installed links, or none.
fn take_out() -> Result<(), UninstallRefused> {
    let mut ours: [Option<&Link>; signal::FAULTS.len()] = [None; signal::FAULTS.len()];
    for (link, place) in chain::links(|_| true).zip(0..) {
        match link.place(on_fault) {
            Ok(Place::Top) => ours[place] = Some(link),
            Ok(Place::Nowhere) => {}
            Ok(Place::Below) => return Err(installed_over(link)),
            Err(number) => return Err(UninstallRefused::System(number)),
        }
    }
    // Somebody may still come in between, so what was taken out goes back if another one fails.
    let mut taken: [Option<&Link>; signal::FAULTS.len()] = [None; signal::FAULTS.len()];
    for (link, place) in ours.into_iter().flatten().zip(0..) {
        if let Err(error) = link.uninstall(on_fault) {
            for link in taken.into_iter().flatten() {
                let _ = link.install(on_fault);
            }
            return Err(match error {
                ChainError::System(number) => UninstallRefused::System(number),
                _ => installed_over(link),
            });
        }
        taken[place] = Some(link);
    }
    Ok(())
}

fn installed_over(link: &Link) -> UninstallRefused {
    UninstallRefused::InstalledOver { signal: signal::name(link.signal()).unwrap_or("a signal") }
}

impl Clone for TrapHandler {
    fn clone(&self) -> Self {
        // There is a handle, so it is not being uninstalled.
        HANDLES.join();
        Self { counted: self.counted }
    }
}

impl Drop for TrapHandler {
    fn drop(&mut self) {
        HANDLES.leave();
    }
}
