//! Every instruction of every call: looked at, held, stopped for ever, and forked.
//!
//! The processor's trap flag makes a thread take a SIGTRAP after each of its instructions
//! ([`trap`]). So between any two instructions of a call (a *boundary*) a handler runs on the
//! thread that makes the call, and there the tests do what signals, schedulers and `fork` do to
//! real programs at moments nobody chose:
//!
//! - [`signals`]: the handler looks up what is registered, being registered, and not;
//! - [`held`]: the thread is held, or stopped for ever, while others write to the same map;
//! - [`forks`]: the process forks; the child goes on with the map, or with the very call.
//!
//! Which calls on which maps: [`call`] and [`site`]. All of it once more for the calls that load code
//! into engines and stores: `registry`. With `PCMAP_LONG=1` in the environment the
//! last two visit many more boundaries.
//!
//! x86-64 Linux only: elsewhere there is no trap flag that a program could set for itself.

/// A check in a child of `fork`: where it stands becomes the exit status.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            crate::children::leave(crate::children::status_for(line!()));
        }
    };
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod allocator;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod call;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod forks;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod futex;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod held;
#[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "registry"))]
mod registry;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod signals;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod site;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trap;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod watch;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../children/mod.rs"]
mod children;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "../tracked/mod.rs"]
mod tracked;

/// Whether the long version was asked for.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn is_long() -> bool {
    std::env::var_os("PCMAP_LONG").is_some_and(|value| value != "0")
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[test]
fn skipped() {
    println!("skipped: single-stepping a thread from inside is for x86-64 Linux");
}
