//! The main job: guests fault on many threads while their code is loaded and unloaded, a timer
//! interrupts everything, and every fault is attributed in its signal handler through the map.
//!
//! Guests are Cranelift IR (`examples/guests`), compiled to machine code at start. One thread maps,
//! publishes, registers, unregisters and unmaps modules made of them as fast as it can; the others
//! run random functions of random modules. The trap runtime asks the map which code holds the program
//! counter of a fault, its tables which function and which trap, and sends the thread back to where it
//! entered the guest. There the thread compares the trap with what the compiler wrote down about the
//! function it called. A profiling timer meanwhile makes lookups wherever it
//! lands: in guests, inside `register` and `reclaim`, inside another handler's lookup.
//!
//! ```text
//! cargo run --release --example fault_storm -- --seconds 30 --threads 4
//! ```

mod arguments;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod progress;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod storm;

use arguments::{Request, USAGE};
use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Request::Help) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Ok(Request::Storm(settings)) => run(settings),
        Err(message) => {
            eprintln!("fault_storm: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn run(settings: arguments::Settings) -> ExitCode {
    match storm::run(settings.threads, 0, |storm, _| progress::watch(settings.duration, storm)) {
        Ok(report) => {
            println!("{report}");
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("fault_storm: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn run(settings: arguments::Settings) -> ExitCode {
    let _ = (settings.duration, settings.threads);
    println!(
        "fault_storm: not run: it knows the signal frames of Linux on x86-64 and AArch64 only"
    );
    ExitCode::SUCCESS
}
