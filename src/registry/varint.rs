//! Numbers of one to five bytes in packed tables: seven bits a byte, the lowest first, the upper
//! bit set in all but the last.
//!
//! Reading is safe on any bytes, as in `little_endian`.

/// Five bytes have 35 bits: a 32-bit number and up to three flags.
pub(super) const LONGEST: usize = 5;

/// Appends `number`, of at most 35 bits, to bytes that have room.
pub(super) fn write(bytes: &mut Vec<u8>, mut number: u64) {
    debug_assert!(number >> (7 * LONGEST) == 0, "{number} is too long");
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a number from the front of `bytes`, and tells how many bits of it were written.
fn read_counted(bytes: &mut &[u8]) -> Option<(u64, u32)> {
    let mut number = 0;
    for shift in (0..).step_by(7).take(LONGEST) {
        let byte = byte(bytes)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((number, shift + 7));
        }
    }
    None
}

/// Takes a number from the front of `bytes`.
pub(super) fn read(bytes: &mut &[u8]) -> Option<u64> {
    read_counted(bytes).map(|(number, _)| number)
}

/// Takes a number with a sign from the front of `bytes`: two's complement in as many bits as were
/// written.
#[cfg(feature = "elf")]
pub(super) fn read_signed(bytes: &mut &[u8]) -> Option<i64> {
    let (number, bits) = read_counted(bytes)?;
    let unused = u64::BITS - bits;
    Some((number << unused).cast_signed() >> unused)
}

/// Takes a byte from the front of `bytes`.
pub(super) fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}
