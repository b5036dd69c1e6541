//! What handlers use: a section held for several lookups, and what a lookup finds.

use crate::address_range::{CodeRange, Pc};
use crate::index::Reading;
use core::fmt;
use core::marker::PhantomData;

/// What a lookup found, borrowed for as long as the lookup's section lasts.
///
/// All methods: constant time, wait-free, no errors, no panics, **signal-safe**.
///
/// ```
/// let map = pcmap::CodeMap::new();
/// let _held = map.register(0x1000..0x2000, "adder").unwrap();
/// let found = map.lookup(0x1010, |hit| (*hit.value(), hit.range().start(), hit.offset()));
/// assert_eq!(found, Some(("adder", 0x1000, 0x10)));
/// ```
pub struct Hit<'s, T> {
    pc: Pc,
    range: CodeRange,
    value: &'s T,
}

impl<'s, T> Hit<'s, T> {
    /// The value registered with the range, borrowed from the section.
    #[inline]
    pub fn value(&self) -> &'s T {
        self.value
    }

    /// The registered range: half-open, absolute addresses.
    #[inline]
    pub fn range(&self) -> CodeRange {
        self.range
    }

    /// The program counter that was looked up.
    #[inline]
    pub fn pc(&self) -> Pc {
        self.pc
    }

    /// The program counter's offset from the start of the range, in bytes.
    #[inline]
    pub fn offset(&self) -> usize {
        // Not below the start, for the range contains it; written so that no build can panic.
        self.pc.address().wrapping_sub(self.range.start())
    }
}

impl<T> Clone for Hit<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Hit<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for Hit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("pc", &self.pc)
            .field("range", &self.range)
            .field("value", &self.value)
            .finish()
    }
}

/// A read section: several lookups in the same version of the map, for walking a stack.
///
/// From [`CodeMap::enter`](crate::CodeMap::enter); dropping it leaves the section. Its lookups find what
/// was registered when it was entered, without what has been unregistered since. What they find
/// lives as long as the reader does. A reader that stays for long holds back what the map contained
/// when it entered, and a bounded amount of garbage; registration, lookup and reclamation go on. One
/// that is never dropped, because the closure it lives in was left by `siglongjmp` or it was
/// forgotten, holds that back for the life of the map.
///
/// Not `Send`: its count belongs to the thread's place in the index.
///
/// ```compile_fail,E0277
/// let map = pcmap::CodeMap::<u32>::new();
/// let reader = map.enter();
/// std::thread::scope(|scope| { scope.spawn(move || reader.lookup(0x1000)); });
/// ```
///
/// ```
/// let map = pcmap::CodeMap::<u32>::new();
/// std::thread::scope(|scope| { scope.spawn(|| map.enter().lookup(0x1000).is_some()); });
/// ```
pub struct Reader<'m, T> {
    reading: Reading<'m, T>,
    not_send: PhantomData<*mut ()>,
}

impl<'m, T> Reader<'m, T> {
    pub(crate) fn new(reading: Reading<'m, T>) -> Self {
        Self { reading, not_send: PhantomData }
    }

    /// The registered code that contains `pc`, borrowed from this reader.
    ///
    /// ```
    /// let map = pcmap::CodeMap::new();
    /// let _code = map.register_all([(0x1000..0x1800, 'a'), (0x1800..0x2000, 'b')]).unwrap();
    /// let stack = [0x1804, 0x1010, 0x9000];
    /// let reader = map.enter();
    /// let frames: Vec<_> = stack.iter().map(|&pc| reader.lookup(pc).map(|hit| *hit.value())).collect();
    /// assert_eq!(frames, [Some('b'), Some('a'), None]);
    /// ```
    ///
    /// **Cost**: as [`CodeMap::lookup`](crate::CodeMap::lookup), without the atomic additions. **Progress**: wait-free.
    /// **Errors, panics**: none. **Signal-safe**: yes; it reads immutable nodes and one flag.
    // A call would hand its answer over in memory. (Without optimisation, each inlined copy would take
    // more of a handler's stack.)
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn lookup(&self, pc: impl Into<Pc>) -> Option<Hit<'_, T>> {
        let pc = pc.into();
        let (range, value) = self.reading.find(pc)?;
        Some(Hit { pc, range, value })
    }
}

impl<T> fmt::Debug for Reader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.reading.version().map_or(0, |version| version.tree.entries);
        f.debug_struct("Reader").field("entries", &entries).finish_non_exhaustive()
    }
}
