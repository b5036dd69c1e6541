//! What can go wrong around traps, apart from traps: nothing has changed then.

use super::handler::TrapHandler;
use crate::Refused;
use core::fmt;

/// The trap handler was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// Another thread is uninstalling it at this moment.
    #[error("the trap handler is being uninstalled")]
    BeingUninstalled,
    /// There is no heap memory for what was installed before.
    #[error("out of memory")]
    OutOfMemory,
    /// The system refused: its error number.
    #[error("the system refused a signal action: error {0}")]
    System(i32),
}

/// Why the trap handler was not uninstalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UninstallRefused {
    /// There are other handles, or threads that are prepared for guests.
    #[error("the trap handler is in use")]
    InUse,
    /// Somebody has installed an action over ours: if that were taken away, too, or ours from under
    /// it, what it hands on would go nowhere.
    #[error("another action was installed for {signal} since")]
    InstalledOver {
        /// The signal's name.
        signal: &'static str,
    },
    /// The system refused: its error number.
    #[error("the system refused a signal action: error {0}")]
    System(i32),
}

/// The trap handler was not uninstalled; the handle comes back.
#[non_exhaustive]
pub struct UninstallError {
    /// Why.
    pub reason: UninstallRefused,
    /// The handle.
    pub handler: TrapHandler,
}

/// A thread was not prepared for guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The system refused: its error number. (It has no memory for a stack, mostly.)
    #[error("the system refused a stack for handlers: error {0}")]
    System(i32),
    /// Too little of the thread's stack is left to prepare it.
    #[error("of the thread's stack {left} bytes are left, and {needed} are needed")]
    StackTooSmall {
        /// How many bytes preparing needs.
        needed: usize,
        /// How many were found, in whole pages.
        left: usize,
    },
    /// There is no heap memory.
    #[error("the thread cannot be known to handlers: {0}")]
    Refused(#[from] Refused),
}

impl fmt::Display for UninstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Debug for UninstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UninstallError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl core::error::Error for UninstallError {}
