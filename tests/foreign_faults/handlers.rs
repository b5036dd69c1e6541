#![expect(unsafe_code, reason = "signal handlers")]
//! What a handler that was installed before sees: arguments, mask, stack, how often it is called.
//!
//! The handler prints what it sees and makes the page accessible, so that the fault's instruction
//! succeeds when it returns.

use crate::compare::Ends::{By, Well};
use crate::compare::Scenario;
use crate::stage::Stage;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{mem, ptr};

macro_rules! scenarios {
    ($($name:literal: $flags:expr, $ends:expr;)*) => {
        &[
            $(Scenario { name: $name, run: |stage| observe(stage, $flags), ends: $ends },)*
            Scenario { name: "sent_and_restarted", run: |s| interrupted_read(s, libc::SA_RESTART), ends: Well },
            Scenario { name: "sent_and_not_restarted", run: |s| interrupted_read(s, 0), ends: Well },
            Scenario { name: "handler_that_goes_elsewhere", run: elsewhere, ends: Well },
            Scenario { name: "handler_without_an_alternate_stack", run: no_alternate_stack, ends: Well },
            Scenario { name: "handler_at_the_very_end_of_the_alternate_stack", run: at_the_end, ends: Well },
            Scenario { name: "handler_without_room", run: no_room, ends: By(libc::SIGSEGV) },
            #[cfg(target_arch = "x86_64")]
            Scenario { name: "handler_that_changes_vectors", run: vectors, ends: Well },
            Scenario { name: "handler_that_is_interrupted", run: interrupted_handler, ends: Well },
        ]
    };
}

pub(crate) const SCENARIOS: &[Scenario] = scenarios! {
    "plain_handler": 0, Well;
    "siginfo_handler": libc::SA_SIGINFO, Well;
    "plain_handler_on_the_alternate_stack": libc::SA_ONSTACK, Well;
    "siginfo_handler_on_the_alternate_stack": libc::SA_SIGINFO | libc::SA_ONSTACK, Well;
    "nodefer_handler": libc::SA_SIGINFO | libc::SA_NODEFER, Well;
    "nodefer_handler_on_the_alternate_stack": libc::SA_NODEFER | libc::SA_ONSTACK, Well;
    // The second fault kills.
    "resethand_handler": libc::SA_SIGINFO | libc::SA_RESETHAND, By(libc::SIGSEGV);
    "plain_resethand_handler": libc::SA_RESETHAND | libc::SA_NODEFER, By(libc::SIGSEGV);
};

/// The page that faults, and how often it has.
static PAGE: AtomicUsize = AtomicUsize::new(0);
static FAULTS: AtomicUsize = AtomicUsize::new(0);

fn page() -> *mut c_void {
    ptr::with_exposed_provenance_mut(PAGE.load(Relaxed))
}

fn protect(protection: libc::c_int) {
    // SAFETY: a page of ours.
    assert_eq!(unsafe { libc::mprotect(page(), 4096, protection) }, 0);
}

fn map() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(page, libc::MAP_FAILED);
    PAGE.store(page.expose_provenance(), Relaxed);
}

fn report(signal: libc::c_int) {
    // SAFETY: zeros are the empty set.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask) };
    // SAFETY: asks about signals that exist.
    let blocked = |&other: &libc::c_int| unsafe { libc::sigismember(&mask, other) } == 1;
    let mask: Vec<_> = (1..=64).filter(blocked).collect();
    // SAFETY: zeros are a stack.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: only asks.
    unsafe { libc::sigaltstack(ptr::null(), &mut stack) };
    let on_alternate = stack.ss_flags & libc::SS_ONSTACK != 0;
    FAULTS.fetch_add(1, Relaxed);
    println!("signal {signal}, blocked: {mask:?}, on the alternate stack: {on_alternate}");
}

extern "C" fn plain(signal: libc::c_int) {
    report(signal);
    protect(libc::PROT_READ);
}

extern "C" fn with_info(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    report(signal);
    // SAFETY: the kernel's.
    let info = unsafe { &*info };
    // SAFETY: of a fault.
    let (code, address) = (info.si_code, unsafe { info.si_addr() });
    let context: *const libc::ucontext_t = context.cast();
    // SAFETY: the kernel's; only the address is taken.
    let saved = unsafe { &raw const (*context).uc_sigmask };
    // SAFETY: the kernel has written so much of it.
    let saved = unsafe { saved.cast::<u64>().read_unaligned() };
    println!("code {code}, at the page: {}, saved mask {saved:#x}", address == page());
    protect(libc::PROT_READ);
}

