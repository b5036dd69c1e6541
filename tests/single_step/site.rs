#![expect(unsafe_code, reason = "maps that live until a test says that nobody uses them")]
//! Maps of several shapes, and the addresses in them.

use crate::tracked::{Tally, Tracked};
use pcmap::{CodeMap, Registration};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

pub(crate) type Map = CodeMap<Tracked<'static>>;

/// How the index looks before the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Never written to.
    Unwritten,
    /// Written to, and empty.
    Empty,
    /// One leaf, which is packed (it spans less than 4 GiB).
    Leaf,
    /// One leaf that spans too much to be packed.
    WholeLeaf,
    /// One leaf without room for one more.
    FullLeaf,
    /// Two leaves, one of which is joined with the other when it loses one more.
    Joining,
    /// Three levels.
    Tall,
}

impl Shape {
    /// How many ranges stay registered throughout.
    pub(crate) fn residents(self) -> usize {
        match self {
            Self::Unwritten | Self::Empty => 0,
            Self::Leaf | Self::WholeLeaf => 12,
            Self::FullLeaf => 128,
            Self::Joining => 112,
            // More than two levels can hold (128 * 256).
            Self::Tall => 40_000,
        }
    }

    fn stride(self) -> usize {
        if self == Self::WholeLeaf { 1 << 36 } else { STRIDE }
    }

    /// Where the `i`-th resident starts, or would.
    pub(crate) fn start(self, i: usize) -> usize {
        let left_out = if self == Self::Joining && i >= FEW { LEFT_OUT } else { 0 };
        BASE + (i + left_out) * self.stride()
    }

    /// A resident that others stand around.
    pub(crate) fn middle(self) -> usize {
        if self == Self::Joining { FEW / 2 } else { self.residents() / 2 }
    }

    /// The `i`-th resident.
    pub(crate) fn resident(self, i: usize) -> Range<usize> {
        self.start(i)..self.start(i) + RESIDENT
    }

    /// A range in the gap behind the `i`-th resident.
    pub(crate) fn gap(self, i: usize) -> Range<usize> {
        self.start(i) + RESIDENT..self.start(i) + RESIDENT + 0x40
    }

    /// Behind it in the same gap, for those who disturb the call.
    pub(crate) fn rivals_gap(self, i: usize) -> Range<usize> {
        self.start(i) + RESIDENT + 0x50..self.start(i) + RESIDENT + 0x60
    }
}

const BASE: usize = 0x1000_0000;
const STRIDE: usize = 0x100;
/// A leaf with fewer than 32 ranges is joined: with the one that the call unregisters it has 32.
const FEW: usize = 31;
/// So many ranges were behind them in the same leaf when there were 162, and two leaves of 81.
const LEFT_OUT: usize = 50;
/// The length of a resident.
const RESIDENT: usize = 0x80;

/// A map, and the count of its values.
pub(crate) struct Site {
    map: AtomicPtr<Map>,
    pub(crate) tally: &'static Tally,
    pub(crate) shape: Shape,
    /// Keeps the first leaf of [`Shape::Joining`] from being joined too early.
    scaffold: Mutex<Option<Registration<'static, Tracked<'static>>>>,
}

impl Site {
    pub(crate) fn new(shape: Shape) -> Self {
        let tally: &'static Tally = Box::leak(Box::new(Tally::new()));
        let map = AtomicPtr::new(Box::into_raw(Box::new(Map::new())));
        let site = Self { map, tally, shape, scaffold: Mutex::new(None) };
        let item = |range: Range<usize>| (range.clone(), tally.track(range.start));
        let residents = (0..shape.residents()).map(|i| shape.resident(i));
        match shape {
            Shape::Joining => {
                // Behind the few, as if they were residents of a map without gaps.
                let scaffold = (FEW..FEW + LEFT_OUT).map(|i| Shape::Leaf.resident(i));
                let all = residents.chain(scaffold).map(item);
                let mut residents = site.map().register_all(all).expect("free");
                let mut scaffold = residents.split_off(shape.residents());
                residents.into_iter().for_each(Registration::leak);
                *site.scaffold.lock().expect("no panic") = scaffold.pop();
                drop(site.map().unregister_all(scaffold));
            }
            _ => {
                let residents = site.map().register_all(residents.map(item)).expect("free");
                residents.into_iter().for_each(Registration::leak);
            }
        }
        if shape == Shape::Empty {
            drop(site.register(shape.gap(0)));
        }
        site
    }

    /// The map; not to be used after [`Site::close`].
    pub(crate) fn map(&self) -> &'static Map {
        // SAFETY: from a box that `close` frees, when nothing else uses the map.
        unsafe { &*self.map.load(SeqCst) }
    }

    /// Takes away what kept a leaf from being joined, when the call's targets are there.
    pub(crate) fn take_scaffold(&self) {
        drop(self.scaffold.lock().expect("no panic").take());
    }

    /// Registers a range with its start for identity.
    pub(crate) fn register(&self, range: Range<usize>) -> Registration<'static, Tracked<'static>> {
        let value = self.tally.track(range.start);
        self.map().register(range, value).expect("free")
    }

    /// Nothing but the residents is left, and no garbage.
    pub(crate) fn check(&self) {
        let map = self.map();
        map.synchronize();
        assert!(map.reclaim().is_empty());
        let stats = map.stats();
        assert_eq!((stats.entries, stats.retired), (self.shape.residents(), 0), "{stats}");
        assert_eq!(self.tally.alive(), stats.entries, "each value is there, or dropped once");
    }

    /// Drops the map, and sees that every value was dropped.
    pub(crate) fn close(self) {
        self.take_scaffold();
        self.check();
        // SAFETY: from a box; tests close a site when all that they made of the map is gone.
        drop(unsafe { Box::from_raw(self.map.into_inner()) });
        assert_eq!(self.tally.alive(), 0);
    }
}
