//! What a scenario has: guests, and the trap handler or not.

use crate::trap_guests::{Guest, Guests, prepared};
use pcmap::trap::GuestThread;
use std::cell::OnceCell;

pub(crate) struct Stage {
    pub(crate) with_traps: bool,
    pub(crate) guests: Guests,
    thread: OnceCell<GuestThread>,
}

impl Stage {
    pub(crate) fn new(with_traps: bool) -> Self {
        Self { with_traps, guests: Guests::load(), thread: OnceCell::new() }
    }

    /// Installs the trap handler, if that is what this process is about, prepares this thread, and
    /// shows that traps are caught.
    pub(crate) fn install(&self) {
        if self.with_traps {
            let thread = self.thread.get_or_init(prepared);
            for name in ["load", "unreachable", "divide"] {
                self.guests.run(thread, name, [0; 3]).expect_err("it traps");
            }
        }
    }

    /// Calls a guest: through an activation where traps are caught, directly otherwise.
    pub(crate) fn call(&self, name: &str, with: [i64; 3]) -> i64 {
        match self.thread.get() {
            Some(thread) => self.guests.run(thread, name, with).expect("it does not trap"),
            None => self.call_directly(name, with),
        }
    }

    /// The same, of a guest of the scenario's own.
    #[expect(unsafe_code, reason = "calls guests")]
    pub(crate) fn enter(&self, guest: Guest, [a, b, c]: [i64; 3]) -> i64 {
        match self.thread.get() {
            Some(thread) => {
                // SAFETY: (`call`) 1. to 4. the scenario's to answer for.
                let run = thread.catch_traps(|it| unsafe { it.call(guest, (a, b, c)) });
                run.expect("it does not trap")
            }
            // SAFETY: the scenario's to answer for.
            None => unsafe { guest(a, b, c) },
        }
    }

    #[expect(unsafe_code, reason = "calls guests")]
    pub(crate) fn call_directly(&self, name: &str, [a, b, c]: [i64; 3]) -> i64 {
        // SAFETY: a guest, kept by `self`.
        unsafe { self.guests.guest(name)(a, b, c) }
    }
}
