//! Random numbers, cheap enough to draw between two faults: a 64-bit xorshift with a multiplier.

/// One thread's source. Nothing depends on its quality, only on variety.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Streams of different numbers differ.
    pub(crate) fn stream(number: u64) -> Self {
        // An odd multiple of the golden ratio: never zero, which would be a fixed point.
        Self((2 * number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is small.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    pub(crate) fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}
