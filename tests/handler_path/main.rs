//! The path of a trap through the handler, and that of a sample, neither allocates nor frees, makes no
//! system call but the return from the signal, and touches no thread-local: each shown by a check that is
//! first shown to bite.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../../examples/mini_runtime/compiler.rs"]
mod compiler;
#[path = "../skipped/mod.rs"]
mod skipped;
#[path = "../trap_guests/mod.rs"]
mod trap_guests;

mod allocation;
mod child;
mod disassembly;
mod sampling;
mod system_calls;
