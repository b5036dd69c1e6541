//! Signals, as the trap runtime needs them. A port supplies these, and nothing else:
//!
//! - [`action`]: what is installed for a signal; asking, installing, calling a handler;
//! - [`chain`]: the actions that were there before, and handing a signal on to them;
//! - [`ending`]: the default action, when that was there before;
//! - [`signal`]: which signal it is, where it comes from, which address it is about;
//! - [`interrupted`]: the registers of the interrupted code, to read and to change;
//! - [`machine`]: what differs between architectures: registers by name, and a little assembly;
//! - [`alternate_stack`]: the stack that a thread's handlers run on;
//! - [`fault_mask`]: that a thread has not blocked them;
//! - [`thread_stack`]: how far down the memory of a thread's own stack goes;
//! - [`readable`]: whether memory can be read;
//! - [`lineage`]: whether this process was forked since;
//! - [`catching`]: panics are caught, and the end of a thread is not;
//! - [`own_thread`]: a pointer of the thread's own, for ordinary code;
//! - [`shared`]: words that a thread shares with its handlers, and a count of handles.
//!
//! On a handler's path are `signal`, `interrupted`, `machine` and the loads of `shared`; `chain`,
//! `action` and `ending` where a signal is none of ours.

pub(crate) mod action;
pub(crate) mod alternate_stack;
pub(crate) mod catching;
pub(crate) mod chain;
pub(crate) mod ending;
pub(crate) mod fault_mask;
pub(crate) mod interrupted;
pub(crate) mod lineage;
pub(crate) mod machine;
pub(crate) mod own_thread;
pub(crate) mod readable;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod thread_stack;
