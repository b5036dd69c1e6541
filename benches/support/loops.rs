//! The loops around lookups, the same for every contender and compiled for each.

use crate::clock::ticks;
use crate::contender::Lookup;
use std::hint::black_box;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::Instant;

/// A contender whose type no longer matters.
pub(crate) trait Contender: Sync {
    fn name(&self) -> &'static str;

    /// Nanoseconds a lookup; each address depends on the answer before.
    fn dependent(&self, probes: &[usize], first: usize, lookups: usize) -> f64;

    /// Nanoseconds a lookup; the processor may begin one before the last has ended.
    fn independent(&self, probes: &[usize], first: usize, lookups: usize) -> f64;

    /// Ticks of a single lookup.
    fn once(&self, pc: usize) -> u64;
}

impl<L: Lookup> Contender for L {
    fn name(&self) -> &'static str {
        L::NAME
    }

    #[inline(never)]
    fn dependent(&self, probes: &[usize], first: usize, lookups: usize) -> f64 {
        let mask = probes.len() - 1;
        let mut answer = 0;
        let began = Instant::now();
        for k in first..first + lookups {
            // No answer has the highest bit set, but neither the compiler nor the processor knows.
            let position = (k & mask) ^ (black_box(answer) >> (usize::BITS - 1));
            answer = self.find(probes[position]).unwrap_or(0);
        }
        black_box(answer);
        began.elapsed().as_nanos() as f64 / lookups as f64
    }

    #[inline(never)]
    fn independent(&self, probes: &[usize], first: usize, lookups: usize) -> f64 {
        let mask = probes.len() - 1;
        let mut answers = 0;
        let began = Instant::now();
        for k in first..first + lookups {
            answers ^= self.find(probes[k & mask]).unwrap_or(0);
        }
        black_box(answers);
        began.elapsed().as_nanos() as f64 / lookups as f64
    }

    #[inline(never)]
    fn once(&self, pc: usize) -> u64 {
        // Nobody pays for stores that were under way before, though only some contenders make the
        // processor wait for them.
        fence(SeqCst);
        let began = ticks();
        black_box(self.find(black_box(pc)));
        ticks() - began
    }
}
