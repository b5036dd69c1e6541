#![expect(unsafe_code, reason = "a frame that the unwinder asks what it catches")]
//! Catching panics, and letting everything else that unwinds go on: `std::panic::catch_unwind` ends the process
//! when a thread that ends (`pthread_exit`, `pthread_cancel`) unwinds through it.
//!
//! The frame of `enter` answers the unwinder itself (Itanium C++ ABI, "Exception Handling", level I): it catches
//! whatever looks for a handler, which a thread that ends does not. What it caught is thrown once more, at once,
//! in `catch_unwind`, which knows panics.

use core::any::Any;
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

unsafe extern "C-unwind" {
    fn _Unwind_RaiseException(exception: *mut c_void) -> c_int;
    fn _Unwind_SetGR(context: *mut c_void, register: c_int, value: usize);
    fn _Unwind_SetIP(context: *mut c_void, to: usize);
}

/// Runs `body`; gives its panic, if it panics.
pub(crate) fn catch_panic<R>(body: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    let mut call = Call { body: Some(body), result: MaybeUninit::uninit() };
    // SAFETY: (`enter`) 1. it gets what it asks for.
    let caught = unsafe { enter(call_body(&call), (&raw mut call).cast()) };
    if caught.is_null() {
        // SAFETY: the call has returned, so it is written.
        return Ok(unsafe { call.result.assume_init() });
    }
    // SAFETY: what has looked for a handler, and is not destroyed yet.
    let panic = catch_unwind(AssertUnwindSafe(|| unsafe { _Unwind_RaiseException(caught) }));
    Err(panic.map_or_else(|panic| panic, |_| std::process::abort()))
}

struct Call<F, R> {
    body: Option<F>,
    result: MaybeUninit<R>,
}

fn call_body<F: FnOnce() -> R, R>(_: &Call<F, R>) -> unsafe extern "C-unwind" fn(*mut c_void) {
    /// # Safety
    ///
    /// 1. `call` is one of these types, for this call alone.
    unsafe extern "C-unwind" fn body<F: FnOnce() -> R, R>(call: *mut c_void) {
        // SAFETY: by 1.
        let call = unsafe { &mut *call.cast::<Call<F, R>>() };
        if let Some(body) = call.body.take() {
            call.result.write(body());
        }
    }
    body::<F, R>
}

/// Calls `body(data)`. Returns null; or what looked for a handler.
///
/// # Safety
///
/// 1. `body` may be called with `data`.
#[unsafe(naked)]
unsafe extern "C-unwind" fn enter(
    body: unsafe extern "C-unwind" fn(*mut c_void),
    data: *mut c_void,
) -> *mut c_void {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        ".cfi_startproc",
        ".cfi_personality 0x9b, {personality}",
        "endbr64",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "xor eax, eax",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
        personality = sym PERSONALITY,
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        ".cfi_startproc",
        ".cfi_personality 0x9b, {personality}",
        "hint #34",
        "stp x29, x30, [sp, #-16]!",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "mov x29, sp",
        "mov x9, x0",
        "mov x0, x1",
        "blr x9",
        "mov x0, #0",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
        personality = sym PERSONALITY,
    );
}

/// How `enter` goes on when it has caught: as behind its call, with what was caught for its result.
///
/// # Safety
///
/// 1. Not to be called: the stack and the frame pointer are those of `enter`.
#[unsafe(naked)]
unsafe extern "C" fn caught() {
    #[cfg(target_arch = "x86_64")]
    naked_asm!(
        ".cfi_startproc",
        ".cfi_def_cfa rsp, 16",
        ".cfi_offset rbp, -16",
        "endbr64",
        "pop rbp",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
    );
    #[cfg(target_arch = "aarch64")]
    naked_asm!(
        ".cfi_startproc",
        ".cfi_def_cfa sp, 16",
        ".cfi_offset x29, -16",
        ".cfi_offset x30, -8",
        "hint #36",
        "ldp x29, x30, [sp], #16",
        ".cfi_def_cfa_offset 0",
        ".cfi_restore x29",
        ".cfi_restore x30",
        "ret",
        ".cfi_endproc",
    );
}

type Personality =
    unsafe extern "C-unwind" fn(c_int, c_int, u64, *mut c_void, *mut c_void) -> c_int;

/// Where the unwinder finds what to ask.
static PERSONALITY: Personality = personality;

/// What the unwinder asks about the frame of `enter`.
///
/// # Safety
///
/// 1. Called by the unwinder, of that frame.
unsafe extern "C-unwind" fn personality(
    _version: c_int,
    actions: c_int,
    _class: u64,
    exception: *mut c_void,
    context: *mut c_void,
) -> c_int {
    /// `_UA_SEARCH_PHASE`, `_UA_HANDLER_FRAME`.
    const SEARCHES: c_int = 1;
    const HANDLES: c_int = 4;
    /// `_URC_HANDLER_FOUND`, `_URC_INSTALL_CONTEXT`, `_URC_CONTINUE_UNWIND`.
    const FOUND: c_int = 6;
    const INSTALL: c_int = 7;
    const CONTINUE: c_int = 8;
    /// The register of results, in the numbers of DWARF: rax, x0.
    const RESULT: c_int = 0;
    if actions & SEARCHES != 0 {
        return FOUND;
    }
    if actions & HANDLES == 0 {
        return CONTINUE;
    }
    // SAFETY: by 1.
    unsafe { _Unwind_SetGR(context, RESULT, exception.expose_provenance()) };
    // SAFETY: by 1.
    unsafe { _Unwind_SetIP(context, caught as *const () as usize) };
    INSTALL
}

#[cfg(test)]
mod tests {
    use super::catch_panic;

    #[test]
    fn results_and_panics() {
        assert_eq!(catch_panic(|| "a result".to_owned()).expect("no panic"), "a result");
        for number in 0..100 {
            let dropped = std::rc::Rc::new(());
            let held = dropped.clone();
            let caught = catch_panic(move || {
                let _held = held;
                std::panic::resume_unwind(Box::new(number))
            });
            let panic: Box<dyn core::any::Any + Send> =
                caught.map(|it: ()| it).expect_err("it panics");
            assert_eq!(panic.downcast_ref(), Some(&number));
            assert_eq!(std::rc::Rc::strong_count(&dropped), 1);
            assert!(!std::thread::panicking());
        }
        // One in another, and one that is caught on the way.
        let caught = catch_panic(|| {
            let inside = catch_panic(|| std::panic::resume_unwind(Box::new(1)));
            let inside: Result<(), _> = inside;
            inside.expect_err("it panics");
            std::panic::resume_unwind(Box::new(2))
        });
        let caught: Result<(), _> = caught;
        assert_eq!(caught.expect_err("it panics").downcast_ref(), Some(&2));
    }
}
