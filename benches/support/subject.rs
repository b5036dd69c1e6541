//! pcmap itself.

use crate::contender::{Lookup, Write, answer};
use pcmap::CodeMap;
use std::ops::Range;

/// The map. Its answer comes from inside the closure, where the value's address is all that is
/// needed of it; garbage is taken out by registrations, as in any program.
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
        self.map.lookup(pc, |hit| answer(hit.value(), hit.offset()))
    }
}

impl Write for Pcmap {
    fn value_and_offset(&self, pc: usize) -> Option<(u64, usize)> {
        self.map.lookup(pc, |hit| (*hit.value(), hit.offset()))
    }

    fn with_one<R>(&self, range: Range<usize>, value: u64, meanwhile: impl FnOnce() -> R) -> R {
        let code = self.map.register(range, value).expect("free");
        let result = meanwhile();
        drop(code);
        result
    }

    fn with_many<R>(&self, ranges: &[Range<usize>], meanwhile: impl FnOnce() -> R) -> R {
        let code = self.map.register_all(ranges.iter().cloned().zip(0..)).expect("free");
        let result = meanwhile();
        self.map.unregister_all(code);
        result
    }
}
