//! Real signals: lookups in handlers, wherever the signal happened to land.
//!
//! The handlers compare what they find with the truth, and note in static atomics what was wrong;
//! they neither allocate nor lock nor panic. Of the map, some pages are always registered, some
//! never, and some come and go: those are found with their own value or not at all.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "signals, machine code, errno")]

mod tracked;

use pcmap::{CodeMap, Registration};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};
use std::{mem, ptr, thread};
use tracked::{Tally, Tracked};

static TALLY: Tally = Tally::new();
static MAP: CodeMap<Tracked<'static>> = CodeMap::new();

const PAGE: usize = 0x1000;
const PAGES: usize = 32;
const PRESENT: usize = 0x10_0000;
const ABSENT: usize = 0x20_0000;
const CHURNED: usize = 0x30_0000;

/// What the interrupted thread was doing.
const WORK: [&str; 10] = [
    "elsewhere",
    "register",
    "unregister",
    "register_all",
    "unregister_all",
    "reclaim",
    "snapshot",
    "synchronize",
    "lookup",
    "reader",
];
const KINDS: usize = 5;
const SEGV: usize = 0;
const PROF: usize = 1;
const USR1: usize = 2;
const USR2: usize = 3;
const ALTERNATE: usize = 4;

/// Signals handled, by kind and by what they interrupted.
static HANDLED: [[AtomicUsize; WORK.len()]; KINDS] =
    [const { [const { AtomicUsize::new(0) }; WORK.len()] }; KINDS];
/// Lookups in handlers that found a page that comes and goes, and that did not.
static CHURN: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
/// Checks in handlers that failed, by number.
static WRONG: [AtomicUsize; 12] = [const { AtomicUsize::new(0) }; 12];
/// What the last fault was found to be: value and offset.
static FAULT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

thread_local! {
    /// An index into [`WORK`]. Neither lazy nor destroyed, so handlers may read it.
    static DOING: Cell<usize> = const { Cell::new(0) };
}

fn expect(check: usize, holds: bool) {
    if !holds {
        WRONG[check].fetch_add(1, SeqCst);
    }
}

fn errno() -> *mut libc::c_int {
    // SAFETY: gives the address of this thread's errno, always.
    unsafe { libc::__errno_location() }
}

fn get_errno() -> libc::c_int {
    // SAFETY: the address of this thread's errno.
    unsafe { *errno() }
}

fn set_errno(value: libc::c_int) {
    // SAFETY: the address of this thread's errno.
    unsafe { *errno() = value }
}

/// What every handler does: looks up something of each sort, and compares.
fn probe() {
    let before = get_errno();
    let turn = CHURN[0].load(SeqCst) + CHURN[1].load(SeqCst);
    for step in 0..3 {
        let page = (turn * 3 + step) % PAGES * 2;
        let at = PRESENT + page * PAGE;
        expect(0, MAP.lookup(at, |hit| hit.value().id()) == Some(at));
        expect(1, MAP.lookup(at + PAGE - 1, |hit| hit.offset()) == Some(PAGE - 1));
        expect(2, MAP.lookup(at + PAGE, |_| ()).is_none());
        expect(3, MAP.lookup(ABSENT + page * PAGE, |_| ()).is_none());
        let at = CHURNED + page * PAGE;
        let found = MAP.lookup(at + 5, |hit| (hit.value().id(), hit.offset()));
        expect(4, found.is_none_or(|found| found == (at, 5)));
        CHURN[usize::from(found.is_none())].fetch_add(1, SeqCst);
    }
    expect(5, get_errno() == before);
}

fn count(kind: usize) {
    HANDLED[kind][DOING.get() % WORK.len()].fetch_add(1, SeqCst);
}

extern "C" fn on_prof(_: libc::c_int) {
    probe();
    count(PROF);
}

