//! stub
mod sync; mod sys; mod index;
mod batch; mod code_map; mod error; mod reader; mod registration; mod snapshot; mod stats;
pub use index::address_range::{CodeRange, Pc, RangeError};
pub use code_map::CodeMap;
pub use error::{RegisterAllError, RegisterError, Refused, WrongMap};
pub use reader::{Hit, Reader};
pub use registration::{Registration, RegistrationKey, Retirement};
pub use snapshot::{Neighbours, Registered, Snapshot};
pub use stats::{Remaining, Stats};
