//! What differs between architectures: the compiler's target, registers in a signal frame, and a clock
//! to read in a handler.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{CODEGEN_TARGET, pc, sp, ticks};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{CODEGEN_TARGET, pc, sp, ticks};
