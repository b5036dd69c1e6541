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
//! The map is an immutable tree of ranges, and one pointer leads to its newest version. A lookup counts
//! itself in on one of 64 counters, loads the pointer, searches the tree and counts itself out. No other
//! thread can delay a lookup, and a lookup frees nothing. A registration copies the nodes on its way and
//! exchanges the pointer. An unregistration sets a flag in the entry. What was displaced is freed, in any
//! order, when every reader that could hold it has left. A thread that stalls holds back at most what the map
//! contained when the thread stalled, and a constant. [`design`] has the argument.
//!
//! # What may be called in a signal handler
//!
//! Nothing but this. None of it prints: `Debug` and `Display` are for ordinary threads, and so is dropping a
//! value. [`signal_safety`] tells why each may be called.
//!
//! - [`CodeMap::new`], [`CodeMap::lookup`], [`CodeMap::enter`] and [`Reader::lookup`];
//! - all methods of [`Hit`], [`Pc`] and [`CodeRange`];
//! - `range` and `value` of [`Registration`] and [`RegistrationKey`], and [`Registration::into_key`];
//! - all methods of a [`Snapshot`], and of its [`Registered`] and [`Neighbours`].
//!
//! With the feature `registry`:
//!
//! - `process_code_map`, `breakpoint_address`, and all methods of `ResidentCode`;
//! - all methods of `EngineCodePc`, `StoreCodePc`, `TextOffset`, `TextRange`, `SourceOffset`, `FuncKey`, `FuncKind`,
//!   `SignatureKey` and `TrapCode`;
//! - of `CodeMemory`, `EngineCode` and `StoreCode` the methods that only ask;
//! - of `CodeTables` the methods that look up one offset or key; all methods of the readers `TrapTableRef`,
//!   `FunctionTableRef` and `AddressMapRef`, and of `TrapTable`, `FunctionTable` and `AddressMap` those that give a
//!   reader or the bytes;
//! - the constant-time methods of `StoreCodeMut`.
//!
//! With the feature `trap`: `sample_guest`, all methods of `TrapFrame`, and those that make `TrapOptions` and
//! `StackLimits`.

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
