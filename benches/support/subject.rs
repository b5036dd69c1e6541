//! pcmap itself.

use crate::contender::{Lookup, Write, answer};
use pcmap::{CodeMap, Registration};
use std::ops::Range;

/// The map. Its answer comes from inside the closure, where the value may be read. Garbage is taken out
/// by writes, as in any program.
#[derive(Debug)]
pub(crate) struct Pcmap {
    map: CodeMap<u64>,
}

impl Lookup for Pcmap {
    const NAME: &'static str = crate::report::SUBJECT;

    fn holding(ranges: &[Range<usize>]) -> Self {
        let map = CodeMap::new();
        for code in map.register_all(ranges.iter().cloned().zip(0..)).expect("disjoint") {
            code.leak();
        }
        Self { map }
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        self.map.lookup(pc, |hit| answer(*hit.value(), hit.offset()))
    }
}

impl Write for Pcmap {
    type Held<'i> = Registration<'i, u64>;

    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        self.map.lookup(pc, |hit| (*hit.value(), hit.offset()))
    }

    #[inline]
    fn register(&self, range: Range<usize>, value: u64) -> Registration<'_, u64> {
        self.map.register(range, value).expect("free")
    }

    #[inline]
    fn unregister<'i>(&'i self, held: Registration<'i, u64>) {
        drop(held);
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        let code = self.map.register_all(ranges.iter().cloned().zip(0..)).expect("free");
        let result = meanwhile();
        // Nobody waits for it, as nobody waits for a registration that is dropped.
        let _ = self.map.unregister_all(code);
        result
    }

    fn garbage_bytes(&self) -> Option<u64> {
        Some(self.map.stats().retired_bytes)
    }
}
