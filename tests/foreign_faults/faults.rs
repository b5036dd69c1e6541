#![expect(unsafe_code, reason = "faults on purpose")]
//! Faults in host code, in guests where the tables know of none, in handlers, on other threads; and
//! signals that are sent.

use crate::compare::Ends::{By, Well};
use crate::compare::Scenario;
use crate::stage::Stage;
use pcmap::trap::host_call;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{mem, ptr};

const fn scenario(name: &'static str, run: fn(&Stage), ends: crate::compare::Ends) -> Scenario {
    Scenario { name, run, ends }
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario("null_dereference_in_host_code", in_host_code, By(libc::SIGSEGV)),
    scenario("guest_at_an_offset_without_an_entry", without_an_entry, By(libc::SIGSEGV)),
    scenario("host_function_that_a_guest_called", in_host_function, By(libc::SIGSEGV)),
    scenario("host_call_that_a_guest_called", in_host_call, By(libc::SIGSEGV)),
    scenario("handler_that_faults", in_other_handler, By(libc::SIGSEGV)),
    scenario("fault_handler_that_faults", in_fault_handler, By(libc::SIGSEGV)),
    scenario("thread_without_a_guest", other_thread, By(libc::SIGSEGV)),
    scenario("thread_that_never_prepared", unprepared_thread, By(libc::SIGSEGV)),
    scenario("thread_of_a_child_in_a_lost_one's_place", lost_place, Well),
    scenario("guest_without_an_activation", without_activation, By(libc::SIGSEGV)),
    scenario("guest_of_a_host_call_without_an_activation", from_host_call, By(libc::SIGSEGV)),
    scenario("breakpoint_in_host_code", breakpoint, By(libc::SIGTRAP)),
    scenario("illegal_instruction_in_host_code", illegal, By(libc::SIGILL)),
    // The standard library tells that, and aborts.
    scenario("stack_overflow_in_host_code", host_overflow, By(libc::SIGABRT)),
    scenario("wild_access_to_the_guard_of_the_stack", wild_access, By(libc::SIGABRT)),
    scenario("overflow_on_the_first_thread", first_thread_overflow, Well),
    scenario("sent_sigsegv", |stage| sent(stage, libc::SIGSEGV), By(libc::SIGSEGV)),
    scenario("sent_sigbus", |stage| sent(stage, libc::SIGBUS), By(libc::SIGBUS)),
    scenario("sent_sigill", |stage| sent(stage, libc::SIGILL), By(libc::SIGILL)),
    scenario("sent_sigfpe", |stage| sent(stage, libc::SIGFPE), By(libc::SIGFPE)),
    scenario("sent_sigtrap", |stage| sent(stage, libc::SIGTRAP), By(libc::SIGTRAP)),
    scenario("sent_and_ignored", ignored, Well),
    scenario("reported_and_ignored", reported_and_ignored, Well),
    scenario("fault_while_ignored", fault_while_ignored, By(libc::SIGSEGV)),
];

/// One instruction, wherever it is called from.
#[inline(never)]
pub(crate) fn dereference_null() {
    let null = black_box(ptr::null_mut::<u8>());
    // SAFETY: none: this is the fault.
    unsafe { null.write_volatile(1) };
}

fn in_host_code(stage: &Stage) {
    stage.install();
    dereference_null();
}

fn without_an_entry(stage: &Stage) {
    stage.install();
    stage.call("unknown", [0; 3]);
}

unsafe extern "C" fn faults(_: i64, _: i64, _: i64) -> i64 {
    dereference_null();
    0
}

fn in_host_function(stage: &Stage) {
    stage.install();
    stage.call("call", [faults as *const () as i64, 0, 0]);
}

unsafe extern "C" fn faults_in_host_call(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
    unsafe { host_call(dereference_null) };
    0
}

fn in_host_call(stage: &Stage) {
    stage.install();
    stage.call("call", [faults_in_host_call as *const () as i64, 0, 0]);
}

extern "C" fn faulty_handler(_: libc::c_int) {
    println!("in the handler");
    dereference_null();
}

pub(crate) fn set_handler(signal: libc::c_int, handler: usize) {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    // SAFETY: a handler, or a disposition.
    assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
}

unsafe extern "C" fn raises(_: i64, _: i64, _: i64) -> i64 {
    // SAFETY: has no preconditions.
    unsafe { libc::raise(libc::SIGUSR1) };
    0
}

fn in_other_handler(stage: &Stage) {
    set_handler(libc::SIGUSR1, faulty_handler as *const () as usize);
    stage.install();
    stage.call("call", [raises as *const () as i64, 0, 0]);
}

fn in_fault_handler(stage: &Stage) {
    set_handler(libc::SIGSEGV, faulty_handler as *const () as usize);
    stage.install();
    dereference_null();
}

fn other_thread(stage: &Stage) {
    stage.install();
    std::thread::spawn(dereference_null).join().expect("no panic");
}

/// A guest where the table has an entry, on a thread that handlers do not know.
fn unprepared_thread(stage: &Stage) {
    stage.install();
    let guest = stage.guests.guest("load");
    // SAFETY: none: this faults.
    std::thread::spawn(move || unsafe { guest(0, 0, 0) }).join().expect("no panic");
}

