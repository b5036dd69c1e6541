//! Real artifacts of wasmtime, and what wasmtime itself reads in them.
//!
//! The guests are WebAssembly text in `guests/`, compiled here and now by the compiler that users
//! have. What pcmap reads in the outcome is compared with what the readers of the `wasmtime-environ`
//! crate read in it: they are the ones that a running wasmtime uses.

mod artifact;
mod oracle;

pub use artifact::{Artifact, all, engine};
pub use oracle::{KnownFunction, Oracle};
