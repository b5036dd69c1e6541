//! Traps: from a hardware fault in generated code to a Rust error with a backtrace.
//!
//! [`TrapHandler::install`] takes the fault signals over, once for the process. A thread that runs
//! guests prepares for it ([`GuestThread::prepare`]), and calls them through an [`Activation`]: a
//! fault of an instruction that the code's trap table knows, or an overflow of the stack in a guest,
//! ends the call with a [`Trap`]. Every other fault goes to whatever was installed before, exactly
//! as if this had never been. How to embed it is told in [`embedding`]; what runs in the handler and
//! why it may, in [`signal_safety`](crate::signal_safety).
//!
//! ```
//! use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
//! use pcmap::trap::{Cause, GuestThread, TrapHandler, TrapOptions};
//!
//! // What a compiler makes: an instruction that is not one, known to trap.
//! # #[cfg(target_arch = "x86_64")]
//! let text = vec![0x0f, 0x0b]; // ud2
//! # #[cfg(target_arch = "aarch64")]
//! # let text = vec![0x1f, 0xc1, 0x00, 0x00]; // udf #0xc11f
//! let end = text.len();
//! let mut image = CodeImage::builder(text);
//! image.function(FuncKey::new(0, 0), 0..end, "unreachable")?.trap(0_u32, TrapCode::new(9))?;
//! let engine = Engine::new(EngineConfig::new())?;
//! let code = EngineCode::load(&engine, image.finish()?)?;
//!
//! let handler = TrapHandler::install(TrapOptions::new())?;
//! let thread = GuestThread::prepare(&handler)?;
//! let start = code.text_range().start.as_ptr();
//! let result = thread.catch_traps(|activation| {
//!     // SAFETY: the text is such a function; it calls nothing, and stays while `code` does.
//!     let guest = unsafe { core::mem::transmute::<*const u8, unsafe extern "C" fn()>(start) };
//!     unsafe { activation.call(guest, ()) }
//! });
//! let trap = result.unwrap_err();
//! assert_eq!(trap.cause(), Cause::Code(TrapCode::new(9)));
//! assert_eq!(trap.pc(), Some(start.addr()));
//! assert_eq!(trap.function(), Some(FuncKey::new(0, 0)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod activation;
mod backtrace;
mod error;
mod fault;
mod guest_function;
mod guest_thread;
mod handler;
mod host_call;
mod host_trap;
mod sample;
mod stack_limits;
mod stack_probe;
mod thread_record;
#[expect(clippy::module_inception, reason = "the module is named for what it gives")]
mod trap;

pub use activation::{Activation, Trapped};
pub use backtrace::{MOST_FRAMES, TrapFrame};
pub use error::{InstallError, PrepareError, UninstallError, UninstallRefused};
pub use fault::Cause;
pub use guest_function::GuestFunction;
pub use guest_thread::GuestThread;
pub use handler::{TrapHandler, TrapOptions};
pub use host_call::{GuestExit, host_call, host_call_from};
pub use host_trap::{host_trap, host_trap_from};
pub use sample::sample_guest;
pub use stack_limits::StackLimits;
pub use trap::Trap;

#[cfg(doc)]
#[doc = include_str!("../../docs/TRAPS.md")]
pub mod embedding {}
