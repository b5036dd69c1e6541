//! A lock-free, async-signal-safe, concurrent address-range index.
//!
//! It answers, inside a SIGSEGV or SIGPROF handler, on any thread, wait-free: *which code object
//! holds this program counter, and at what offset?* For runtimes, JITs, profilers and crash
//! reporters.
//!
//! ```
//! use pcmap::CodeMap;
//!
//! struct Module { name: &'static str }
//!
//! static CODE: CodeMap<Module> = CodeMap::new();
//!
//! // On an ordinary thread, for each piece of code that is loaded:
//! # let (start, len) = (0x7000_0000, 0x4000);
//! let code = CODE.register(start..start + len, Module { name: "a" }).expect("not there yet");
//!
//! // In a signal handler, wherever the signal came:
//! # let pc = 0x7000_0123;
//! let found = CODE.lookup(pc, |hit| (hit.value().name, hit.offset()));
//! assert_eq!(found, Some(("a", 0x123)));
//!
//! // When the code goes: wait until no handler can hold it, then unmap.
//! code.unregister().wait();
//! ```
//!
//! # How it works
//!
//! The map is a chain of immutable versions, the newest of which is published through one
//! pointer. A lookup counts itself in on one of 64 counters, loads the pointer, searches its tree
//! and counts itself out: nothing of another thread can delay it, and it frees nothing. A write
//! builds the next version, which shares all but a few nodes with the last one, and links it with
//! one compare-and-swap; whatever follows from that, any thread can complete, so that a thread which stops anywhere stops nobody. A version that was
//! displaced is destroyed on an ordinary thread when every reader that could have loaded it has
//! left. The whole story, with what each dependency does and why handlers use none of them, is in
//! [`design`]; what is safe in a handler and why, in [`signal_safety`].
//!
//! # What may be called in a signal handler
//!
//! [`CodeMap::lookup`], [`CodeMap::enter`], [`Reader::lookup`], all of [`Hit`], and the accessors
//! of [`CodeRange`], [`Pc`], [`Registration`] and [`RegistrationKey`]. With the feature `registry`,
//! also all of `ResidentCode`, the addresses and offsets of that module, and what its tables say of
//! one offset; with `trap`, `sample_guest`. Nothing else.

mod address_range;
mod batch;
mod code_map;
mod error;
#[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "some of it is for the registry"))]
mod index;
#[cfg_attr(not(feature = "registry"), expect(dead_code, reason = "some of it is for the registry"))]
mod memory;
#[cfg(all(feature = "perf", any(target_os = "linux", target_os = "android")))]
pub mod perf;
mod reader;
mod registration;
#[cfg(feature = "registry")]
pub mod registry;
mod snapshot;
mod stats;
mod sync;
mod sys;
#[cfg(all(
    feature = "trap",
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub mod trap;

pub use address_range::{CodeRange, Pc, RangeError};
pub use code_map::CodeMap;
pub use error::{Refused, RegisterAllError, RegisterError, WrongMap};
pub use memory::OutOfMemory;
pub use reader::{Hit, Reader};
pub use registration::{Registration, RegistrationKey, Retirement};
pub use snapshot::{Neighbours, Registered, Snapshot};
pub use stats::{EraStats, Remaining, Stats};

#[cfg(test)]
#[path = "../benches/support/functions.rs"]
mod functions;
#[cfg(test)]
#[path = "../benches/support/layouts.rs"]
mod layouts;
#[cfg(test)]
#[path = "../benches/support/process.rs"]
mod process;
#[cfg(test)]
mod search_cost;

#[cfg(doc)]
#[doc = include_str!("../docs/DESIGN.md")]
pub mod design {}

#[cfg(doc)]
#[doc = include_str!("../docs/SIGNAL_SAFETY.md")]
pub mod signal_safety {}

#[cfg(doc)]
#[doc = include_str!("../docs/REGISTRY.md")]
pub mod registry_design {}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