/// Installs a handler with a mask of its own; gives the address of it.
fn install(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = if flags & libc::SA_SIGINFO != 0 {
        with_info as *const () as usize
    } else {
        plain as *const () as usize
    };
    action.sa_flags = flags;
    // SAFETY: a set of ours.
    unsafe { libc::sigaddset(&mut action.sa_mask, libc::SIGUSR2) };
    // SAFETY: a handler that prints; this process is about that.
    assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
}

fn block(signal: libc::c_int) {
    // SAFETY: zeros are the empty set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: adds a signal that exists to a set of ours.
    unsafe { libc::sigaddset(&mut set, signal) };
    // SAFETY: a set of ours.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
}

fn read_page() -> u8 {
    // SAFETY: mapped; if it cannot be read, that is the fault.
    unsafe { page().cast::<u8>().read_volatile() }
}

/// Three faults in host code, and three in a guest that the tables do not know.
fn observe(stage: &Stage, flags: libc::c_int) {
    map();
    install(libc::SIGSEGV, flags);
    block(libc::SIGUSR1);
    stage.install();
    for _ in 0..3 {
        protect(libc::PROT_NONE);
        assert_eq!(read_page(), 0);
        protect(libc::PROT_NONE);
        assert_eq!(stage.call("unknown", [PAGE.load(Relaxed) as i64, 0, 0]), 0);
    }
    assert_eq!(FAULTS.load(Relaxed), 6);
    // Sent, not a fault.
    // SAFETY: has no preconditions.
    unsafe { libc::raise(libc::SIGSEGV) };
    // The mask is as before.
    FAULTS.store(0, Relaxed);
    report(0);
}

/// A signal that is sent interrupts a system call, or does not.
fn interrupted_read(stage: &Stage, flags: libc::c_int) {
    install(libc::SIGBUS, flags);
    map();
    stage.install();
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: has no preconditions.
    let reader = unsafe { libc::pthread_self() };
    let writer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        // SAFETY: the thread waits for this one.
        unsafe { libc::pthread_kill(reader, libc::SIGBUS) };
        std::thread::sleep(std::time::Duration::from_millis(100));
        // SAFETY: one byte.
        unsafe { libc::write(ends[1], [7_u8].as_ptr().cast(), 1) };
    });
    let mut byte = 0_u8;
    // SAFETY: room for one byte.
    let read = unsafe { libc::read(ends[0], (&raw mut byte).cast(), 1) };
    let error = (read < 0).then(std::io::Error::last_os_error);
    println!("read {read}, {byte}, {:?}", error.and_then(|it| it.raw_os_error()));
    writer.join().expect("no panic");
}

/// A handler that changes where the thread goes on.
fn elsewhere(stage: &Stage) {
    extern "C" fn skip(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel's.
        let context = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        {
            context.gregs[libc::REG_RIP as usize] += 2;
        }
        #[cfg(target_arch = "aarch64")]
        {
            context.pc += 4;
        }
    }
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = skip as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a handler that goes past an instruction; this process is about that.
    assert_eq!(unsafe { libc::sigaction(libc::SIGILL, &action, ptr::null_mut()) }, 0);
    stage.install();
    for _ in 0..10 {
        // SAFETY: the handler goes past it.
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
    println!("went on");
}

/// On a thread that has no alternate stack at all.
fn no_alternate_stack(stage: &Stage) {
    map();
    install(libc::SIGSEGV, libc::SA_SIGINFO | libc::SA_ONSTACK);
    stage.install();
    extern "C" fn body(_: *mut c_void) -> *mut c_void {
        protect(libc::PROT_NONE);
        assert_eq!(read_page(), 0);
        ptr::null_mut()
    }
    // SAFETY: zeros are to be written over.
    let mut thread: libc::pthread_t = unsafe { mem::zeroed() };
    // SAFETY: the body needs nothing.
    let error = unsafe { libc::pthread_create(&mut thread, ptr::null(), body, ptr::null_mut()) };
    assert_eq!(error, 0);
    // SAFETY: of the thread above.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}

/// Puts a long alternate stack in force; gives its end, behind which there is as much memory again.
fn alternate_stack() -> *mut u8 {
    let memory = Box::leak(vec![0_u8; 512 << 10].into_boxed_slice());
    let (stack, behind) = memory.split_at_mut(256 << 10);
    let end = behind.as_mut_ptr();
    let stack =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: memory that stays, and that nobody else uses.
    assert_eq!(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) }, 0);
    end
}

