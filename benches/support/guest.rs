#![expect(unsafe_code, reason = "assembly, system calls, signal handlers")]
//! Code that faults, and handlers that send it on.

use pcmap::CodeMap;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::ops::Range;
use std::time::Instant;
use std::{mem, ptr};

/// Where code resumes that faults in a range.
pub(crate) static CODE: CodeMap<usize> = CodeMap::new();

// A load; where it would go on; where it goes on after a fault.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .text.pcmap_bench_guest, \"ax\", @progbits",
    ".balign 64",
    ".globl pcmap_bench_load",
    ".hidden pcmap_bench_load",
    "pcmap_bench_load:",
    ".cfi_startproc",
    "mov rax, [rdi]",
    "xor eax, eax",
    "ret",
    ".globl pcmap_bench_resumed",
    ".hidden pcmap_bench_resumed",
    "pcmap_bench_resumed:",
    "mov eax, 1",
    "ret",
    ".cfi_endproc",
    ".globl pcmap_bench_end",
    ".hidden pcmap_bench_end",
    "pcmap_bench_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".pushsection .text.pcmap_bench_guest, \"ax\", @progbits",
    ".balign 64",
    ".globl pcmap_bench_load",
    ".hidden pcmap_bench_load",
    "pcmap_bench_load:",
    ".cfi_startproc",
    "ldr x0, [x0]",
    "mov x0, #0",
    "ret",
    ".globl pcmap_bench_resumed",
    ".hidden pcmap_bench_resumed",
    "pcmap_bench_resumed:",
    "mov x0, #1",
    "ret",
    ".cfi_endproc",
    ".globl pcmap_bench_end",
    ".hidden pcmap_bench_end",
    "pcmap_bench_end:",
    ".popsection",
);

unsafe extern "C" {
    /// One if it resumed after a fault.
    fn pcmap_bench_load(address: *const u64) -> usize;
    fn pcmap_bench_resumed();
    fn pcmap_bench_end();
}

/// The guest's addresses.
pub(crate) fn code() -> Range<usize> {
    (pcmap_bench_load as *const ()).addr()..(pcmap_bench_end as *const ()).addr()
}

/// Its instructions, up to where it resumes after a fault: a function that runs anywhere.
pub(crate) fn text() -> &'static [u8] {
    let start = pcmap_bench_load as *const u8;
    // SAFETY: text of this program, which stays.
    unsafe { std::slice::from_raw_parts(start, resumption() - start.addr()) }
}

/// Where it is to resume.
pub(crate) fn resumption() -> usize {
    (pcmap_bench_resumed as *const ()).addr()
}

/// What a handler does about a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handler {
    /// It resumes, whatever faulted.
    ResumeOnly,
    /// It looks up what faulted, and resumes where the map says.
    LookUp,
}

type Action = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

extern "C" fn resume_only(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, for as long as the handler runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    *pc(context) = resumption() as _;
}

extern "C" fn look_up(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, for as long as the handler runs.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let pc = pc(context);
    match CODE.lookup(*pc as usize, |hit| *hit.value()) {
        Some(resumption) => *pc = resumption as _,
        // Not the guest's: a fault to die of, as soon as this returns.
        None => drop(handle_with(libc::SIG_DFL, 0)),
    }
}

#[cfg(target_arch = "x86_64")]
fn pc(context: &mut libc::ucontext_t) -> &mut i64 {
    &mut context.uc_mcontext.gregs[libc::REG_RIP as usize]
}

#[cfg(target_arch = "aarch64")]
fn pc(context: &mut libc::ucontext_t) -> &mut u64 {
    &mut context.uc_mcontext.pc
}

/// Changes what is done about SIGSEGV; the action that was there before.
pub(crate) fn handle_with(
    handler: libc::sighandler_t,
    flags: c_int,
) -> Result<libc::sigaction, Error> {
    // SAFETY: all zero is a valid action (default, no flags, empty mask).
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    let mut before = action;
    // SAFETY: the action is whole, and its handler does only what a handler may.
    if unsafe { libc::sigaction(libc::SIGSEGV, &action, &mut before) } != 0 {
        return Err(Error::last_os_error());
    }
    Ok(before)
}

/// A page that may not be read.
#[derive(Debug)]
pub(crate) struct ForbiddenPage(pub(crate) *const u64);

impl ForbiddenPage {
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn map() -> Result<Self, Error> {
        const PAGE: usize = 4096;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, at a place of the system's choice; it stays until the process ends.
        let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, libc::PROT_NONE, flags, -1, 0) };
        if page == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self(page.cast())) }
    }

    /// Nanoseconds from each fault to its resumption, and the call around it.
    ///
    /// # Errors
    ///
    /// What the system says about the handler.
    ///
    /// # Panics
    ///
    /// If a load did not fault.
    pub(crate) fn fault(&self, handler: Handler, faults: usize) -> Result<f64, Error> {
        let action: Action = match handler {
            Handler::ResumeOnly => resume_only,
            Handler::LookUp => look_up,
        };
        let before = handle_with((action as *const ()).addr(), libc::SA_SIGINFO)?;
        let began = Instant::now();
        let mut resumed = 0;
        for _ in 0..faults {
            // SAFETY: it does nothing but fault, and a handler is installed that resumes it.
            resumed += unsafe { pcmap_bench_load(self.0) };
        }
        let elapsed = began.elapsed();
        // SAFETY: what was there before is whole.
        unsafe { libc::sigaction(libc::SIGSEGV, &before, ptr::null_mut()) };
        assert_eq!(resumed, faults, "every load faults");
        Ok(elapsed.as_nanos() as f64 / faults as f64)
    }
}