/// Holds a reader while another signal comes in, on top of the first.
extern "C" fn on_usr1(_: libc::c_int) {
    let reader = MAP.enter();
    let mut hits = [None; PAGES];
    for (page, hit) in hits.iter_mut().enumerate() {
        *hit = reader.lookup(CHURNED + page * 2 * PAGE);
    }
    probe();
    // SAFETY: names this thread; async-signal-safe.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: async-signal-safe, and this thread is there.
    unsafe { libc::pthread_kill(this, libc::SIGUSR2) };
    probe();
    for (page, hit) in hits.iter().enumerate() {
        let at = CHURNED + page * 2 * PAGE;
        expect(6, hit.is_none_or(|hit| hit.value().id() == at && hit.range().start() == at));
        let again = reader.lookup(at).map(|hit| hit.range());
        expect(7, hit.map(|hit| hit.range()) == again);
    }
    drop(reader);
    count(USR1);
}

extern "C" fn on_usr2(_: libc::c_int) {
    let reader = MAP.enter();
    probe();
    expect(8, reader.lookup(PRESENT).is_some_and(|hit| hit.value().id() == PRESENT));
    count(USR2);
}

/// For threads with an alternate stack: a local variable must lie on it.
static ALTERNATE_STACK: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

extern "C" fn on_alternate(_: libc::c_int) {
    let local = 0_u8;
    let here = (&raw const local).addr();
    let [start, end] = [ALTERNATE_STACK[0].load(SeqCst), ALTERNATE_STACK[1].load(SeqCst)];
    expect(9, start <= here && here < end);
    probe();
    count(ALTERNATE);
}

/// The length of the one instruction that faults.
#[cfg(target_arch = "x86_64")]
const FAULTING: &[u8] = &[0x48, 0x8b, 0x07]; // mov rax, [rdi]
#[cfg(target_arch = "x86_64")]
const RETURN: &[u8] = &[0xc3]; // ret
#[cfg(target_arch = "aarch64")]
const FAULTING: &[u8] = &[0x00, 0x00, 0x40, 0xf9]; // ldr x0, [x0]
#[cfg(target_arch = "aarch64")]
const RETURN: &[u8] = &[0xc0, 0x03, 0x5f, 0xd6]; // ret

/// The interrupted thread's program counter.
///
/// # Safety
///
/// 1. `context` is what the kernel gave to a handler that is still running.
unsafe fn pc_of(context: *mut c_void) -> *mut usize {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: by 1., a valid context that nobody else uses.
        let registers = unsafe { &mut (*context).uc_mcontext.gregs };
        (&raw mut registers[libc::REG_RIP as usize]).cast()
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: by 1., a valid context that nobody else uses.
        unsafe { (&raw mut (*context).uc_mcontext.pc).cast() }
    }
}

