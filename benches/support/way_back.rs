#![expect(unsafe_code, reason = "assembly, a signal handler, calls of guests")]
//! Guests that may fault, called with a way back: by the trap runtime, and by `sigsetjmp`, which is how
//! it is done in C.
//!
//! The latter is as cheap as it can be had: it saves no signal mask, so it makes no system call, and its
//! handler, which does not block its own signal, asks nobody whether the fault is its own.

use crate::guest::{self, handle_with};
use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::io::Error;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::time::Instant;
use std::{mem, ptr};

/// Loads from an address; 0.
type Guest = unsafe extern "C" fn(*const u64) -> usize;

// protected(buffer, guest, address): the guest's 0, or 1 if a handler jumped to the buffer.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pcmap_bench_protected, \"ax\", @progbits",
    ".globl pcmap_bench_protected",
    ".hidden pcmap_bench_protected",
    "pcmap_bench_protected:",
    "push rbx",
    "push r12",
    "sub rsp, 8",
    "mov rbx, rsi",
    "mov r12, rdx",
    "xor esi, esi",
    "call [rip + __sigsetjmp@GOTPCREL]",
    "test eax, eax",
    "jnz 2f",
    "mov rdi, r12",
    "call rbx",
    "2:",
    "add rsp, 8",
    "pop r12",
    "pop rbx",
    "ret",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pcmap_bench_protected, \"ax\", @progbits",
    ".globl pcmap_bench_protected",
    ".hidden pcmap_bench_protected",
    "pcmap_bench_protected:",
    "stp x29, x30, [sp, #-32]!",
    "mov x29, sp",
    "stp x19, x20, [sp, #16]",
    "mov x19, x1",
    "mov x20, x2",
    "mov w1, #0",
    "bl __sigsetjmp",
    "cbnz w0, 2f",
    "mov x0, x20",
    "blr x19",
    "2:",
    "ldp x19, x20, [sp, #16]",
    "ldp x29, x30, [sp], #32",
    "ret",
    ".popsection",
);

/// Longer than the C library's `sigjmp_buf`.
#[repr(C, align(16))]
struct Buffer([u64; 64]);

unsafe extern "C" {
    fn pcmap_bench_protected(buffer: *mut Buffer, guest: Guest, address: *const u64) -> usize;
    fn siglongjmp(buffer: *mut Buffer, value: c_int) -> !;
}

/// Where the one thread that is measured comes back to.
static BUFFER: AtomicPtr<Buffer> = AtomicPtr::new(ptr::null_mut());

extern "C" fn jump(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the guest was called by `protected`, which has not returned; between it and the fault
    // there is nothing but the guest.
    unsafe { siglongjmp(BUFFER.load(Relaxed), 1) }
}

/// How a guest is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// Without a way back.
    Plain,
    Jump,
    Activation,
}

/// A guest in a process with so many modules, and a thread that is prepared to run it.
#[derive(Debug)]
pub(crate) struct Process {
    guest: Guest,
    thread: GuestThread,
    _handler: TrapHandler,
    _modules: Vec<EngineCode>,
}

impl Process {
    /// # Errors
    ///
    /// What could not be set up.
    pub(crate) fn with_modules(n: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let handler = TrapHandler::install(TrapOptions::new())?;
        let thread = GuestThread::prepare(&handler)?;
        let text = guest::text();
        let mut image = CodeImage::builder(text.to_vec());
        image.function(FuncKey::new(0, 0), 0..text.len(), "load")?.trap(0_u32, TrapCode::new(1))?;
        let (image, engine) = (image.finish()?, Engine::new(EngineConfig::new())?);
        let mut modules = Vec::with_capacity(n);
        for _ in 0..n {
            modules.push(EngineCode::load(&engine, image.clone())?);
        }
        let start = modules[n / 2].text_range().start.as_ptr();
        // SAFETY: the text is such a function.
        let guest = unsafe { mem::transmute::<*const u8, Guest>(start) };
        Ok(Self { guest, thread, _handler: handler, _modules: modules })
    }

    /// Nanoseconds for a call of the guest, which faults if the address cannot be read.
    ///
    /// # Errors
    ///
    /// What the system says about the handler.
    ///
    /// # Panics
    ///
    /// If not all of them end the same way.
    pub(crate) fn call(&self, way: Way, address: *const u64, calls: usize) -> Result<f64, Error> {
        let mut buffer = Buffer([0; 64]);
        BUFFER.store(&mut buffer, Relaxed);
        let handler = (jump as *const ()).addr();
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let before = matches!(way, Way::Jump).then(|| handle_with(handler, flags)).transpose()?;
        let began = Instant::now();
        let mut faulted = 0;
        for _ in 0..calls {
            let guest = black_box(self.guest);
            faulted += match way {
                // SAFETY: the callers give an address that can be read.
                Way::Plain => unsafe { guest(address) },
                // SAFETY: the buffer is the one that the handler jumps to.
                Way::Jump => unsafe { pcmap_bench_protected(&mut buffer, guest, address) },
                Way::Activation => self
                    .thread
                    // SAFETY: (`call`) 1. kept by `self`; 2. to 4. it calls nothing.
                    .catch_traps(|activation| unsafe { activation.call(guest, (address,)) })
                    .unwrap_or_else(|trap| usize::from(black_box(trap).signal().is_some())),
            };
        }
        let elapsed = began.elapsed();
        if let Some(before) = before {
            // SAFETY: what was there before is whole.
            unsafe { libc::sigaction(libc::SIGSEGV, &before, ptr::null_mut()) };
        }
        assert!(faulted == 0 || faulted == calls, "{faulted} of {calls} faulted");
        Ok(elapsed.as_nanos() as f64 / calls as f64)
    }
}
