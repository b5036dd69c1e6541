#![expect(unsafe_code, reason = "maps pages and a file")]
//! Each kind of fault becomes a trap that says what it was and where.

use crate::trap_guests::{Guest, Guests, prepared};
use pcmap::registry::{
    CodeImage, Engine, EngineCode, EngineConfig, FuncKey, Module, ModuleRegistry, SourceOffset,
    TrapCode,
};
use pcmap::trap::{Cause, Trap};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr;

/// Checks what every trap of a guest must say, and gives its code.
#[track_caller]
fn check(guests: &Guests, trap: &Trap, name: &str, source: Option<u32>) -> TrapCode {
    let Cause::Code(code) = trap.cause() else { panic!("{trap:?}") };
    let tables = guests.code.tables();
    let function = guests.function(name);
    let offset = trap.text_offset().expect("in the text");
    assert_eq!(tables.trap_at(offset), Some(code));
    let at = guests.code.text_range().start.address() + offset.get() as usize;
    assert_eq!(trap.pc(), Some(at));
    assert!(function.range.contains(offset), "{trap:?}");
    assert_eq!(trap.function(), Some(function.key));
    assert_eq!(trap.source_offset(), source.map(SourceOffset::new));
    assert_eq!(trap.frames().next().map(|frame| frame.pc()), trap.pc());
    let frame = guests.registry.lookup_frame_info(at).expect("in the store");
    assert_eq!(frame.function().name, Some(name));
    code
}

fn code(user: u8) -> TrapCode {
    TrapCode::new(user)
}

#[test]
fn accesses() {
    let (guests, thread) = (Guests::load(), prepared());
    // SAFETY: a fresh mapping.
    let start = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0)
    };
    assert_ne!(start, libc::MAP_FAILED);
    let start = start.expose_provenance() as i64;
    for _ in 0..100 {
        assert_eq!(guests.run(&thread, "load", [start, 0, 0]).expect("readable"), 0);
        for address in [0, 8, 4095] {
            let trap = guests.run(&thread, "load", [address, 0, 0]).expect_err("nothing is there");
            assert_eq!(check(&guests, &trap, "load", Some(0x21)), code(1));
            assert_eq!(trap.signal(), Some(libc::SIGSEGV));
            assert_eq!(trap.faulting_address(), Some(address as usize));
        }
        let trap = guests.run(&thread, "store", [start + 16, 7, 0]).expect_err("read-only");
        assert_eq!(check(&guests, &trap, "store", Some(0x31)), code(2));
        assert_eq!(trap.faulting_address(), Some(start as usize + 16));
    }
    let trap = guests.run(&thread, "load", [0, 0, 0]).expect_err("nothing is there");
    assert_eq!(trap.faulting_address(), Some(0));
    let told = trap.to_string();
    assert!(told.contains("(SIGSEGV)") && told.contains("source+0x21"), "{told}");
}

/// Addresses that x86-64 cannot form raise another exception, which does not tell the address.
#[test]
#[cfg(target_arch = "x86_64")]
fn addresses_that_are_none() {
    let (guests, thread) = (Guests::load(), prepared());
    for address in [1 << 47, 1 << 62, i64::MIN, 0xe5e5_e5e5_e5e5_e5e5_u64 as i64] {
        let trap = guests.run(&thread, "load", [address, 0, 0]).expect_err("no address");
        assert_eq!(check(&guests, &trap, "load", Some(0x21)), code(1));
        assert_eq!((trap.signal(), trap.faulting_address()), (Some(libc::SIGSEGV), None));
        assert!(!trap.to_string().contains("accessing"), "{trap}");
    }
    // The kernel's, which can be formed, and nothing at all.
    for address in [-(1 << 47), 0] {
        let trap = guests.run(&thread, "load", [address, 0, 0]).expect_err("not the guest's");
        assert_eq!(trap.faulting_address(), Some(address as usize));
        assert!(trap.to_string().ends_with(&format!(", accessing {address:#x}")), "{trap}");
    }
}

