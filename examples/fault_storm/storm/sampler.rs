#![expect(unsafe_code, reason = "a signal handler")]
//! A sampling profiler: each thread is interrupted some thousands of times a second, wherever it
//! is, and the handler looks up what was running.
//!
//! Each thread has its own timer. The process-wide profiling timer (`setitimer`) advances with the
//! scheduler's tick, a few hundred times a second; these are as fast as they are asked to be.

use super::activation::Activation;
use super::interrupted::Interrupted;
use super::module::explain;
use super::{host_text, machine};
use pcmap::registry::process_code_map;
use std::ffi::{c_int, c_void};
use std::io::Error;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::available_parallelism;
use std::time::Duration;
use std::{mem, ptr};

/// The time between a core's samples, if each of its threads took its turn.
const PERIOD: Duration = Duration::from_micros(61);

/// What each of so many threads' timers should be set to: more threads than cores must not mean
/// more signals than a core can take.
pub(crate) fn period(threads: usize) -> Duration {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    PERIOD * threads.div_ceil(cores) as u32
}

/// Where samples hit.
#[derive(Debug)]
pub(crate) struct Samples {
    /// In a guest, and the map knew it.
    pub(crate) in_guest: AtomicU64,
    /// In a fault's handler.
    pub(crate) in_handler: AtomicU64,
    /// Anywhere else.
    pub(crate) elsewhere: AtomicU64,
    /// In a guest, and the map did not find it.
    pub(crate) missed: AtomicU64,
    /// In a guest, and what the map found was not what ran.
    pub(crate) astray: AtomicU64,
}

pub(crate) static SAMPLES: Samples = Samples {
    in_guest: AtomicU64::new(0),
    in_handler: AtomicU64::new(0),
    elsewhere: AtomicU64::new(0),
    missed: AtomicU64::new(0),
    astray: AtomicU64::new(0),
};

/// Installs the handler.
///
/// # Errors
///
/// What the system says.
pub(crate) fn install() -> Result<(), Error> {
    // SA_SIGINFO, SA_ONSTACK: as for faults; the guest's stack is not ours to use.
    // SA_RESTART: no system call of the program shall notice.
    // No SA_NODEFER: samples of samples teach nothing, and a slow machine would drown in them.
    set_action(
        (on_sample as *const ()).addr(),
        libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART,
    )
}

/// Ignores the signal: for when no timer is left, and one of its signals may be.
pub(crate) fn retire() -> Result<(), Error> {
    set_action(libc::SIG_IGN, 0)
}

fn set_action(handler: usize, flags: c_int) -> Result<(), Error> {
    // SAFETY: all zero is a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the action is whole, and the handler does only what a handler may.
    match unsafe { libc::sigaction(libc::SIGPROF, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Signal-safe: a lookup, loads and additions.
extern "C" fn on_sample(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's, and gone before the handler returns.
    let interrupted = unsafe { Interrupted::from_handler(context) };
    let pc = interrupted.pc();
    let began = machine::ticks();
    let found = process_code_map()
        .lookup(pc, |hit| (explain(hit.value(), hit.offset()), hit.range().contains(pc)));
    let took = machine::ticks().wrapping_sub(began);
    let in_handler = interrupted.in_handler();
    let thread = Activation::of_thread();
    let running = thread.and_then(Activation::running);
    let counter = match (found, running) {
        (Some((found, contained)), Some(running)) if !in_handler => {
            let right = contained && found.place.is_some_and(|(module, ..)| module == running);
            if right { &SAMPLES.in_guest } else { &SAMPLES.astray }
        }
        // Nobody runs a guest but through an activation, and no handler does.
        (Some(_), _) => &SAMPLES.astray,
        (None, _) if in_handler => &SAMPLES.in_handler,
        (None, _) if host_text::contains(pc) => &SAMPLES.elsewhere,
        // It is code, and nobody knows it.
        (None, _) => &SAMPLES.missed,
    };
    counter.fetch_add(1, Relaxed);
    if let Some(thread) = thread {
        thread.lookups.record(took);
    }
}
