//! Traps of real machine code: each kind, nested, with panics, and the stack's end.
//!
//! What must happen to faults that are nobody's here, and around installing, is shown by processes of
//! their own: `tests/foreign_faults`.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../../examples/mini_runtime/compiler.rs"]
mod compiler;
#[path = "../trap_guests/mod.rs"]
mod trap_guests;

mod edges_of_frames;
mod frames;
mod host_stack;
mod host_traps;
mod kinds;
mod nested;
mod overflow;
mod panics;
mod registers;
mod stack_needs;
mod thread_ends;
