//! What each guest must do, computed without running it.
//!
//! A guest's model draws arguments and says how the call must end: with this value, or in this
//! trap of this function. Which offset that is, the compiler's list says, not the model.

use super::guest_memory::GuestMemory;
use super::random::Random;
use cranelift_codegen::ir::TrapCode;

/// A guest function, known by its name in the source.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    /// Draws a call.
    pub(crate) draw: fn(&mut Random, &GuestMemory) -> Call,
}

/// Arguments, and the outcome they lead to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Returns(u64),
    /// The trap with this code in this function of the same unit.
    Traps {
        function: &'static str,
        code: TrapCode,
    },
}

use Outcome::{Returns, Traps};

pub(crate) const LOADS: &[Guest] = &[
    Guest {
        name: "load_word",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random), random.next());
            let trap = Traps { function: "load_word", code: TrapCode::HEAP_OUT_OF_BOUNDS };
            Call { a, b, outcome: memory.word(a).map_or(trap, |word| Returns(word ^ b)) }
        },
    },
    Guest {
        name: "load_two",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random), memory.draw(random));
            let outcome = match (memory.word(a), memory.word(b)) {
                (Some(first), Some(second)) => Returns(first.wrapping_add(second)),
                (None, _) => Traps { function: "load_two", code: user(1) },
                (_, None) => Traps { function: "load_two", code: user(2) },
            };
            Call { a, b, outcome }
        },
    },
    Guest {
        name: "load_byte",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random) + random.below(8) as u64, random.next());
            let trap = Traps { function: "load_byte", code: user(3) };
            let product = |byte| Returns(u64::from(byte).wrapping_mul(b));
            Call { a, b, outcome: memory.byte(a).map_or(trap, product) }
        },
    },
    Guest {
        name: "store_word",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random), random.next());
            Call { a, b, outcome: Traps { function: "store_word", code: user(4) } }
        },
    },
    Guest {
        name: "sum_words",
        draw: |random, memory| {
            let (a, b) = (memory.draw_readable(random), random.below(100) as u64);
            let sum = (0..b).try_fold(0_u64, |sum, i| {
                memory.word(a + 8 * i).map(|word| sum.wrapping_add(word))
            });
            let trap = Traps { function: "sum_words", code: user(5) };
            Call { a, b, outcome: sum.map_or(trap, Returns) }
        },
    },
];

pub(crate) const TRAPS: &[Guest] = &[
    Guest {
        name: "unreachable",
        draw: |random, _| {
            let outcome = Traps { function: "unreachable", code: user(10) };
            Call { a: random.next(), b: random.next(), outcome }
        },
    },
    Guest {
        name: "require",
        draw: |random, _| {
            let (a, b) = (random.below(3) as u64, random.below(2) as u64);
            let outcome = match (a, b) {
                (0, _) => Traps { function: "require", code: user(11) },
                (_, 0) => Returns(a * 7),
                (_, _) => Traps { function: "require", code: user(12) },
            };
            Call { a, b, outcome }
        },
    },
    Guest {
        name: "choose",
        draw: |random, _| {
            let (a, b) = (random.below(3) as u64, random.next());
            let outcome = match a {
                0 => Traps { function: "choose", code: user(13) },
                1 => Traps { function: "choose", code: user(14) },
                _ => Returns(b.wrapping_sub(a)),
            };
            Call { a, b, outcome }
        },
    },
];