/// The interrupted code is on the alternate stack and has nothing on it yet, or is just above it.
fn at_the_end(stage: &Stage) {
    let end = alternate_stack().map_addr(|end| end.next_multiple_of(16));
    map();
    install(libc::SIGSEGV, libc::SA_SIGINFO);
    stage.install();
    for above in [0, 64, 1024] {
        protect(libc::PROT_NONE);
        read_page_on(end.wrapping_add(above));
    }
}

/// There is no memory where the handler would run: the process ends at the fault's instruction.
fn no_room(stage: &Stage) {
    alternate_stack();
    map();
    install(libc::SIGSEGV, libc::SA_SIGINFO);
    stage.install();
    read_page_on(page().cast::<u8>().wrapping_add(64));
}

/// With a stack pointer of any value.
fn read_page_on(end: *mut u8) {
    // SAFETY: nobody else uses that memory; the handler makes the page accessible.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("mov {own}, rsp", "mov rsp, {end}", "mov {byte}, byte ptr [{page}]",
            "mov rsp, {own}", own = out(reg) _, end = in(reg) end, page = in(reg) page(),
            byte = out(reg_byte) _)
    };
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("mov {own}, sp", "mov sp, {end}", "ldrb {byte:w}, [{page}]",
            "mov sp, {own}", own = out(reg) _, end = in(reg) end, page = in(reg) page(),
            byte = out(reg) _)
    };
}

/// The vector registers are what they were, in all their length, but for what the handler changes.
#[cfg(target_arch = "x86_64")]
fn vectors(stage: &Stage) {
    extern "C" fn change(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: the kernel's.
        let context = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
        // SAFETY: as above.
        unsafe { (*context.fpregs)._xmm[7].element[1] += 1 };
        // SAFETY: changes only what is clobbered by calls.
        unsafe { std::arch::asm!("pcmpeqd xmm7, xmm7", out("xmm7") _) };
        protect(libc::PROT_READ);
    }
    if !std::is_x86_feature_detected!("avx") {
        return;
    }
    alternate_stack();
    map();
    // SAFETY: zeros are a valid action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = change as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: a handler that changes a register; this process is about that.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSEGV, &action, ptr::null_mut()) }, 0);
    stage.install();
    let mut vector = [10_u32, 20, 30, 40, 50, 60, 70, 80];
    for _ in 0..3 {
        protect(libc::PROT_NONE);
        // SAFETY: room for the register; the handler makes the page accessible.
        unsafe {
            std::arch::asm!("vmovdqu ymm7, [{vector}]", "mov {byte}, byte ptr [{page}]",
                "vmovdqu [{vector}], ymm7", vector = in(reg) vector.as_mut_ptr(),
                page = in(reg) page(), byte = out(reg_byte) _, out("ymm7") _)
        };
    }
    println!("{vector:?}");
    assert_eq!(vector, [10, 23, 30, 40, 50, 60, 70, 80]);
}

/// A handler that does not run on the alternate stack leaves that to those that interrupt it.
fn interrupted_handler(stage: &Stage) {
    /// Writes over much of its stack.
    extern "C" fn spacious(signal: libc::c_int) {
        std::hint::black_box([0x5a_u8; 20_000]);
        report(signal);
    }
    extern "C" fn interrupted(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut c_void,
    ) {
        // SAFETY: have no preconditions.
        unsafe { libc::raise(libc::SIGUSR1) };
        with_info(signal, info, context);
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGUSR1) };
    }
    let set = |signal, handler: usize, flags| {
        // SAFETY: zeros are a valid action.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        // SAFETY: a handler that prints; this process is about that.
        assert_eq!(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) }, 0);
    };
    alternate_stack();
    map();
    set(libc::SIGUSR1, spacious as *const () as usize, libc::SA_ONSTACK);
    set(libc::SIGSEGV, interrupted as *const () as usize, libc::SA_SIGINFO);
    stage.install();
    for _ in 0..3 {
        protect(libc::PROT_NONE);
        assert_eq!(read_page(), 0);
        protect(libc::PROT_NONE);
        assert_eq!(stage.call("unknown", [PAGE.load(Relaxed) as i64, 0, 0]), 0);
    }
}
