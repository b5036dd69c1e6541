//! A small runtime on pcmap's registry: it compiles modules, instantiates them in two stores, calls
//! them, says what is at a program counter, and debugs one of the stores.
//!
//! ```sh
//! cargo run --example mini_runtime
//! ```
//!
//! The parts of a real one are all there, each as small as it can be:
//!
//! - `compiler.rs` turns functions (in Cranelift's text format) into a `CodeImage`: machine code,
//!   and tables of functions, traps and source offsets;
//! - `store.rs` is a tenant: its `ModuleRegistry`, and calls through a trampoline;
//! - `debugger.rs` is the SIGTRAP handler, which asks the process's code map.
//!
//! It exits with 0 only if everything that it checks held.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod compiler;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod debugger;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod runtime;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod store;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    runtime::run()
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {
    println!("this example reads signal frames of Linux on x86-64 and aarch64");
}
