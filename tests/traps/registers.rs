#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "assembly")]
//! What the calling convention preserves is preserved by a trap, and what it expects is there: registers,
//! control words, flags, the state of the x87 and vector units.

use crate::trap_guests::{Guest, prepared};
use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
use pcmap::trap::host_call;
use std::arch::asm;

/// Changes everything that it must not change, and traps.
const RUDE: &[u8] = &[
    0x48, 0x31, 0xdb, // xor rbx, rbx
    0x48, 0x31, 0xed, // xor rbp, rbp
    0x4d, 0x31, 0xe4, // xor r12, r12
    0x4d, 0x31, 0xed, // xor r13, r13
    0x4d, 0x31, 0xf6, // xor r14, r14
    0x4d, 0x31, 0xff, // xor r15, r15
    0x68, 0x80, 0x7f, 0x00, 0x00, // push 0x7f80: other rounding
    0x0f, 0xae, 0x14, 0x24, // ldmxcsr [rsp]
    0x68, 0x7f, 0x0f, 0x00, 0x00, // push 0x0f7f: other rounding
    0xd9, 0x2c, 0x24, // fldcw [rsp]
    0xd9, 0xe8, // fld1
    0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8,
    0xfd, // std
    0x9c, // pushfq
    0x81, 0x0c, 0x24, 0x00, 0x00, 0x04, 0x00, // or dword [rsp], 1 << 18: alignment checks
    0x9d, // popfq
];
/// Turns x87 registers into MMX registers.
const MMX: &[u8] = &[0x48, 0x0f, 0x6e, 0xc7]; // movq mm0, rdi
const TRAP: &[u8] = &[0x0f, 0x0b]; // ud2

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    kept: [u64; 4],
    mxcsr: u32,
    control: u16,
    /// 0xffff if the x87 stack is empty.
    tags: u16,
    direction: bool,
    alignment: bool,
}

/// Reads what is preserved.
fn state() -> State {
    let mut state = State::default();
    let mut environment = [0_u8; 28];
    let flags: u64;
    // SAFETY: stores to the places given, and reads flags.
    unsafe {
        asm!(
            "stmxcsr [{mxcsr}]",
            "fnstenv [{environment}]",
            "fldenv [{environment}]",
            "pushfq",
            "pop {flags}",
            mxcsr = in(reg) &raw mut state.mxcsr,
            environment = in(reg) environment.as_mut_ptr(),
            flags = out(reg) flags,
        );
    }
    state.control = u16::from_le_bytes([environment[0], environment[1]]);
    state.tags = u16::from_le_bytes([environment[8], environment[9]]);
    state.direction = flags & (1 << 10) != 0;
    state.alignment = flags & (1 << 18) != 0;
    state
}

fn changes_nothing(rude: &[u8]) {
    let mut image = CodeImage::builder(rude.to_vec());
    let trap = rude.len() - TRAP.len();
    image.function(FuncKey::new(0, 0), 0..rude.len(), "rude").expect("in the text");
    // Tables whose entries are not aligned.
    for at in (0..trap).step_by(3).chain([trap]) {
        image.trap(at, TrapCode::new(1)).expect("in the text");
    }
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    let start = code.text_range().start.as_ptr();
    // SAFETY: it takes nothing, and does not return.
    let rude = unsafe { std::mem::transmute::<*const u8, Guest>(start) };
    let thread = prepared();
    let before = state();
    assert_eq!((before.tags, before.direction, before.alignment), (0xffff, false, false));
    for round in 0..100_u64 {
        // The compiler keeps some of these in registers that the guest has changed.
        let kept: [u64; 8] = std::array::from_fn(|i| std::hint::black_box(round + i as u64));
        let result = thread.catch_traps(|activation| {
            // SAFETY: (`call`) 1. kept by `code`; 2. it leaves nothing; 3. it calls nothing; 4. here.
            unsafe { activation.call(rude, (0, 0, 0)) }
        });
        assert_eq!(result.expect_err("it traps").pc(), Some(start.addr() + trap));
        assert_eq!(state(), before);
        assert!((0..8).all(|i| kept[i as usize] == round + i));
    }
}

#[test]
fn a_rude_guest_changes_nothing() {
    changes_nothing(&[RUDE, TRAP].concat());
    changes_nothing(&[RUDE, MMX, TRAP].concat());
}

/// A panic that is carried over a guest, too: host functions that it calls get what it has.
#[test]
fn a_panic_over_a_rude_guest_changes_nothing() {
    unsafe extern "C" fn throws(_: i64, _: i64, _: i64) -> i64 {
        // SAFETY: (`host_call`) 1. called by guests; 2. there is nothing else here.
        unsafe { host_call(|| std::panic::resume_unwind(Box::new(5))) }
    }
    // Other rounding, x87 registers in use; and then it calls what it is given.
    let text = [
        &[0x53_u8, 0x55][..],                              // push rbx; push rbp
        &RUDE[18..RUDE.len() - 10], // without the flags, which a call wants as they are
        &[0x58, 0x58, 0x31, 0xdb, 0x6a, 0x00, 0xff, 0xd7], // pop rax, twice; xor ebx, ebx; push 0; call rdi
    ]
    .concat();
    let mut image = CodeImage::builder(text.clone());
    image.function(FuncKey::new(0, 0), 0..text.len(), "rude").expect("in the text");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    // SAFETY: it takes a function, and does not return.
    let rude = unsafe { std::mem::transmute::<*const u8, Guest>(code.text_range().start.as_ptr()) };
    let (thread, before) = (prepared(), state());
    for _ in 0..10 {
        let run = || {
            thread.catch_traps(|it| {
                let throws = throws as *const () as i64;
                // SAFETY: (`call`) 1. kept by `code`; 2. it leaves nothing; 3. in `host_call`; 4. here.
                unsafe { it.call(rude, (throws, 0, 0)) }
            })
        };
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        assert_eq!(panic.expect_err("it panics").downcast_ref::<i32>(), Some(&5));
        assert_eq!(state(), before);
    }
}