pub(crate) const DIVISIONS: &[Guest] = &[
    Guest {
        name: "quotient",
        draw: |random, _| {
            let (a, b) = (random.next(), random.below(3) as u64);
            Call { a, b, outcome: unless_by_zero("quotient", a.checked_div(b)) }
        },
    },
    Guest {
        name: "remainder",
        draw: |random, _| {
            let (a, b) = (random.next(), random.below(3) as u64);
            Call { a, b, outcome: unless_by_zero("remainder", a.checked_rem(b)) }
        },
    },
    Guest {
        name: "signed_quotient",
        draw: |random, _| {
            let (a, b) = signed_pair(random);
            let outcome = match (a.checked_div(b), b) {
                (Some(quotient), _) => Returns(quotient as u64),
                (None, 0) => unless_by_zero("signed_quotient", None),
                (None, _) => {
                    Traps { function: "signed_quotient", code: TrapCode::INTEGER_OVERFLOW }
                }
            };
            Call { a: a as u64, b: b as u64, outcome }
        },
    },
    Guest {
        name: "signed_remainder",
        draw: |random, _| {
            let (a, b) = signed_pair(random);
            let remainder = (b != 0).then(|| a.wrapping_rem(b) as u64);
            let outcome = unless_by_zero("signed_remainder", remainder);
            Call { a: a as u64, b: b as u64, outcome }
        },
    },
];

pub(crate) const ARITHMETIC: &[Guest] = &[
    Guest {
        name: "scramble",
        draw: |random, _| {
            let (a, b) = (random.next(), random.next());
            let x = a ^ (a << 13);
            let x = x ^ (x >> 7);
            let x = x ^ (x << 17);
            Call { a, b, outcome: Returns(x.wrapping_mul(b).rotate_left(13)) }
        },
    },
    Guest {
        name: "fibonacci",
        draw: |random, _| {
            // The guest takes a step at a time, and so runs for a while.
            let a = random.below(40_000) as u64;
            Call { a, b: 0, outcome: Returns(fibonacci_pair(a).0) }
        },
    },
    Guest {
        name: "common_divisor",
        draw: |random, _| {
            let (a, b) = (1 + random.below(500) as u64, 1 + random.below(500) as u64);
            let (mut x, mut y) = (a, b);
            while y != 0 {
                (x, y) = (y, x % y);
            }
            Call { a, b, outcome: Returns(x) }
        },
    },
];

pub(crate) const CALLS: &[Guest] = &[
    Guest {
        name: "descend",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random), random.below(12) as u64);
            let trap = Traps { function: "descend", code: user(20) };
            let sum = |word: u64| Returns(word.wrapping_add(b * (b + 1) / 2));
            Call { a, b, outcome: memory.word(a).map_or(trap, sum) }
        },
    },
    Guest {
        name: "fetch",
        draw: |random, memory| {
            let a = memory.draw(random);
            let trap = Traps { function: "fetch", code: user(21) };
            Call { a, b: 0, outcome: memory.word(a).map_or(trap, |word| Returns(!word)) }
        },
    },
    Guest {
        name: "share",
        draw: |random, memory| {
            let (a, b) = (memory.draw(random), random.below(3) as u64);
            let trap = Traps { function: "fetch", code: user(21) };
            let shared = |word: u64| unless_by_zero("share", (!word).checked_div(b));
            Call { a, b, outcome: memory.word(a).map_or(trap, shared) }
        },
    },
];

const fn user(code: u8) -> TrapCode {
    TrapCode::unwrap_user(code)
}

fn unless_by_zero(function: &'static str, value: Option<u64>) -> Outcome {
    value.map_or(Traps { function, code: TrapCode::INTEGER_DIVISION_BY_ZERO }, Returns)
}

/// Often zero below the line, and often the one pair whose quotient does not fit.
fn signed_pair(random: &mut Random) -> (i64, i64) {
    let a = if random.chance(2) { i64::MIN } else { random.next() as i64 };
    (a, random.below(4) as i64 - 2)
}

/// The nth Fibonacci number and the next, by doubling: F(2k) = F(k) (2 F(k+1) - F(k)), and
/// F(2k+1) = F(k)² + F(k+1)².
fn fibonacci_pair(n: u64) -> (u64, u64) {
    if n == 0 {
        return (0, 1);
    }
    let (x, y) = fibonacci_pair(n / 2);
    let even = x.wrapping_mul(y.wrapping_mul(2).wrapping_sub(x));
    let odd = x.wrapping_mul(x).wrapping_add(y.wrapping_mul(y));
    if n.is_multiple_of(2) { (even, odd) } else { (odd, even.wrapping_add(odd)) }
}
