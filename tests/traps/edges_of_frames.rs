#![cfg(target_arch = "x86_64")]
#![expect(unsafe_code, reason = "calls machine code")]
//! Traps where a function has no frame, or may have none: the caller is told, or the trace does not claim to
//! be complete.

use crate::trap_guests::{Guest, prepared};
use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};

/// A text of functions: each at a multiple of 64.
struct Text {
    bytes: Vec<u8>,
    traps: Vec<usize>,
}

const EACH: usize = 64;

impl Text {
    /// Adds a function, and a trap at so many bytes in it; gives where the function is.
    fn add(&mut self, function: &[u8], trap: Option<usize>) -> usize {
        let start = self.bytes.len();
        self.traps.extend(trap.map(|at| start + at));
        self.bytes.extend(function);
        self.bytes.resize(start + EACH, 0xcc);
        start
    }

    /// A function with a frame, which calls one that is there already.
    fn caller(&mut self, of: usize) -> usize {
        let distance = (of as i32 - (self.bytes.len() as i32 + 9)).to_le_bytes();
        self.add(&[&[0x55, 0x48, 0x89, 0xe5, 0xe8], &distance[..], &[0x5d, 0xc3]].concat(), None)
    }

    fn load(self) -> EngineCode {
        let mut image = CodeImage::builder(self.bytes.clone());
        for (start, index) in (0..self.bytes.len()).step_by(EACH).zip(0..) {
            image
                .function(FuncKey::new(0, index), start..start + EACH, "guest")
                .expect("in the text");
        }
        for at in self.traps {
            image.trap(at, TrapCode::new(1)).expect("in the text");
        }
        let engine = Engine::new(EngineConfig::new()).expect("memory");
        EngineCode::load(&engine, image.finish().expect("whole")).expect("memory")
    }
}

/// Runs the function at `start`, which traps; gives which functions the frames are of, and whether these are
/// all.
fn frames(code: &EngineCode, start: usize, with: [i64; 3]) -> (Vec<usize>, bool) {
    let base = code.text_range().start;
    let at = base.as_ptr().wrapping_add(start);
    // SAFETY: such a function.
    let guest = unsafe { std::mem::transmute::<*const u8, Guest>(at) };
    let [a, b, c] = with;
    // SAFETY: (`call`) 1. kept by `code`; 2. to 4. they call each other only.
    let run = prepared().catch_traps(|it| unsafe { it.call(guest, (a, b, c)) });
    let trap = run.expect_err("it traps");
    let function = |pc: usize| (pc - base.address()) / EACH;
    (trap.frames().map(|it| function(it.lookup_address())).collect(), trap.has_all_frames())
}

/// What functions do before they have a frame, or when they have none any more; and where in it they trap.
const LEAVES: [(&[u8], usize); 7] = [
    // push rbp; mov rbp, rsp; pop rbp; test [rdi], eax; ret: a poll
    (&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0x85, 0x07, 0xc3], 5),
    // …; leave; vzeroupper; test [rdi], eax; ret
    (&[0x55, 0x48, 0x89, 0xe5, 0xc9, 0xc5, 0xf8, 0x77, 0x85, 0x07, 0xc3], 8),
    // …; pop rbp; jmp [rdi]: a tail call
    (&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xff, 0x27], 5),
    // endbr64; mov [rdi], eax; push rbp; …: a store before the frame
    (&[0xf3, 0x0f, 0x1e, 0xfa, 0x89, 0x07, 0x55, 0x48, 0x89, 0xe5, 0x5d, 0xc3], 4),
    // mov eax, [rdi]; ret: no frame
    (&[0x8b, 0x07, 0xc3], 0),
    // nop; mov eax, [rdi]; ret: no frame
    (&[0x90, 0x8b, 0x07, 0xc3], 1),
    // push rbp; mov rbp, rsp; mov rbx, [rbp - 8], whose bytes look like a `pop rbp`; mov eax, [rdi]
    (&[0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x5d, 0xf8, 0x8b, 0x07, 0x5d, 0xc3], 8),
];

#[test]
fn callers_that_call_directly() {
    for (leaf, trap) in LEAVES {
        let mut text = Text { bytes: Vec::new(), traps: Vec::new() };
        let leaf = text.add(leaf, Some(trap));
        let middle = text.caller(leaf);
        let outer = text.caller(middle);
        let code = text.load();
        assert_eq!(frames(&code, outer, [0; 3]), (vec![0, 1, 2], true), "{trap}");
        assert_eq!(frames(&code, middle, [0; 3]), (vec![0, 1], true));
    }
}

/// Calls through registers do not tell what they call: either the caller is there, or the trace says that
/// frames may be missing.
#[test]
fn callers_that_call_through_registers() {
    // push rbp; mov rbp, rsp; call rsi; pop rbp; ret, and the same with rdx
    const FIRST: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0xff, 0xd6, 0x5d, 0xc3];
    const SECOND: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0xff, 0xd2, 0x5d, 0xc3];
    for (i, (leaf, trap)) in LEAVES.into_iter().enumerate() {
        let mut text = Text { bytes: Vec::new(), traps: Vec::new() };
        let leaf = text.add(leaf, Some(trap));
        let middle = text.add(FIRST, None);
        let outer = text.add(SECOND, None);
        let code = text.load();
        let address = |at: usize| (code.text_range().start.address() + at) as i64;
        let found = frames(&code, outer, [0, address(leaf), address(middle)]);
        // A function's first instruction, and one that has its frame.
        let told = matches!(i, 4 | 6);
        assert_eq!(found, if told { (vec![0, 1, 2], true) } else { (vec![0, 2], false) }, "{i}");
    }
}

/// A function that calls itself leaves the same on the stack with a frame and without.
#[test]
fn a_function_that_calls_itself() {
    // push rbp; mov rbp, rsp; dec rsi; js +5; call itself; pop rbp; test [rdi], eax; ret
    const ITSELF: &[u8] = &[
        0x55, 0x48, 0x89, 0xe5, 0x48, 0xff, 0xce, 0x78, 0x05, 0xe8, 0xf2, 0xff, 0xff, 0xff, 0x5d,
        0x85, 0x07, 0xc3,
    ];
    let mut text = Text { bytes: Vec::new(), traps: Vec::new() };
    let itself = text.add(ITSELF, Some(15));
    let outer = text.caller(itself);
    let code = text.load();
    for depth in 0..5_usize {
        let (found, complete) = frames(&code, outer, [0, depth as i64, 0]);
        let missing = depth + 2 - found.len();
        assert!(missing == 0 || (missing == 1 && !complete), "{depth}: {found:?}");
        assert_eq!(found.last(), Some(&1));
    }
}
