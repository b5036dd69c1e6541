#![expect(unsafe_code, reason = "calls the handlers that were there before")]
//! Faults that are nobody's here go to the handler that was installed before, as the kernel would
//! have called it: with its signature, its mask and its flags.
//!
//! One thing cannot be had: the stack. A previous handler without `SA_ONSTACK` runs on the
//! alternate stack all the same, because this one does.

use super::activation::FAULTS;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What was installed for one signal.
struct Previous {
    /// Set before this handler is installed, so a handler that looks finds it without waiting.
    action: OnceLock<libc::sigaction>,
    /// `SA_RESETHAND`: it has had its one call.
    spent: AtomicBool,
}

static PREVIOUS: [Previous; FAULTS.len()] =
    [const { Previous { action: OnceLock::new(), spent: AtomicBool::new(false) } }; FAULTS.len()];

fn previous_of(signal: c_int) -> Option<&'static Previous> {
    FAULTS.iter().zip(&PREVIOUS).find(|((known, _), _)| *known == signal).map(|(_, found)| found)
}

/// Notes what is installed for `signal`.
///
/// # Errors
///
/// What the system says.
pub(crate) fn remember(signal: c_int) -> Result<(), Error> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: installs nothing, and writes the old action where there is room for it.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: written by the successful call.
    let action = unsafe { action.assume_init() };
    if let Some(previous) = previous_of(signal) {
        previous.action.get_or_init(|| action);
    }
    Ok(())
}

/// Whether a signal with this `si_code` reports a fault; processes send codes that are not
/// positive.
pub(crate) fn is_from_kernel(code: c_int) -> bool {
    code > 0
}

/// Treats the signal as if this program's handler had never been. Signal-safe as far as the
/// previous handler is.
///
/// # Safety
///
/// In a handler of `signal`, with what the kernel gave it.
pub(crate) unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's.
    let code = unsafe { (*info).si_code };
    let previous = previous_of(signal);
    let action = previous.and_then(|previous| previous.action.get());
    let handler = action.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    match (handler, action, previous) {
        // A signal that somebody sent can be ignored; a fault cannot, and kills.
        (libc::SIG_IGN, ..) if !is_from_kernel(code) => {}
        (libc::SIG_DFL | libc::SIG_IGN, ..) | (_, None, _) | (_, _, None) => {
            take_default_action(signal, code);
        }
        (_, Some(action), Some(previous)) => {
            let once = action.sa_flags & libc::SA_RESETHAND != 0;
            if once && previous.spent.swap(true, Relaxed) {
                take_default_action(signal, code);
            } else {
                // SAFETY: a handler the system accepted for this signal; the rest is the caller's.
                unsafe { call(action, signal, info, context) };
            }
        }
    }
}

/// Restores the default action. A fault then happens again, at the same instruction, and ends the
/// process with everything as it was; a signal that was sent is sent again.
fn take_default_action(signal: c_int, code: c_int) {
    // SAFETY: all zero is the default action.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: whole, and installs no code.
    unsafe { libc::sigaction(signal, &default, ptr::null_mut()) };
    if !is_from_kernel(code) {
        // SAFETY: may be called in handlers. The signal is blocked until this one returns.
        unsafe { libc::raise(signal) };
    }
}

/// Calls the handler of `action` under the mask that it would have had.
///
/// # Safety
///
/// As [`pass_on`], and `action` is a handler that was installed for `signal`.
unsafe fn call(
    action: &libc::sigaction,
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // SAFETY: the kernel's.
    let mut mask = unsafe { interrupted_mask(context) };
    let blocks_itself = action.sa_flags & libc::SA_NODEFER == 0;
    for other in 1..=SIGNALS {
        // SAFETY: asks about a signal that exists.
        let listed = unsafe { libc::sigismember(&action.sa_mask, other) } == 1;
        if listed || (other == signal && blocks_itself) {
            // SAFETY: adds a signal that exists to a set that is ours.
            unsafe { libc::sigaddset(&mut mask, other) };
        }
    }
    let mut ours = mask;
    // SAFETY: two sets of ours; a handler may change the thread's mask.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mask, &mut ours) };
    if action.sa_flags & libc::SA_SIGINFO != 0 {
        type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: installed with the flag that says it has this signature.
        let handler = unsafe { mem::transmute::<usize, Handler>(action.sa_sigaction) };
        // SAFETY: called as the kernel would.
        unsafe { handler(signal, info, context) };
    } else {
        type Handler = unsafe extern "C" fn(c_int);
        // SAFETY: installed without the flag, so it has the plain signature.
        let handler = unsafe { mem::transmute::<usize, Handler>(action.sa_sigaction) };
        // SAFETY: called as the kernel would.
        unsafe { handler(signal) };
    }
    // SAFETY: what was in force when this began.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &ours, ptr::null_mut()) };
}

/// How many signals the kernel knows.
const SIGNALS: c_int = 64;

/// The mask of the interrupted code: what the kernel adds a handler's own mask to. Only as much as
/// the kernel wrote: its set is shorter than the C library's.
///
/// # Safety
///
/// `context` is what the kernel gave the handler.
unsafe fn interrupted_mask(context: *mut c_void) -> libc::sigset_t {
    // SAFETY: all zero is the empty set.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    let context: *const libc::ucontext_t = context.cast();
    // SAFETY: in the kernel's frame; only the address is taken.
    let saved = unsafe { &raw const (*context).uc_sigmask };
    let bytes = SIGNALS as usize / 8;
    // SAFETY: both are at least that long, and apart.
    unsafe { ptr::copy_nonoverlapping(saved.cast::<u8>(), (&raw mut mask).cast(), bytes) };
    mask
}
