//! Touching the stack at a host function's first instructions, before it has anything there.

/// The first instructions of a host function: they touch the stack below it, so far as what it needs up to
/// [`host_call`](crate::trap::host_call()) and that itself.
///
/// If the guest that calls has left less, it ends by a stack overflow
/// ([`Cause::StackOverflow`](crate::trap::Cause::StackOverflow)). Without them the host function faults in its own
/// first instructions, where that is nobody's trap, and the process ends. They are for guests that are not
/// compiled to compare their stack pointer, and are not trusted.
///
/// It is text for an assembler, of a naked function that goes on as the host function:
///
/// ```
/// # use pcmap::trap::{GuestThread, TrapHandler, TrapOptions, host_call};
/// # let handler = TrapHandler::install(TrapOptions::new())?;
/// // What the guest is given to call:
/// #[unsafe(naked)]
/// unsafe extern "C" fn fetch(index: u64) -> u64 {
///     # #[cfg(target_arch = "aarch64")]
///     # core::arch::naked_asm!(pcmap::stack_probe!(), "b {}", sym fetch_safely);
///     # #[cfg(target_arch = "x86_64")]
///     core::arch::naked_asm!(pcmap::stack_probe!(), "jmp {}", sym fetch_safely);
/// }
/// unsafe extern "C" fn fetch_safely(index: u64) -> u64 {
///     // SAFETY: there is nothing here beside the body.
///     unsafe { host_call(|| [3, 4, 5][index as usize]) }
/// }
/// let thread = GuestThread::prepare(&handler)?;
/// // SAFETY: any of three numbers will do; nothing is left behind.
/// let result = thread.catch_traps(|activation| unsafe {
///     activation.call(fetch as unsafe extern "C" fn(u64) -> u64, (1,))
/// });
/// assert_eq!(result.unwrap(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Four pages of 4 KiB are touched. Registers of arguments stay; the flags, and on AArch64 `x16`, do not. No
/// other function may have these instructions behind something that it has put on the stack: the handler knows
/// by them that there is nothing.
///
/// **Cost**: four loads. **Errors, panics**: none. **Signal-safe**: yes.
#[cfg(target_arch = "x86_64")]
#[macro_export]
macro_rules! stack_probe {
    () => {
        "test byte ptr [rsp - 0x1000], al
        test byte ptr [rsp - 0x2000], al
        test byte ptr [rsp - 0x3000], al
        test byte ptr [rsp - 0x4000], al"
    };
}

/// The first instructions of a host function: see the documentation for x86-64.
#[cfg(target_arch = "aarch64")]
#[macro_export]
macro_rules! stack_probe {
    () => {
        "sub x16, sp, #0x1000
        ldr xzr, [x16]
        sub x16, sp, #0x2000
        ldr xzr, [x16]
        sub x16, sp, #0x3000
        ldr xzr, [x16]
        sub x16, sp, #0x4000
        ldr xzr, [x16]"
    };
}
