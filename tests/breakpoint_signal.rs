//! Breakpoints that really fire: the same function in two stores, one of which has a breakpoint.
//!
//! The SIGTRAP handler does what a runtime's would: it finds the code in the process's map, notes
//! where in the image the breakpoint is, and lets the thread go on, by doing what the replaced
//! instruction would have done. (Every guest begins with the same one, which saves the frame
//! pointer.) It runs on a stack of its own: what that instruction stores lies where the kernel would
//! otherwise put the handler's frame.
#![cfg(all(
    feature = "registry",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![expect(unsafe_code, reason = "signals, and calls of machine code")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod guests;

use guests::images::{Layout, call};
use pcmap::registry::{
    Engine, EngineCode, EngineConfig, Module, ModuleRegistry, StoreCodePc, breakpoint_address,
    process_code_map,
};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::{mem, ptr};

/// Breakpoints that fired, and what the handler found at the last one: program counter, offset in
/// the text, function; and those that it found nothing at.
static FIRED: AtomicUsize = AtomicUsize::new(0);
static PC: AtomicUsize = AtomicUsize::new(0);
static OFFSET: AtomicUsize = AtomicUsize::new(0);
static FUNCTION: AtomicUsize = AtomicUsize::new(0);
static UNKNOWN: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the third argument is a context, this handler's alone.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext;
    let pc = breakpoint_address(machine::pc(registers));
    let found = process_code_map().lookup(pc, |hit| {
        let function = hit.value().function_at(hit.offset())?;
        Some((hit.offset(), function.key.index() as usize))
    });
    match found.flatten() {
        Some((offset, function)) => {
            PC.store(pc, SeqCst);
            OFFSET.store(offset, SeqCst);
            FUNCTION.store(function, SeqCst);
            FIRED.fetch_add(1, SeqCst);
        }
        None => {
            UNKNOWN.fetch_add(1, SeqCst);
        }
    }
    // SAFETY: (`save_frame_pointer`) 1. guests begin with that instruction, which the test has
    // checked; 2. the handler has another stack.
    unsafe { machine::save_frame_pointer(registers, pc) };
}

#[cfg(target_arch = "x86_64")]
mod machine {
    /// `push rbp`.
    pub(crate) const FIRST: &[u8] = &[0x55];

    pub(crate) fn pc(registers: &libc::mcontext_t) -> usize {
        registers.gregs[libc::REG_RIP as usize] as usize
    }

    /// Does what the instruction at `pc` would have done.
    ///
    /// # Safety
    ///
    /// 1. It is [`FIRST`], with the registers as they are.
    /// 2. The interrupted stack is free below its pointer.
    pub(crate) unsafe fn save_frame_pointer(registers: &mut libc::mcontext_t, pc: usize) {
        registers.gregs[libc::REG_RSP as usize] -= 8;
        let place = registers.gregs[libc::REG_RSP as usize] as usize;
        let frame = registers.gregs[libc::REG_RBP as usize];
        // SAFETY: by 1. and 2. the instruction would have stored there.
        unsafe { core::ptr::with_exposed_provenance_mut::<i64>(place).write(frame) };
        registers.gregs[libc::REG_RIP as usize] = (pc + FIRST.len()) as i64;
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    /// `stp x29, x30, [sp, #-16]!`.
    pub(crate) const FIRST: &[u8] = &0xa9bf_7bfd_u32.to_le_bytes();

    pub(crate) fn pc(registers: &libc::mcontext_t) -> usize {
        registers.pc as usize
    }

    /// Does what the instruction at `pc` would have done.
    ///
    /// # Safety
    ///
    /// 1. It is [`FIRST`], with the registers as they are.
    /// 2. The interrupted stack is free below its pointer.
    pub(crate) unsafe fn save_frame_pointer(registers: &mut libc::mcontext_t, pc: usize) {
        registers.sp -= 16;
        let saved = [registers.regs[29], registers.regs[30]];
        // SAFETY: by 1. and 2. the instruction would have stored there.
        unsafe {
            core::ptr::with_exposed_provenance_mut::<[u64; 2]>(registers.sp as usize).write(saved)
        };
        registers.pc = (pc + FIRST.len()) as u64;
    }
}

fn install() {
    const STACK: usize = 64 * 1024;
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: memory that is never freed, of this thread alone.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }, 0);
    // SAFETY: zeros are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_trap as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is safe to run wherever a breakpoint stops a guest.
    assert_eq!(unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) }, 0);
}