/// Each instruction that raises an exception which tells no address.
#[test]
#[cfg(target_arch = "x86_64")]
fn exceptions_that_tell_no_address() {
    const NONE: i64 = 1 << 62;
    let odd = [0_u128; 2];
    let odd = (&raw const odd).addr() as i64 + 1;
    let instructions: [(&[u8], usize, i64, libc::c_int); 5] = [
        (&[0x0f, 0x28, 0x07, 0xc3], 0, odd, libc::SIGSEGV), // movaps xmm0, [rdi]; ret
        (&[0xfa, 0xc3], 0, 0, libc::SIGSEGV),               // cli; ret
        (&[0xcd, 0x20, 0xc3], 0, 0, libc::SIGSEGV),         // int 0x20; ret
        // mov rax, rbp; mov rbp, rdi; mov rcx, [rbp]; mov rbp, rax; ret: by way of the frame pointer
        (
            &[0x48, 0x89, 0xe8, 0x48, 0x89, 0xfd, 0x48, 0x8b, 0x4d, 0x00, 0x48, 0x89, 0xc5, 0xc3],
            6,
            NONE,
            libc::SIGBUS,
        ),
        (&[0xff, 0xe7], 0, NONE, libc::SIGSEGV), // jmp rdi
    ];
    let thread = prepared();
    for (text, at, with, signal) in instructions {
        let mut image = CodeImage::builder(text.to_vec());
        image.function(FuncKey::new(0, 0), 0..text.len(), "guest").expect("in the text");
        image.trap(at, code(5)).expect("in the text");
        let engine = Engine::new(EngineConfig::new()).expect("memory");
        let loaded = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
        let start = loaded.text_range().start.as_ptr();
        // SAFETY: such a function.
        let guest = unsafe { std::mem::transmute::<*const u8, Guest>(start) };
        for _ in 0..3 {
            // SAFETY: (`call`) 1. kept by `loaded`; 2. to 4. it calls nothing.
            let run = thread.catch_traps(|it| unsafe { it.call(guest, (with, 0, 0)) });
            let trap = run.expect_err("it traps");
            assert_eq!(
                (trap.cause(), trap.signal()),
                (Cause::Code(code(5)), Some(signal)),
                "{text:x?}"
            );
            assert_eq!(trap.faulting_address(), None);
            assert!(!trap.to_string().contains("accessing"), "{trap}");
        }
    }
}

#[test]
fn a_page_behind_the_end_of_a_file() {
    let (guests, thread) = (Guests::load(), prepared());
    let path = std::env::temp_dir().join(format!("pcmap-traps-{}", std::process::id()));
    let options = File::options().read(true).write(true).create_new(true).open(&path);
    let file = options.expect("a file");
    std::fs::remove_file(&path).expect("it is kept by its handle");
    // SAFETY: a fresh mapping; the file is empty, so its page cannot be read.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
    };
    assert_ne!(page, libc::MAP_FAILED);
    let address = page.expose_provenance() as i64;
    let trap = guests.run(&thread, "load", [address, 0, 0]).expect_err("behind the end");
    assert_eq!(check(&guests, &trap, "load", Some(0x21)), code(1));
    assert_eq!(
        (trap.signal(), trap.faulting_address()),
        (Some(libc::SIGBUS), Some(address as usize))
    );
}

#[test]
fn instructions_and_operands() {
    let (guests, thread) = (Guests::load(), prepared());
    for _ in 0..100 {
        let trap = guests.run(&thread, "unreachable", [0; 3]).expect_err("it traps");
        assert_eq!(check(&guests, &trap, "unreachable", Some(0x41)), code(3));
        assert_eq!((trap.signal(), trap.faulting_address()), (Some(libc::SIGILL), None));
        let trap = guests.run(&thread, "divide", [1, 0, 0]).expect_err("by zero");
        let by_zero = check(&guests, &trap, "divide", Some(0x51));
        let trap = guests.run(&thread, "divide", [i64::MIN, -1, 0]).expect_err("too large");
        assert_ne!(check(&guests, &trap, "divide", Some(0x51)), by_zero);
        assert_eq!(guests.run(&thread, "divide", [84, 2, 0]).expect("it divides"), 42);
    }
}

/// In a store with copies of its own a breakpoint ends the call; and in no other store.
#[test]
fn breakpoints() {
    let config = EngineConfig::new().private_copies(true);
    let (mut guests, other) = (Guests::with(config), Guests::load());
    let thread = prepared();
    let id = guests.registry.register_module(&guests.module).expect("it is registered");
    let site = guests.function("add").range.start();
    for _ in 0..10 {
        assert_eq!(guests.run(&thread, "add", [1, 2, 3]).expect("it does not trap"), 6);
        assert_eq!(guests.registry.set_breakpoint(id, site), Ok(true));
        let trap = guests.run(&thread, "add", [1, 2, 3]).expect_err("it stops");
        assert_eq!(trap.cause(), Cause::Breakpoint);
        assert_eq!((trap.signal(), trap.faulting_address()), (Some(libc::SIGTRAP), None));
        assert_eq!(trap.pc(), Some(guests.address("add") as usize));
        assert_eq!(trap.text_offset(), Some(site));
        assert_eq!(trap.function(), Some(guests.function("add").key));
        // In a call of a call, too, with the callers' frames.
        let call = [guests.address("add"), 1, 2];
        let trap = guests.run(&thread, "call", call).expect_err("it stops");
        assert_eq!((trap.cause(), trap.frames().len()), (Cause::Breakpoint, 2));
        // Traps are found in the copy by the original's tables.
        let trap = guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
        assert_eq!(trap.cause(), Cause::Code(code(1)));
        assert_eq!(other.run(&thread, "add", [1, 2, 3]).expect("it does not trap"), 6);
        assert_eq!(guests.registry.clear_breakpoint(id, site), Ok(true));
    }
}

