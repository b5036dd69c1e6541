//! What the crate asks of the system. A port supplies these, and nothing else:
//!
//! - [`fork`]: a number that differs between a process and its children;
//! - [`barrier`]: makes a publication visible to threads that were not told of it;
//! - [`destroying`]: whether this thread is in the midst of destroying garbage;
//! - [`clock`]: nanoseconds that never go back, and a pause that signals end;
//! - [`panics`]: keeps a destructor's panic until others have run;
//! - `pages`: memory for machine code, and making written instructions visible (`registry` only);
//! - `perf`: a clock, a thread's number, and a mapping that `perf` notices (`perf` only; Linux);
//! - `signals`: what the trap runtime asks of signals (`trap` only; Linux);
//! - `thread_sanitizer`: stands in for fences in its builds (no port needs to change it);
//! - [`prefetch`]: begins to fetch memory that will be read (it may as well do nothing).
//!
//! None of them but the last is on the path of a lookup; what of `signals` is on the path of a fault,
//! it says.

pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod destroying;
pub(crate) mod fork;
#[cfg(feature = "registry")]
pub(crate) mod pages;
pub(crate) mod panics;
#[cfg(all(feature = "perf", any(target_os = "linux", target_os = "android")))]
pub(crate) mod perf;
pub(crate) mod prefetch;
#[cfg(all(
    feature = "trap",
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) mod signals;
#[cfg(pcmap_tsan)]
pub(crate) mod thread_sanitizer;
