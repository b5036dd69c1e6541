//! Faults and signals that are none of ours: each scenario runs in two processes, one with the trap
//! handler installed and one without. They must print the same and end the same way; where a signal ends
//! them, with the same last words, as a debugger would see them.
//!
//! A harness of its own, so that a scenario has a process, and its first thread, for itself:
//! `foreign_faults [FILTER]` compares, `foreign_faults child SCENARIO with|without` is one of the two.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod compare;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../../examples/mini_runtime/compiler.rs"]
mod compiler;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod faults;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod handlers;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod installing;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod last_words;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod once;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod stack_ends;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod stage;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../trap_guests/mod.rs"]
mod trap_guests;

fn main() {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    compare::main();
}