/// At an instruction that may trap by itself, too.
#[test]
fn a_breakpoint_at_an_instruction_that_may_trap() {
    #[cfg(target_arch = "x86_64")]
    const LOAD: &[u8] = &[0x48, 0x8b, 0x07, 0xc3]; // mov rax, [rdi]; ret
    #[cfg(target_arch = "aarch64")]
    const LOAD: &[u8] = &[0x00, 0x00, 0x40, 0xf9, 0xc0, 0x03, 0x5f, 0xd6]; // ldr x0, [x0]; ret
    const INSTRUCTION: usize = LOAD.len() - if cfg!(target_arch = "x86_64") { 1 } else { 4 };
    let mut image = CodeImage::builder(LOAD.to_vec());
    image.function(FuncKey::new(0, 0), 0..LOAD.len(), "load").expect("in the text");
    image.trap(0_usize, code(1)).expect("in the text");
    image.breakpoint_site(0..INSTRUCTION, None).expect("in the text");
    let engine = Engine::new(EngineConfig::new().private_copies(true)).expect("memory");
    let original = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    let module = Module::new(&original, 0).expect("memory");
    let mut registry = ModuleRegistry::new(&engine);
    let id = registry.register_module(&module).expect("memory");
    let start = registry.store_code_base(&original).expect("loaded").as_ptr();
    // SAFETY: such a function.
    let guest = unsafe { std::mem::transmute::<*const u8, Guest>(start) };
    let thread = prepared();
    let causes = [false, true, false].map(|on| {
        let site = 0_usize.try_into().expect("small");
        if on {
            registry.set_breakpoint(id, site).expect("a site");
        } else {
            registry.clear_breakpoint(id, site).expect("a site");
        }
        // SAFETY: (`call`) 1. kept by the store; 2. to 4. it only loads.
        let run = thread.catch_traps(|activation| unsafe { activation.call(guest, (0, 0, 0)) });
        run.expect_err("nothing is there").cause()
    });
    assert_eq!(causes, [Cause::Code(code(1)), Cause::Breakpoint, Cause::Code(code(1))]);
}

/// Several calls in one activation; a trap of one can be answered there.
#[test]
fn a_trap_is_a_result() {
    let (guests, thread) = (Guests::load(), prepared());
    let sum = thread.catch_traps(|activation| {
        let one = guests.enter(activation, "add", [1, 2, 3])?;
        let two = guests.enter(activation, "load", [0; 3]).unwrap_or(100);
        guests.enter(activation, "add", [one, two, 0])
    });
    assert_eq!(sum.expect("the trap was answered"), 106);
    let trap = thread.catch_traps(|activation| {
        guests
            .enter(activation, "load", [0; 3])
            .or_else(|_| guests.enter(activation, "unreachable", [0; 3]))
    });
    check(&guests, &trap.expect_err("the other one trapped"), "unreachable", Some(0x41));
}

/// A thread that has blocked all signals, as those do that shall get none.
#[test]
fn a_thread_that_has_blocked_everything() {
    fn blocked() -> Vec<libc::c_int> {
        // SAFETY: zeros are the empty set.
        let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: only asks.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask) };
        // SAFETY: asks about signals that exist.
        (1..=64).filter(|&signal| unsafe { libc::sigismember(&mask, signal) } == 1).collect()
    }
    std::thread::spawn(|| {
        // SAFETY: zeros are the empty set.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: a set of ours.
        unsafe { libc::sigfillset(&mut all) };
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &all, ptr::null_mut()) };
        let (guests, before) = (Guests::load(), blocked());
        assert!(before.contains(&libc::SIGSEGV));
        for _ in 0..3 {
            let thread = prepared();
            for name in ["load", "unreachable", "divide"] {
                guests.run(&thread, name, [0; 3]).expect_err("it traps");
            }
            let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
            assert!(before.iter().all(|it| blocked().contains(it) != faults.contains(it)));
            drop(thread);
            assert_eq!(blocked(), before);
        }
    })
    .join()
    .expect("no panic");
}

/// A thread that ends without dropping its handles leaves nothing behind that is in the way of the next
/// one, which the C library gives its memory.
#[test]
fn a_thread_that_ends_prepared() {
    for round in 0..50 {
        let body = move || {
            let guests = Guests::load();
            let thread = prepared();
            guests.run(&thread, "load", [0; 3]).expect_err("nothing is there");
            if round % 2 == 0 {
                std::mem::forget(thread);
            }
        };
        std::thread::spawn(body).join().expect("no panic");
    }
}

/// Preparing is counted, and over when the last handle goes; then other code has its way again.
#[test]
fn a_thread_prepares_any_number_of_times() {
    std::thread::spawn(|| {
        let guests = Guests::load();
        for _ in 0..10 {
            let first = prepared();
            let second = prepared();
            drop(first);
            guests.run(&second, "load", [0; 3]).expect_err("nothing is there");
            assert!(pcmap::trap::GuestThread::current().is_some());
            drop(second);
            assert!(pcmap::trap::GuestThread::current().is_none());
        }
    })
    .join()
    .expect("no panic");
}
