//! Bad input that no other test gives. `docs/BAD_INPUT.md` has all of it, with the tests that show
//! what comes back; `tests/bad_input_table.rs` sees to it that it does.
#![cfg(all(
    feature = "trap",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

#[path = "../handler_path/child.rs"]
mod child;
#[path = "../../examples/mini_runtime/compiler.rs"]
mod compiler;
#[expect(dead_code, reason = "the count of bytes is for others")]
#[path = "../refusing/mod.rs"]
mod refusing;
#[path = "../trap_guests/mod.rs"]
mod trap_guests;

mod files;
mod memory;
mod numbers;
mod stores;
mod traps;
