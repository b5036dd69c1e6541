//! stub
mod batch;
mod code_map;
mod error;
mod index;
mod reader;
mod registration;
mod snapshot;
mod stats;
mod sync;
mod sys;
pub use code_map::CodeMap;
pub use error::{Refused, RegisterAllError, RegisterError, WrongMap};
pub use index::address_range::{CodeRange, Pc, RangeError};
pub use reader::{Hit, Reader};
pub use registration::{Registration, RegistrationKey, Retirement};
pub use snapshot::{Neighbours, Registered, Snapshot};
pub use stats::{Remaining, Stats};