extern "C" fn on_segv(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: 1. the context of this very handler.
    let pc = unsafe { pc_of(context) };
    // SAFETY: the place of a register in the context.
    let at = unsafe { *pc };
    let found = MAP.lookup(at, |hit| (hit.value().id(), hit.offset()));
    let Some((value, offset)) = found else {
        // Not ours: a real fault. Returning with the default action ends the process.
        // SAFETY: async-signal-safe.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    };
    FAULT[0].store(value, SeqCst);
    FAULT[1].store(offset, SeqCst);
    probe();
    count(SEGV);
    // SAFETY: the place of a register in the context; behind the load stands a return.
    unsafe { *pc = at + FAULTING.len() };
}

fn install(signal: libc::c_int, handler: usize, flags: libc::c_int) {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags | libc::SA_RESTART;
    // SAFETY: the handler has the signature that the flags promise, and is signal-safe.
    let status = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(status, 0, "sigaction: {}", std::io::Error::last_os_error());
}

/// One test at a time, for handlers belong to the process; the pages that are always there; and
/// in the end, what the handlers had to say.
struct Scene {
    present: Vec<Registration<'static, Tracked<'static>>>,
    before: [[usize; WORK.len()]; KINDS],
    _alone: MutexGuard<'static, ()>,
}

fn handled() -> [[usize; WORK.len()]; KINDS] {
    HANDLED.each_ref().map(|kind| kind.each_ref().map(|count| count.load(SeqCst)))
}

/// How many signals of a kind were handled so far.
fn total(kind: usize) -> usize {
    HANDLED[kind].iter().map(|count| count.load(SeqCst)).sum()
}

fn scene() -> Scene {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let plain = |handler: extern "C" fn(libc::c_int)| handler as usize;
    install(libc::SIGPROF, plain(on_prof), 0);
    install(libc::SIGUSR1, plain(on_usr1), 0);
    install(libc::SIGUSR2, plain(on_usr2), 0);
    let on_segv: extern "C" fn(_, _, _) = on_segv;
    install(libc::SIGSEGV, on_segv as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
    let pages = (0..PAGES).map(|page| PRESENT + page * 2 * PAGE);
    let present = MAP.register_all(pages.map(|at| (at..at + PAGE, TALLY.track(at))));
    Scene { present: present.expect("free"), before: handled(), _alone: alone }
}

impl Scene {
    fn close(self) {
        let wrong: Vec<_> = WRONG.iter().map(|count| count.swap(0, SeqCst)).collect();
        let kinds = ["SIGSEGV", "SIGPROF", "SIGUSR1", "SIGUSR2", "alternate stack"];
        for ((kind, now), before) in kinds.iter().zip(handled()).zip(self.before) {
            let places = WORK.iter().zip(now.iter().zip(before).map(|(now, before)| now - before));
            let hits: Vec<_> = places.filter(|(_, hits)| *hits != 0).collect();
            if !hits.is_empty() {
                println!("{kind}: {hits:?}");
            }
        }
        let [found, missed] = CHURN.each_ref().map(|count| count.load(SeqCst));
        println!("pages that come and go: found {found} times, not found {missed} times");
        assert!(wrong.iter().all(|&count| count == 0), "checks that failed in handlers: {wrong:?}");
        drop(self.present);
        MAP.synchronize();
        assert_eq!((MAP.stats().entries, MAP.stats().retired), (0, 0));
        assert_eq!(TALLY.alive(), 0);
    }
}

/// Stops the other threads of a test however it ends, so that a failed check does not hang.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

fn churned(page: usize) -> (std::ops::Range<usize>, Tracked<'static>) {
    let at = CHURNED + page * 2 * PAGE;
    (at..at + PAGE, TALLY.track(at))
}

fn doing<R>(work: usize, job: impl FnOnce() -> R) -> R {
    let before = DOING.replace(work);
    let result = job();
    DOING.set(before);
    result
}

/// Goes through one kind of work again and again until `enough`.
fn work_until(work: usize, enough: impl Fn() -> bool) {
    let mut round = 0;
    let mut single = None;
    let mut batch = Vec::new();
    while !enough() {
        round += 1;
        let page = round % (PAGES / 2);
        match WORK[work] {
            "register" => {
                single = Some(doing(work, || MAP.register_or_panic(page)));
            }
            "unregister" => {
                let code = single.take().unwrap_or_else(|| MAP.register_or_panic(page));
                doing(work, || drop(code));
            }
            "register_all" => {
                drop(mem::take(&mut batch));
                let pages = (PAGES / 2..PAGES).map(churned);
                batch = doing(work, || MAP.register_all(pages)).expect("free");
            }
            "unregister_all" => {
                if batch.is_empty() {
                    let pages = (PAGES / 2..PAGES).map(churned);
                    batch = MAP.register_all(pages).expect("free");
                }
                let code = mem::take(&mut batch);
                doing(work, || drop(MAP.unregister_all(code)));
            }
            "reclaim" => {
                drop(MAP.register_or_panic(page));
                let _ = doing(work, || MAP.reclaim());
            }
            "snapshot" => {
                let seen = doing(work, || MAP.snapshot().expect("memory").iter().count());
                assert!(seen >= PAGES);
            }
            "synchronize" => {
                drop(MAP.register_or_panic(page));
                doing(work, || MAP.synchronize());
            }
            "lookup" => {
                let at = PRESENT + page * 2 * PAGE;
                let found = doing(work, || MAP.lookup(at + 1, |hit| hit.value().id()));
                assert_eq!(found, Some(at));
            }
            "reader" => doing(work, || {
                let reader = MAP.enter();
                for page in 0..PAGES {
                    let at = PRESENT + page * 2 * PAGE;
                    assert_eq!(reader.lookup(at).map(|hit| hit.value().id()), Some(at));
                    assert!(reader.lookup(at + PAGE).is_none());
                }
            }),
            _ => std::hint::spin_loop(),
        }
        if WORK[work] == "register" {
            single = None;
        }
    }
    drop((single, batch));
}

trait RegisterPage {
    fn register_or_panic(&'static self, page: usize) -> Registration<'static, Tracked<'static>>;
}

impl RegisterPage for CodeMap<Tracked<'static>> {
    fn register_or_panic(&'static self, page: usize) -> Registration<'static, Tracked<'static>> {
        let (range, value) = churned(page);
        self.register(range, value).expect("free")
    }
}

/// Sends `signal` to a thread, one after another, until told to stop; each when the one before was
/// handled, and after a pause of varying length, so that they land everywhere.
fn bombard(thread: libc::pthread_t, signal: libc::c_int, kind: usize, stop: &AtomicBool) {
    let mut sent = 0_usize;
    while !stop.load(SeqCst) {
        let before = total(kind);
        // SAFETY: the thread outlives this scope's `stop`.
        assert_eq!(unsafe { libc::pthread_kill(thread, signal) }, 0);
        while total(kind) == before && !stop.load(SeqCst) {
            thread::yield_now();
        }
        sent += 1;
        for _ in 0..sent * 7919 % 3000 {
            std::hint::spin_loop();
        }
    }
}

#[test]
fn a_signal_in_the_middle_of_every_kind_of_call() {
    const EACH: usize = 400;
    let scene = scene();
    let stop = AtomicBool::new(false);
    // SAFETY: names this thread.
    let this = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        scope.spawn(|| bombard(this, libc::SIGUSR1, USR1, &stop));
        // Another writer, so that the interrupted one also has to try again.
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                drop(MAP.register(0..9, TALLY.track(1)).expect("free"));
                thread::yield_now();
            }
        });
        for (work, handled) in HANDLED[USR1].iter().enumerate() {
            let before = handled.load(SeqCst);
            work_until(work, || handled.load(SeqCst) >= before + EACH);
        }
    });
    let nested = total(USR2);
    assert!(nested >= EACH * WORK.len(), "a nested signal in each: {nested}");
    scene.close();
}

