//! Numbers in byte tables: little-endian, at any alignment.
//!
//! What is read here may be read in a signal handler, from any bytes: a number that is not wholly
//! inside the bytes is `None`, and no arithmetic overflows.

/// The two bytes at `position`.
#[inline]
pub(super) fn u16_at(bytes: &[u8], position: usize) -> Option<u16> {
    let rest = bytes.get(position..)?;
    rest.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

/// The four bytes at `position`.
#[inline]
pub(super) fn u32_at(bytes: &[u8], position: usize) -> Option<u32> {
    let rest = bytes.get(position..)?;
    rest.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// Where number `index` of a column stands that starts at `base`.
#[inline]
pub(super) fn place(base: usize, index: usize, size: usize) -> Option<usize> {
    base.checked_add(index.checked_mul(size)?)
}

/// A count or a position, as a number of things in memory.
#[inline]
pub(super) const fn widen(number: u32) -> usize {
    const { assert!(size_of::<usize>() >= size_of::<u32>(), "tables are counted in 32 bits") };
    number as usize
}
