//! Whether an x86-64 function has its frame at an instruction, as far as its text tells; and what a call in
//! the text calls.
//!
//! Instructions have different lengths, so the text cannot be read backwards for certain: a byte that looks like
//! the end of a frame may be a part of something else. Then there is a doubt, which the stack can settle.

use super::{Call, Setup, Unframed};

/// How far from a function's start its frame is set up, and how long what follows the end of a frame may be.
const REACH: usize = 64;

/// Whether the function has its frame at its byte `at`; `byte` gives a byte of its text, by the offset in it.
/// Signal-safe: a bounded number of bytes.
pub(crate) fn setup(byte: impl Fn(usize) -> Option<u8>, at: usize) -> Setup {
    let is = |from: usize, text: &[u8]| text.iter().zip(from..).all(|(&it, i)| byte(i) == Some(it));
    // push rbp; ret; ret, and so many bytes of arguments with it; a function's first instruction
    if at == 0 || is(at, &[0x55]) || is(at, &[0xc3]) || is(at, &[0xc2]) {
        return Setup::Not(Unframed::OnStack(0));
    }
    // mov rbp, rsp
    if is(at, &[0x48, 0x89, 0xe5]) || is(at, &[0x48, 0x8b, 0xec]) {
        return Setup::Not(Unframed::OnStack(8));
    }
    let pair =
        |&from: &usize| is(from, &[0x55, 0x48, 0x89, 0xe5]) || is(from, &[0x55, 0x48, 0x8b, 0xec]);
    let Some(start) = (0..REACH.min(at)).find(pair) else {
        return Setup::Untold;
    };
    let first = (start + 4).max(at.saturating_sub(REACH));
    // pop rbp, but not pop r13; leave
    let ends = |&i: &usize| (is(i, &[0x5d]) && !is(i - 1, &[0x41])) || is(i, &[0xc9]);
    // What leaves the function, and how long it is: what stands behind is jumped to, from where there is a
    // frame. (No `match`, as it becomes a jump through a table.)
    let by_register = |i| byte(i).is_some_and(|operand| operand & 0xf8 == 0xe0);
    let left = |i: usize| {
        // ret; ret, and so many bytes of arguments with it; rep ret
        let returns = [(is(i, &[0xc3]), 1), (is(i, &[0xc2]), 3), (is(i, &[0xf3, 0xc3]), 2)];
        // jmp, short and near; through a register
        let jumps = [
            (is(i, &[0xeb]), 2),
            (is(i, &[0xe9]), 5),
            (is(i, &[0xff]) && by_register(i + 1), 2),
            (is(i, &[0x41, 0xff]) && by_register(i + 2), 3),
        ];
        let found = returns.into_iter().chain(jumps).find(|(is_there, _)| *is_there);
        found.map_or(usize::MAX, |(_, len)| i + len)
    };
    match (first..at).rev().find(ends) {
        Some(end) if left(end + 1) > at => Setup::Perhaps,
        _ => Setup::Done,
    }
}

/// What the instruction before a return address calls; `byte` gives the byte so far before that.
/// Signal-safe: a few bytes.
pub(crate) fn call_before(return_address: usize, byte: impl Fn(usize) -> Option<u8>) -> Call {
    if byte(5) == Some(0xe8) {
        let distance = [4, 3, 2, 1].map(|before| byte(before).unwrap_or(0));
        let distance = i32::from_le_bytes(distance) as isize;
        return Call::Of(return_address.wrapping_add_signed(distance));
    }
    // call [...] with different displacements, or through a register: the third bits of what follows 0xff.
    let is_indirect = |before| {
        byte(before) == Some(0xff) && byte(before - 1).is_some_and(|operand| operand >> 3 & 7 == 2)
    };
    if [2, 3, 4, 6, 7].into_iter().any(is_indirect) { Call::Indirect } else { Call::None }
}

#[cfg(test)]
mod tests {
    use super::{call_before, setup};
    use crate::sys::signals::machine::{Call, Setup, Unframed};

    #[test]
    fn each_boundary() {
        use Setup::{Done, Perhaps, Untold};
        const TOP: Setup = Setup::Not(Unframed::OnStack(0));
        const ABOVE: Setup = Setup::Not(Unframed::OnStack(8));
        /// Code, and what is so at some of its boundaries.
        type Case = (&'static [u8], &'static [(usize, Setup)]);
        let cases: [Case; 6] = [
            // push rbp; mov rbp, rsp; nop; pop rbp; ret; ud2
            (
                &[0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0xc3, 0x0f, 0x0b],
                &[(0, TOP), (1, ABOVE), (4, Done), (5, Done), (6, TOP), (7, Done)],
            ),
            // …; pop rbp; test [rsi], eax; ret
            (
                &[0x55, 0x48, 0x89, 0xe5, 0x5d, 0x85, 0x06, 0xc3],
                &[(4, Done), (5, Perhaps), (7, TOP)],
            ),
            // …; pop rbp; jmp rdx; ud2
            (&[0x55, 0x48, 0x89, 0xe5, 0x5d, 0xff, 0xe2, 0x0f, 0x0b], &[(5, Perhaps), (7, Done)]),
            // …; leave; vzeroupper; ret
            (
                &[0x55, 0x48, 0x8b, 0xec, 0xc9, 0xc5, 0xf8, 0x77, 0xc3],
                &[(4, Done), (5, Perhaps), (8, TOP)],
            ),
            // endbr64; push rbp; mov rbp, rsp; pop r13; nop
            (
                &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x41, 0x5d, 0x90],
                &[(0, TOP), (4, TOP), (5, ABOVE), (8, Done), (10, Done)],
            ),
            // No frame: mov rax, rdi; mov rax, [rax]; ret
            (&[0x48, 0x89, 0xf8, 0x48, 0x8b, 0x00, 0xc3], &[(0, TOP), (3, Untold), (6, TOP)]),
        ];
        for (text, boundaries) in cases {
            for &(at, expected) in boundaries {
                assert_eq!(setup(|i| text.get(i).copied(), at), expected, "{text:x?} at {at}");
            }
        }
    }

    #[test]
    fn calls() {
        let before = |text: &'static [u8]| {
            call_before(0x1000, |i| text.len().checked_sub(i).and_then(|i| text.get(i).copied()))
        };
        assert_eq!(before(&[0xe8, 0xf0, 0xff, 0xff, 0xff]), Call::Of(0xff0));
        assert_eq!(before(&[0xff, 0xd0]), Call::Indirect);
        assert_eq!(before(&[0xff, 0x15, 1, 0, 0, 0]), Call::Indirect);
        assert_eq!((before(&[0x90, 0x90]), before(&[])), (Call::None, Call::None));
    }
}