#[test]
fn a_profilers_timer() {
    const EACH: usize = 12;
    let scene = scene();
    // The kernel rounds it up to its tick.
    let shortest = libc::timeval { tv_sec: 0, tv_usec: 1 };
    let timer = libc::itimerval { it_interval: shortest, it_value: shortest };
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let off = libc::itimerval { it_interval: never, it_value: never };
    let set = |timer: &libc::itimerval| {
        // SAFETY: `timer` is a valid timer setting.
        let status = unsafe { libc::setitimer(libc::ITIMER_PROF, timer, ptr::null_mut()) };
        assert_eq!(status, 0, "setitimer: {}", std::io::Error::last_os_error());
    };
    set(&timer);
    // `synchronize` mostly sleeps, which takes no processor time: the timer hardly ever hits it.
    for work in (0..WORK.len()).filter(|&work| WORK[work] != "synchronize") {
        let before = HANDLED[PROF][work].load(SeqCst);
        work_until(work, || HANDLED[PROF][work].load(SeqCst) >= before + EACH);
    }
    set(&off);
    scene.close();
}

#[test]
fn an_interrupted_thread_keeps_its_errno() {
    const EACH: usize = 2000;
    const MARK: libc::c_int = 0x5eed;
    let scene = scene();
    let stop = AtomicBool::new(false);
    // SAFETY: names this thread.
    let this = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        scope.spawn(|| bombard(this, libc::SIGUSR1, USR1, &stop));
        let before = total(USR1);
        set_errno(MARK);
        while total(USR1) < before + EACH {
            // Lookups here leave it alone as well as those in handlers do.
            assert!(MAP.lookup(PRESENT, |_| ()).is_some());
            assert_eq!(get_errno(), MARK);
        }
    });
    scene.close();
}

