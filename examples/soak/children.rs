#![expect(unsafe_code, reason = "fork, and ending children")]
//! Children of this busy process, which look up, register, unregister, take out garbage and run guests
//! that trap. A child says what it found by its exit status.

use crate::batches::{Counted, Map};
use crate::tally::{Tally, count};
use crate::trap_guests::Guests;
use pcmap::CodeMap;
use pcmap::registry::{TrapCode, process_code_map};
use pcmap::trap::{Cause, GuestThread};
use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seconds after which a child is taken to hang: an alarm ends it.
const PATIENCE: libc::c_uint = 120;
/// The exit status of a child that panicked; other checks have lower ones.
const PANICKED: i32 = 99;

/// Forks a child, waits for it, and notes what it says.
pub(crate) fn step(tally: &Tally, thread: &GuestThread, guests: &Guests, busy: &Map) {
    // SAFETY: the child of this process with many threads goes on with what glibc keeps usable after a
    // fork (memory allocation), the crate, and `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::alarm(PATIENCE) };
        let status = catch_unwind(AssertUnwindSafe(|| match child(thread, guests, busy) {
            Ok(()) => 0,
            Err(check) => check,
        }))
        .unwrap_or(PANICKED);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(status) }
    }
    if pid < 0 {
        return tally.check(false, || format!("fork: {}", Error::last_os_error()));
    }
    let mut status = 0;
    loop {
        // SAFETY: our child, and room for the answer.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if waited == pid {
            break;
        }
        if Error::last_os_error().kind() != ErrorKind::Interrupted {
            return tally.check(false, || format!("waitpid: {}", Error::last_os_error()));
        }
    }
    tally.check(status == 0, || format!("a child ended with status {status:#x}"));
    if status == 0 {
        count(&tally.children);
    }
}

/// What a child does: the number of a check that failed, if one did.
fn child(thread: &GuestThread, guests: &Guests, busy: &Map) -> Result<(), i32> {
    let ensure = |holds: bool, check: i32| if holds { Ok(()) } else { Err(check) };

    // Code of before the fork: found, and it traps.
    let code = guests.code.text_range();
    let len = process_code_map().lookup(code.start, |hit| hit.range().len());
    ensure(len == code.end.address().checked_sub(code.start.address()), 1)?;
    let trap = guests.run(thread, "load", [8, 0, 0]).err();
    ensure(trap.is_some_and(|trap| trap.cause() == Cause::Code(TrapCode::new(1))), 2)?;
    ensure(guests.run(thread, "add", [1, 2, 3]).ok() == Some(6), 3)?;

    // The map that others were writing to, where none of them writes.
    let start = 0x1000;
    let registered = busy.register(start..start + 0x100, Counted::new(start)).map_err(|_| 4)?;
    ensure(busy.lookup(start, |hit| hit.offset()) == Some(0), 5)?;
    ensure(busy.register(start..start + 1, Counted::new(start)).is_err(), 6)?;
    registered.unregister().wait();
    ensure(busy.lookup(start, |_| ()).is_none(), 7)?;
    busy.synchronize();

    // Code of after the fork.
    drop(Guests::load());
    process_code_map().synchronize();
    let shown = process_code_map().snapshot().expect("memory");
    let found = |pc| process_code_map().lookup(pc, |hit| hit.range().start());
    let agree = shown.iter().all(|code| found(code.range().start()) == Some(code.range().start()));
    ensure(agree && !shown.is_empty(), 8)?;

    // A map of its own, of which nothing is left.
    let own = CodeMap::new();
    drop(own.register_all((1..200).map(|i| (i * 64..(i + 1) * 64, i))).map_err(|_| 9)?);
    own.synchronize();
    ensure((own.stats().entries, own.stats().retired) == (0, 0), 10)
}