/// One store of the two.
struct Store {
    registry: ModuleRegistry,
    start: StoreCodePc,
}

impl Store {
    fn new(engine: &Engine, module: &Module) -> Self {
        let mut registry = ModuleRegistry::new(engine);
        let start = registry.store_code_base_or_register(module).expect("memory");
        Self { registry, start: start.expect("it has text") }
    }

    /// Calls every function of the layout, and says how many breakpoints fired.
    fn run(&self, layout: &Layout) -> usize {
        let before = FIRED.load(SeqCst);
        for function in &layout.functions {
            let (a, b) = (12, 5);
            let code = self.start.checked_add(function.start).expect("an address");
            // SAFETY: (`call`) 1. a guest, in code that the registry keeps.
            let result = unsafe { call(code.as_ptr(), a, b) };
            assert_eq!(result, guests::expected(&function.guest, a, b), "{}", function.name);
        }
        FIRED.load(SeqCst) - before
    }
}

/// One test, for the handler and its notes are the process's.
#[test]
fn one_store_stops_and_the_other_does_not() {
    install();
    let engine = Engine::new(EngineConfig::new().private_copies(true)).expect("memory");
    let layout = Layout::new(1, 12);
    let code = EngineCode::load(&engine, layout.image()).expect("memory");
    let module = Module::new(&code, 0).expect("memory");
    let (mut one, other) = (Store::new(&engine, &module), Store::new(&engine, &module));
    assert_ne!(one.start, other.start);
    let id = one.registry.register_module(&module).expect("it is there");
    let original = code.text().to_vec();
    assert_eq!((one.run(&layout), other.run(&layout)), (0, 0));

    for (i, function) in layout.functions.iter().enumerate() {
        assert!(original[function.start..].starts_with(machine::FIRST), "{}", function.name);
        let at = function.range().start();
        assert_eq!(one.registry.set_breakpoint(id, at), Ok(true));
        assert_eq!(one.registry.set_breakpoint(id, at), Ok(false), "twice is once");
        // Those set before are still there, and each function stops in this store only.
        assert_eq!((one.run(&layout), other.run(&layout)), (i + 1, 0));
        // The last to stop was the last function that has one: this one. The handler found it by
        // the original's tables, at the copy's address.
        assert_eq!(OFFSET.load(SeqCst), function.start);
        assert_eq!(FUNCTION.load(SeqCst), function.key.index() as usize);
        let pc = StoreCodePc::new(PC.load(SeqCst));
        assert_eq!(pc, one.start.checked_add(function.start).expect("an address"));
        assert!(one.registry.has_breakpoint(pc) && !other.registry.has_breakpoint(pc));
        let frame = one.registry.lookup_frame_info(pc.address()).expect("a function");
        assert_eq!(frame.function().name, Some(&*function.name));
        assert_eq!(
            (code.text(), other.registry.store_code(&code).expect("loaded").text()),
            (&*original, &*original)
        );
    }

    // A module registered later changes nothing.
    let more = Layout::new(1, 3);
    let later = EngineCode::load(&engine, more.image()).expect("memory");
    let later = Module::new(&later, 0).expect("memory");
    let later_id = one.registry.register_module(&later).expect("memory");
    assert_eq!(one.run(&layout), layout.functions.len());
    let at = more.functions[1].range().start();
    assert_eq!(one.registry.set_breakpoint(later_id, at), Ok(true));
    assert_eq!(one.run(&layout), layout.functions.len());

    for (i, function) in layout.functions.iter().enumerate() {
        let at = function.range().start();
        assert_eq!(one.registry.clear_breakpoint(id, at), Ok(true));
        assert_eq!(one.registry.clear_breakpoint(id, at), Ok(false), "it is cleared");
        assert_eq!(one.run(&layout), layout.functions.len() - i - 1);
    }
    assert_eq!(one.registry.store_code(&code).expect("loaded").text(), original);
    assert_eq!(one.registry.breakpoints().count(), 1, "that of the later module");
    println!("breakpoints fired: {}", FIRED.load(SeqCst));
    assert_eq!(UNKNOWN.load(SeqCst), 0);
}
