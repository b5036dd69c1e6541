//! Whether an x86-64 instruction can have raised a general-protection exception, whose signal tells neither
//! cause nor address.
//!
//! The kernel's record of a thread's last exception is not enough: it stays until the next one. So a signal
//! frame that does not fit, long after an access to what is no address, looks like another such access. Of
//! plain accesses the instruction and the registers tell better.

/// The longest instruction.
pub(crate) const LONGEST: usize = 15;

/// A bit for each value of an opcode. (A `match` would become a jump through a table, which the reader of a
/// disassembly cannot follow.)
type Opcodes = [u64; 4];

const fn opcodes(ranges: &[(u8, u8)]) -> Opcodes {
    let mut set = [0; 4];
    let mut i = 0;
    while i < ranges.len() {
        let mut opcode = ranges[i].0 as usize;
        while opcode <= ranges[i].1 as usize {
            set[opcode / 64] |= 1 << (opcode % 64);
            opcode += 1;
        }
        i += 1;
    }
    set
}

fn contains(set: &Opcodes, opcode: u8) -> bool {
    set.get(usize::from(opcode / 64)).is_some_and(|word| word >> (opcode % 64) & 1 != 0)
}

/// Arithmetic, moves and tests with an operand in memory.
const PLAIN: Opcodes = opcodes(&[
    (0x00, 0x03),
    (0x08, 0x0b),
    (0x10, 0x13),
    (0x18, 0x1b),
    (0x20, 0x23),
    (0x28, 0x2b),
    (0x30, 0x33),
    (0x38, 0x3b),
    (0x63, 0x63),
    (0x69, 0x69),
    (0x6b, 0x6b),
    (0x80, 0x81),
    (0x83, 0x8b),
    (0xc0, 0xc1),
    (0xc6, 0xc7),
    (0xd0, 0xd3),
    (0xd8, 0xdf),
    (0xf6, 0xf7),
    (0xfe, 0xfe),
]);
/// Behind 0x0f: moves of vectors that need no alignment; conditional and extending moves, multiplication.
const VECTORS_AND_MORE: Opcodes =
    opcodes(&[(0x10, 0x11), (0x40, 0x4f), (0x6e, 0x6e), (0xaf, 0xaf), (0xb6, 0xb7), (0xbe, 0xbf)]);

/// Whether the instruction is a plain access to memory at what is an address, which raises no such exception.
/// (Of what is not known here: no.) `register` gives a register by its number. Signal-safe: arithmetic, and
/// bytes by `get`.
pub(crate) fn is_plain_access(text: &[u8], register: impl Fn(u8) -> u64) -> bool {
    let address = || {
        let mut text = text.iter().copied();
        let mut next = || text.next();
        let mut byte = next()?;
        // Operand size and repetition; other segments and shorter addresses are not known.
        while matches!(byte, 0x66 | 0xf2 | 0xf3) {
            byte = next()?;
        }
        let mut rex = 0;
        if byte & 0xf0 == 0x40 {
            rex = byte;
            byte = next()?;
        }
        let known = match byte {
            0x0f => contains(&VECTORS_AND_MORE, next()?),
            _ => contains(&PLAIN, byte),
        };
        let operand = next().filter(|_| known)?;
        let (mode, low) = (operand >> 6, operand & 7);
        if mode == 3 {
            return None;
        }
        // By way of the program counter, what is meant lies near the text; by way of the stack pointer or
        // the frame pointer, another exception is raised.
        let mut base = Some(low | (rex & 1) << 3);
        let mut index = 0;
        if low == 4 {
            let scaled = next()?;
            let (number, scale) = (scaled >> 3 & 7 | (rex & 2) << 2, scaled >> 6);
            if number != 4 {
                index = register(number) << scale;
            }
            base = Some(scaled & 7 | (rex & 1) << 3).filter(|_| mode != 0 || scaled & 7 != 5);
        } else if mode == 0 && low == 5 {
            return Some(0);
        }
        let mut displacement = || {
            let mut bytes = [0; 4];
            for byte in bytes.iter_mut().take(if mode == 1 { 1 } else { 4 }) {
                *byte = next()?;
            }
            let long = i64::from(i32::from_le_bytes(bytes));
            Some(if mode == 1 { i64::from(bytes[0] as i8) } else { long })
        };
        let displacement = if mode != 0 || base.is_none() { displacement()? } else { 0 };
        let base = base.map_or(0, &register);
        Some(base.wrapping_add(index).wrapping_add(displacement as u64))
    };
    // An operand may reach beyond the last address.
    const MOST: u64 = 63;
    let is_address = |at: u64| matches!((at as i64) >> 47, 0 | -1);
    address().is_some_and(|at: u64| is_address(at) && is_address(at.wrapping_add(MOST)))
}

#[cfg(test)]
mod tests {
    use super::is_plain_access;

    const NONE: u64 = 1 << 62;
    const END: u64 = (1 << 47) - 8;

    #[test]
    fn addresses_are_computed_as_the_processor_does() {
        // Registers: 0 (rax) is no address, 1 (rcx) is 8, 9 (r9) the last word of the lower half.
        let register = |number| match number {
            0 => NONE,
            9 => END,
            _ => 8,
        };
        let cases: [(&[u8], bool); 18] = [
            (&[0x48, 0x8b, 0x01], true),                   // mov rax, [rcx]
            (&[0x48, 0x8b, 0x00], false),                  // mov rax, [rax]
            (&[0x89, 0x41, 0x7f], true),                   // mov [rcx + 127], eax
            (&[0x89, 0x81, 0x00, 0x01, 0x00, 0x00], true), // mov [rcx + 256], eax
            (&[0x89, 0x81, 0x00], false),                  // cut short
            (&[0x8b, 0x04, 0x08], false),                  // mov eax, [rax + rcx]
            (&[0x8b, 0x04, 0x01], false),                  // mov eax, [rcx + rax]
            (&[0x8b, 0x04, 0x49], true),                   // mov eax, [rcx + rcx * 2]
            (&[0x41, 0x8b, 0x01], false),                  // mov eax, [r9], which may be long
            (&[0x41, 0x8b, 0x41, 0x80], true),             // mov eax, [r9 - 128]
            (&[0x42, 0x8b, 0x04, 0x09], false),            // mov eax, [rcx + r9]
            (&[0x8b, 0x05, 0, 0, 0, 0], true),             // mov eax, [rip]
            (&[0x8b, 0x04, 0x25, 0, 0, 0, 0x10], true),    // mov eax, [0x10000000]
            (&[0x0f, 0xb6, 0x01], true),                   // movzx eax, byte [rcx]
            (&[0xf3, 0x0f, 0x10, 0x01], true),             // movss xmm0, [rcx]
            (&[0x0f, 0x28, 0x01], false),                  // movaps, which needs alignment
            (&[0xfa], false),                              // cli
            (&[0x64, 0x8b, 0x01], false),                  // mov eax, fs:[rcx]
        ];
        for (text, is_plain) in cases {
            assert_eq!(is_plain_access(text, register), is_plain, "{text:x?}");
        }
        assert!(!is_plain_access(&[], register) && !is_plain_access(&[0x8b, 0xc1], register));
    }
}