/// A process forks while another of its threads is in a guest. A thread of the child gets the memory of that
/// one, and is not taken for it.
fn lost_place(stage: &Stage) {
    extern "C" fn passed_on(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel's.
        let info = unsafe { &*info };
        // SAFETY: of a fault.
        println!("passed on, of an access to {:?}", unsafe { info.si_addr() });
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    static INSIDE: AtomicBool = AtomicBool::new(false);
    unsafe extern "C" fn stays(_: i64, _: i64, _: i64) -> i64 {
        INSIDE.store(true, Relaxed);
        loop {
            std::thread::park();
        }
    }
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = passed_on as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a handler that ends the process.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
    stage.install();
    let with_traps = stage.with_traps;
    std::thread::spawn(move || {
        let stage = Stage::new(with_traps);
        stage.install();
        stage.call("call", [stays as *const () as i64, 0, 0]);
    });
    while !INSIDE.load(Relaxed) {
        std::thread::yield_now();
    }
    // SAFETY: the child's threads take no lock that the other one may hold.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let guest = stage.guests.guest("load");
        // SAFETY: none: this faults.
        let _ = std::thread::spawn(move || unsafe { guest(8, 0, 0) }).join();
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
    let mut status = 0;
    // SAFETY: a child of ours, and room for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    println!("child: {status}");
    // The thread that stays does not keep the process.
    std::process::exit(0);
}

fn without_activation(stage: &Stage) {
    stage.install();
    stage.call_directly("load", [0; 3]);
}

unsafe extern "C" fn calls_directly(guest: i64, _: i64, _: i64) -> i64 {
    let guest = ptr::with_exposed_provenance::<u8>(guest as usize);
    let call = || {
        // SAFETY: a guest.
        let guest = unsafe { mem::transmute::<*const u8, crate::trap_guests::Guest>(guest) };
        // SAFETY: none: this faults.
        unsafe { guest(0, 0, 0) }
    };
    // SAFETY: (`host_call`) 1. called by guests; 2. nothing here has to be dropped.
    unsafe { host_call(call) }
}

fn from_host_call(stage: &Stage) {
    stage.install();
    let load = stage.guests.address("load");
    stage.call("call", [calls_directly as *const () as i64, load, 0]);
}

pub(crate) fn breakpoint(stage: &Stage) {
    stage.install();
    // SAFETY: none: this ends the process.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("int3");
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("brk #0");
    };
}

pub(crate) fn illegal(stage: &Stage) {
    stage.install();
    // SAFETY: none: this ends the process.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2");
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0");
    };
}

#[expect(unconditional_recursion, reason = "uses up the stack")]
fn recurse(depth: &mut [u64; 100]) -> u64 {
    depth[1] += 1;
    let mut deeper = black_box(*depth);
    recurse(&mut deeper) + depth[2]
}

fn host_overflow(stage: &Stage) {
    stage.install();
    black_box(recurse(&mut [0; 100]));
}

/// A guest's load from the thread's guard page, where the table has no entry, by an address that has
/// nothing to do with the stack pointer: not an overflow. (The standard library's handler takes it for
/// one, and aborts.)
fn wild_access(stage: &Stage) {
    let with_traps = stage.with_traps;
    let body = move || {
        let stage = Stage::new(with_traps);
        stage.install();
        stage.call("unknown", [lowest_of_the_stack() - 8, 0, 0]);
    };
    std::thread::spawn(body).join().expect("no panic");
}

fn lowest_of_the_stack() -> i64 {
    // SAFETY: zeros are written over.
    let mut attributes: libc::pthread_attr_t = unsafe { mem::zeroed() };
    // SAFETY: has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::pthread_getattr_np(thread, &mut attributes) }, 0);
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: only asks.
    assert_eq!(unsafe { libc::pthread_attr_getstack(&attributes, &mut low, &mut size) }, 0);
    low.addr() as i64
}

/// The first thread's stack has no guard page: the system stops its growth. Without the trap handler
/// there is nothing to compare with, so that one of the two only says what is expected.
fn first_thread_overflow(stage: &Stage) {
    stage.install();
    if stage.with_traps {
        let thread = pcmap::trap::GuestThread::current().expect("prepared");
        for _ in 0..10 {
            let itself = stage.guests.address("forever");
            let trap = stage.guests.run(&thread, "forever", [itself, 1, 1]).expect_err("no end");
            assert_eq!(trap.cause(), pcmap::trap::Cause::StackOverflow);
        }
    }
    println!("overflowed");
}

fn sent(stage: &Stage, signal: libc::c_int) {
    set_handler(signal, libc::SIG_DFL);
    stage.install();
    // SAFETY: has no preconditions.
    unsafe { libc::raise(signal) };
}

fn ignored(stage: &Stage) {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
        set_handler(signal, libc::SIG_IGN);
    }
    stage.install();
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
        // SAFETY: has no preconditions.
        unsafe { libc::raise(signal) };
    }
    println!("still here");
}

/// What the kernel reports of something that the instruction has not done, and does not force on anybody:
/// memory that was found to be broken, an access of some time ago, a count of a `perf` event.
fn reported_and_ignored(stage: &Stage) {
    const REPORTS: [(libc::c_int, libc::c_int); 3] =
        [(libc::SIGBUS, 5), (libc::SIGSEGV, 8), (libc::SIGTRAP, 6)];
    for (signal, _) in REPORTS {
        set_handler(signal, libc::SIG_IGN);
    }
    stage.install();
    for (signal, code) in REPORTS {
        report(signal, code);
    }
    println!("still here");
}

/// Sends a signal to this thread as the kernel would, with a code of the kernel's.
fn report(signal: libc::c_int, code: libc::c_int) {
    // SAFETY: zeros are valid.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    (info.si_signo, info.si_code) = (signal, code);
    // SAFETY: has no preconditions.
    let process = unsafe { libc::getpid() };
    // SAFETY: as above.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    // SAFETY: a thread may send itself whatever it likes.
    let sent = unsafe {
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, &raw const info)
    };
    assert_eq!(sent, 0);
}

fn fault_while_ignored(stage: &Stage) {
    set_handler(libc::SIGSEGV, libc::SIG_IGN);
    stage.install();
    dereference_null();
}