#[test]
fn a_handler_on_an_alternate_stack() {
    const SIZE: usize = 64 * 1024;
    const EACH: usize = 1000;
    let scene = scene();
    install(libc::SIGUSR1, on_alternate as extern "C" fn(_) as usize, libc::SA_ONSTACK);
    let stop = AtomicBool::new(false);
    let ready = std::sync::Barrier::new(2);
    let target = AtomicUsize::new(0);
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            let mut memory = vec![0_u8; SIZE];
            let stack =
                libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: SIZE };
            let addresses = memory.as_ptr_range();
            ALTERNATE_STACK[0].store(addresses.start.addr(), SeqCst);
            ALTERNATE_STACK[1].store(addresses.end.addr(), SeqCst);
            // SAFETY: all zeros is a valid value of this plain structure.
            let mut previous: libc::stack_t = unsafe { mem::zeroed() };
            // SAFETY: the memory is this thread's own and outlives its use as a stack.
            assert_eq!(unsafe { libc::sigaltstack(&raw const stack, &raw mut previous) }, 0);
            // SAFETY: names this thread.
            target.store(unsafe { libc::pthread_self() } as usize, SeqCst);
            ready.wait();
            for work in [1, 2, 5, 8] {
                let before = HANDLED[ALTERNATE][work].load(SeqCst);
                work_until(work, || HANDLED[ALTERNATE][work].load(SeqCst) >= before + EACH / 4);
            }
            stop.store(true, SeqCst);
            ready.wait();
            // SAFETY: the stack that this thread had before.
            assert_eq!(unsafe { libc::sigaltstack(&raw const previous, ptr::null_mut()) }, 0);
        });
        ready.wait();
        bombard(target.load(SeqCst) as libc::pthread_t, libc::SIGUSR1, ALTERNATE, &stop);
        ready.wait();
        working.join().expect("no panic");
    });
    scene.close();
}

/// The whole life of a thread made without Rust: it waits to be told to end.
extern "C" fn idle(stop: *mut c_void) -> *mut c_void {
    // SAFETY: points to a flag that outlives the thread, which is joined before the flag goes.
    let stop = unsafe { &*stop.cast::<AtomicBool>() };
    while !stop.load(SeqCst) {
        std::hint::spin_loop();
    }
    ptr::null_mut()
}

#[test]
fn threads_that_never_used_the_map() {
    const THREADS: usize = 24;
    let scene = scene();
    let before = (total(USR1), total(USR2));
    for _ in 0..THREADS {
        let stop = AtomicBool::new(false);
        let mut thread: libc::pthread_t = 0;
        let argument = (&raw const stop).cast_mut().cast();
        // SAFETY: `thread` is a valid place; `idle` gets the flag it expects.
        let made = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), idle, argument) };
        assert_eq!(made, 0);
        let first = total(USR1);
        // SAFETY: the thread was created above and is not joined yet.
        assert_eq!(unsafe { libc::pthread_kill(thread, libc::SIGUSR1) }, 0);
        while total(USR1) == first {
            thread::yield_now();
        }
        stop.store(true, SeqCst);
        // SAFETY: joined once.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }
    assert_eq!((total(USR1), total(USR2)), (before.0 + THREADS, before.1 + THREADS));
    scene.close();
}

/// A page of machine code that loads through its argument at several places.
struct Faulting {
    page: AtomicPtr<u8>,
}

impl Faulting {
    const STEP: usize = 64;
    const FUNCTIONS: usize = PAGE / Self::STEP;

