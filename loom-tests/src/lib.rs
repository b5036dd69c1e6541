//! pcmap over loom: the files of the crate, word for word, with `sync` replaced.
//!
//! Everything below `../../src` that has to do with concurrency is compiled here as it is; only
//! the door to the machine is another one (`sync.rs`). `cargo test` explores every interleaving of
//! the models in `tests/`, within the bounds that each prints.

mod parking;
mod sync;

#[path = "../../src/address_range.rs"]
mod address_range;
#[path = "../../src/batch.rs"]
mod batch;
#[path = "../../src/registry/claim.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "used by the models; the registry is not here"))]
mod claim;
#[path = "../../src/code_map.rs"]
mod code_map;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/index/mod.rs"]
mod index;
#[path = "../../src/memory/mod.rs"]
#[expect(dead_code, reason = "some of it is for the registry, which is not here")]
mod memory;
#[path = "../../src/reader.rs"]
mod reader;
#[path = "../../src/registration.rs"]
mod registration;
#[path = "../../src/snapshot.rs"]
mod snapshot;
#[path = "../../src/stats.rs"]
mod stats;

pub use address_range::{CodeRange, Pc, RangeError};
pub use code_map::CodeMap;
pub use error::{Refused, RegisterAllError, RegisterError, WrongMap};
pub use memory::OutOfMemory;
pub use reader::{Hit, Reader};
pub use registration::{Registration, RegistrationKey, Retirement};
pub use snapshot::{Neighbours, Registered, Snapshot};
pub use stats::{EraStats, Remaining, Stats};

#[cfg(test)]
#[path = "../tests/model.rs"]
mod model;

#[cfg(test)]
#[path = "../tests/entries.rs"]
mod entries;
#[cfg(test)]
#[path = "../tests/eras.rs"]
mod eras;
#[cfg(test)]
#[path = "../tests/owners.rs"]
mod owners;
#[cfg(test)]
#[path = "../tests/publication.rs"]
mod publication;
#[cfg(test)]
#[path = "../tests/reclamation.rs"]
mod reclamation;
#[cfg(test)]
#[path = "../tests/views.rs"]
mod views;
#[cfg(test)]
#[path = "../tests/weakened.rs"]
mod weakened;
