#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "assembly")]
//! What the calling convention preserves is preserved by a trap: registers, control words, the
//! direction flag, the signal mask.

use crate::trap_guests::{Guest, prepared};
use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
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
    0xfd, // std
    0x0f, 0x0b, // ud2
];

#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    kept: [u64; 4],
    mxcsr: u32,
    control: u16,
    /// 0xffff if the x87 stack is empty.
    tags: u16,
    direction: bool,
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
    state
}

#[test]
fn a_rude_guest_changes_nothing() {
    let mut image = CodeImage::builder(RUDE.to_vec());
    let trap = RUDE.len() - 2;
    image.function(FuncKey::new(0, 0), 0..RUDE.len(), "rude").expect("in the text");
    image.trap(trap, TrapCode::new(1)).expect("in the text");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("whole")).expect("memory");
    let start = code.text_range().start.as_ptr();
    // SAFETY: it takes nothing, and does not return.
    let rude = unsafe { std::mem::transmute::<*const u8, Guest>(start) };
    let thread = prepared();
    let before = state();
    assert_eq!((before.tags, before.direction), (0xffff, false));
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