    fn new() -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, access, flags, -1, 0) };
        assert_ne!(page, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let page = page.cast::<u8>();
        for function in 0..Self::FUNCTIONS {
            for (i, &byte) in FAULTING.iter().chain(RETURN).enumerate() {
                let place = page.wrapping_add(function * Self::STEP + i);
                // SAFETY: within the page that was mapped above.
                unsafe { place.write(byte) };
            }
        }
        // SAFETY: the page that was mapped above, written for the last time.
        let status =
            unsafe { libc::mprotect(page.cast(), PAGE, libc::PROT_READ | libc::PROT_EXEC) };
        assert_eq!(status, 0, "mprotect: {}", std::io::Error::last_os_error());
        #[cfg(target_arch = "aarch64")]
        flush_instructions(page);
        Self { page: AtomicPtr::new(page) }
    }

    fn page(&self) -> *mut u8 {
        self.page.load(SeqCst)
    }

    /// Calls one of the functions with an address where nothing is mapped.
    fn fault(&self, function: usize) {
        let code = self.page().wrapping_add(function * Self::STEP);
        // SAFETY: the code is a function of this signature; its load faults, and the handler, which
        // knows the page as registered, skips it.
        let load = unsafe { mem::transmute::<*mut u8, extern "C" fn(usize) -> usize>(code) };
        load(8);
    }
}

impl Drop for Faulting {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody runs it any more.
        unsafe { libc::munmap(self.page().cast(), PAGE) };
    }
}

/// Makes written code visible to instruction fetch, a line at a time.
#[cfg(target_arch = "aarch64")]
fn flush_instructions(page: *mut u8) {
    for line in (0..PAGE).step_by(16) {
        let line = page.wrapping_add(line);
        // SAFETY: cache maintenance by address, within a mapped page.
        unsafe {
            std::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb",
                in(reg) line)
        };
    }
}

/// Faults in the middle of the map's own calls: while it asks an iterator, and in a destructor.
struct FaultsWhenDropped<'f> {
    code: &'f Faulting,
}

impl Drop for FaultsWhenDropped<'_> {
    fn drop(&mut self) {
        self.code.fault(1);
    }
}

#[test]
fn faults_in_registered_code() {
    const ROUNDS: usize = 3000;
    let scene = scene();
    let code = Faulting::new();
    let start = code.page().addr();
    let held = MAP.register(start..start + PAGE, TALLY.track(start)).expect("free");
    let stop = AtomicBool::new(false);
    let before = total(SEGV);
    thread::scope(|scope| {
        let _end = StopAtEnd(&stop);
        scope.spawn(|| {
            let mut page = 0;
            while !stop.load(SeqCst) {
                page = (page + 1) % PAGES;
                drop(MAP.register_or_panic(page));
                let _ = MAP.snapshot();
            }
        });
        for round in 0..ROUNDS {
            let function = round % Faulting::FUNCTIONS;
            FAULT[0].store(0, SeqCst);
            code.fault(function);
            assert_eq!(FAULT[0].load(SeqCst), start);
            assert_eq!(FAULT[1].load(SeqCst), function * Faulting::STEP);
        }
    });

    // Inside a read section, inside `register_all`, and in a destructor that `synchronize` runs.
    {
        let reader = MAP.enter();
        code.fault(3);
        assert_eq!(reader.lookup(start).map(|hit| hit.value().id()), Some(start));
    }
    let pages = (0..PAGES).map(|page| {
        doing(3, || code.fault(page));
        churned(page)
    });
    drop(MAP.register_all(pages).expect("free"));
    let other = CodeMap::new();
    for _ in 0..20 {
        drop(other.register(1..2, FaultsWhenDropped { code: &code }).expect("free"));
    }
    doing(7, || other.synchronize());
    drop(other);
    let faults = total(SEGV) - before;
    assert_eq!(faults, ROUNDS + 1 + PAGES + 20);

    held.unregister().wait();
    drop(code);
    scene.close();
}
