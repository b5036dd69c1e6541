//! Everything at once, for hours: does it stay right, and does it stay small?
//!
//! The fault storm (`examples/fault_storm`) goes on all the time: guests that trap on several threads,
//! modules that come and go, timers whose handlers look up. Beside it run, each in a file of its own,
//! [`batches`] of ranges in a map that two threads write, [`views`] that are kept and looked at again,
//! [`stores`] with private copies and breakpoints whose traps are checked, and [`children`] of `fork`
//! that check themselves.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 10
//! ```
//!
//! Memory and garbage are read all the while ([`samples`]) and shown ([`status`]). It exits with 0 only
//! if nothing was wrong, garbage stayed bounded and is gone in the end, and memory did not grow.

mod arguments;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod batches;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod children;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../mini_runtime/compiler.rs"]
mod compiler;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod samples;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod soak;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod status;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod stores;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../fault_storm/storm/mod.rs"]
mod storm;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tally;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../../tests/trap_guests/mod.rs"]
mod trap_guests;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod views;

use arguments::{Request, USAGE};
use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Request::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Request::Soak(settings)) => run(settings),
        Err(message) => {
            eprintln!("soak: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn run(settings: arguments::Settings) -> ExitCode {
    match soak::run(settings) {
        Ok(outcome) => {
            println!("{outcome}");
            if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn run(settings: arguments::Settings) -> ExitCode {
    let _ = (settings.duration, settings.guests);
    println!("soak: not run: it knows the signal frames of Linux on x86-64 and AArch64 only");
    ExitCode::SUCCESS
}
