//! The calls that are stepped through, each ready to be made once.

use crate::allocator;
use crate::is_long;
use crate::site::{Map, Shape, Site};
use crate::tracked::Tracked;
use pcmap::{Registration, RegistrationKey, Snapshot};
use std::mem;
use std::ops::Range;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Register,
    RegisterRefused,
    RegisterAll,
    Unregister,
    UnregisterByKey,
    UnregisterAll,
    /// Of one or several, while every allocation is refused.
    UnregisterWithoutMemory,
    Wait,
    Reclaim,
    /// So much was unregistered that it is left out.
    ReclaimRemoved,
    Synchronize,
    Enter,
    Lookup,
    Snapshot,
    /// Of the last owner of what it shows.
    DropSnapshot,
    Stats,
    /// Of another map than the one that is looked at.
    DropMap,
}
use Operation::*;

/// What is registered, or not, by the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// A range amid the residents.
    One,
    /// A range so far off that the leaf cannot be packed.
    Far,
    /// Four ranges in different places: before, amid and behind the residents.
    Few,
    /// Two ranges amid the residents.
    Two,
    /// A dozen ranges behind the residents.
    Dozen,
    /// 200 ranges behind the residents: more than a leaf.
    Many,
}
use Targets::*;

/// A call on a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) shape: Shape,
    pub(crate) targets: Targets,
    /// Whether the call is the write that takes out garbage, of which there is some.
    pub(crate) takes_out_garbage: bool,
    /// Fewer boundaries than this would mean that the call was not stepped through (in an optimised
    /// build they are far fewer than without optimisation).
    pub(crate) least: usize,
    /// Whether the call has hundreds of thousands of boundaries without optimisation: such are
    /// stepped through once, unless the long version is asked for.
    pub(crate) is_large: bool,
}

const fn call(operation: Operation, shape: Shape, targets: Targets, least: usize) -> Call {
    Call { operation, shape, targets, takes_out_garbage: false, least, is_large: false }
}

const fn with_garbage(call: Call) -> Call {
    Call { takes_out_garbage: true, ..call }
}

const fn large(call: Call) -> Call {
    Call { is_large: true, ..call }
}

/// Every call, on the shapes that make it go different ways.
pub(crate) const CALLS: &[Call] = &[
    call(Register, Shape::Unwritten, One, 500), // the first write
    call(Register, Shape::Empty, One, 300),
    call(Register, Shape::Leaf, One, 300),
    call(Register, Shape::Leaf, Far, 300), // packed before, whole behind
    call(Register, Shape::WholeLeaf, One, 300),
    large(call(Register, Shape::FullLeaf, One, 1000)), // cut in two, and a root above
    call(Register, Shape::Tall, One, 500),
    with_garbage(call(Register, Shape::Leaf, One, 800)),
    with_garbage(call(Register, Shape::Tall, One, 800)),
    call(RegisterRefused, Shape::Leaf, One, 150),
    call(RegisterRefused, Shape::Tall, One, 150),
    call(RegisterAll, Shape::Leaf, Few, 500),
    large(call(RegisterAll, Shape::FullLeaf, Dozen, 1000)), // cut
    large(call(RegisterAll, Shape::Tall, Two, 1000)),
    call(Unregister, Shape::Empty, One, 60),
    call(Unregister, Shape::Leaf, One, 60),
    call(Unregister, Shape::Leaf, Far, 60),
    call(Unregister, Shape::WholeLeaf, One, 60),
    large(call(Unregister, Shape::Joining, One, 300)),
    call(Unregister, Shape::Tall, One, 60),
    with_garbage(call(Unregister, Shape::Leaf, One, 300)),
    call(UnregisterByKey, Shape::Leaf, One, 60),
    call(UnregisterAll, Shape::Leaf, Few, 100),
    call(UnregisterAll, Shape::FullLeaf, Dozen, 100),
    call(UnregisterAll, Shape::Tall, Two, 100),
    call(UnregisterWithoutMemory, Shape::Leaf, One, 50),
    call(UnregisterWithoutMemory, Shape::Leaf, Few, 50),
    call(Wait, Shape::Leaf, One, 1000),
    call(Reclaim, Shape::Leaf, One, 1000),
    large(call(Reclaim, Shape::Tall, Two, 1000)),
    call(ReclaimRemoved, Shape::Leaf, Few, 1000),
    call(Synchronize, Shape::Leaf, One, 1000),
    call(Enter, Shape::Tall, One, 15),
    call(Lookup, Shape::Leaf, One, 30),
    call(Lookup, Shape::Tall, One, 60),
    call(Snapshot, Shape::Leaf, One, 100),
    call(DropSnapshot, Shape::Leaf, Few, 100),
    call(Stats, Shape::Leaf, One, 30),
    large(call(DropMap, Shape::Leaf, Many, 2000)),
];

impl Call {
    pub(crate) fn name(&self) -> String {
        let garbage = if self.takes_out_garbage { " and garbage" } else { "" };
        format!("{:?} {:?}{garbage}, {:?}", self.operation, self.targets, self.shape)
    }

    /// Every so many boundaries something is done that takes long, if not all of them are wanted.
    pub(crate) fn spacing(&self) -> usize {
        match (is_long(), self.least < 150) {
            (true, _) => FEW_BETWEEN,
            (false, true) => 5 * FEW_BETWEEN,
            (false, false) => MANY_BETWEEN,
        }
    }

    /// The ranges that are registered, or not, by the call.
    pub(crate) fn targets(&self) -> Vec<Range<usize>> {
        let shape = self.shape;
        let (last, middle) = (shape.residents().max(1) - 1, shape.middle());
        match self.targets {
            One => vec![shape.gap(middle)],
            Far => std::iter::once(FAR..FAR + 0x40).collect(),
            Few => {
                let first = shape.start(0) - 0x80..shape.start(0) - 0x40;
                vec![shape.gap(middle + 1), first, shape.gap(last), shape.gap(middle)]
            }
            Two => vec![shape.gap(middle + 1), shape.gap(middle)],
            Dozen | Many => {
                let behind = shape.start(last + 2);
                let count = if self.targets == Many { 200 } else { 12 };
                (0..count).map(|i| behind + i * 16..behind + i * 16 + 16).collect()
            }
        }
    }

    /// Whether the targets are registered before the call, and after it.
    pub(crate) fn shows_targets(&self) -> [bool; 2] {
        match self.operation {
            Register | RegisterAll => [false, true],
            Unregister | UnregisterByKey | UnregisterAll | UnregisterWithoutMemory | Wait => {
                [true, false]
            }
            _ => [false, false],
        }
    }

    /// Whether the call changes what lookups see at a single moment. (Entries disappear one after
    /// another.)
    pub(crate) fn is_one_publication(&self) -> bool {
        !matches!(self.operation, UnregisterAll | UnregisterWithoutMemory)
    }
}

/// A call that is about to be made, and what it is made with.
pub(crate) struct Scene<'s> {
    pub(crate) call: Call,
    pub(crate) site: &'s Site,
    held: Vec<Registration<'static, Tracked<'static>>>,
    items: Vec<(Range<usize>, Tracked<'static>)>,
    key: Option<RegistrationKey<Tracked<'static>>>,
    view: Option<Snapshot<Tracked<'static>>>,
    victim: Option<Map>,
}

/// So many boundaries lie between two at which something is done that takes long: in the long
/// version, and in that which is run every time. (Optimised code has some fifteen times fewer.)
pub(crate) const FEW_BETWEEN: usize = if cfg!(debug_assertions) { 11 } else { 1 };
pub(crate) const MANY_BETWEEN: usize = if cfg!(debug_assertions) { 997 } else { 67 };

/// More than 4 GiB from everything else.
const FAR: usize = 1 << 46;
/// Writes take out garbage once in so many.
const WRITES_PER_RECLAIM: u64 = 6;

impl<'s> Scene<'s> {
    pub(crate) fn new(call: Call, site: &'s Site) -> Self {
        let mut scene = Self {
            call,
            site,
            held: Vec::with_capacity(4),
            items: Vec::new(),
            key: None,
            view: None,
            victim: None,
        };
        let map = site.map();
        let items = || call.targets().into_iter().map(|t| (t.clone(), site.tally.track(t.start)));
        if call.shows_targets()[0] {
            scene.held = map.register_all(items()).expect("free");
        }
        site.take_scaffold();
        match call.operation {
            Register | RegisterAll => scene.items = items().collect(),
            RegisterRefused => {
                let resident = call.shape.resident(call.shape.middle());
                scene.items = vec![(resident.end - 1..resident.end + 1, site.tally.track(0))];
            }
            UnregisterByKey => scene.key = scene.held.pop().map(Registration::into_key),
            Reclaim | Synchronize => {
                for _ in 0..3 {
                    drop(map.unregister_all(map.register_all(items()).expect("free")));
                }
            }
            ReclaimRemoved => {
                let code = map.register_all(items()).expect("free");
                allocator::refusing(|| drop(map.unregister_all(code)));
            }
            Snapshot => drop(map.snapshot().expect("memory")),
            DropSnapshot => {
                let code = map.register_all(items()).expect("free");
                scene.view = Some(map.snapshot().expect("memory"));
                map.unregister_all(code).wait();
                map.synchronize();
            }
            DropMap => scene.victim = Some(victim(site, items())),
            _ => {}
        }
        if call.shape != Shape::Unwritten {
            scene.settle_number();
        }
        scene
    }

    /// Brings the map to where the next write takes out garbage, or does not, as it should be: registrations
    /// are counted for that, and removals, each for themselves.
    fn settle_number(&mut self) {
        let wanted = if self.call.takes_out_garbage { WRITES_PER_RECLAIM - 1 } else { 1 };
        let map = self.site.map();
        let removes = self.call.shows_targets()[0];
        let number = || {
            let publications = map.stats().publications;
            if !removes {
                return publications;
            }
            // (What is to be unregistered is there, so the snapshot is not empty.)
            map.snapshot().expect("memory").sequence() - publications
        };
        while number() % WRITES_PER_RECLAIM != wanted {
            let place = self.call.shape.rivals_gap(1);
            drop(self.site.register(place));
        }
    }

    /// What a snapshot of the map shows that is to be dropped, at one of its addresses.
    pub(crate) fn view_of_victim(&self) -> Option<(Snapshot<Tracked<'static>>, usize)> {
        let view = self.victim.as_ref()?.snapshot().expect("memory");
        Some((view, self.call.targets()[0].start))
    }

    /// Makes the call.
    pub(crate) fn perform(&mut self) {
        let map = self.site.map();
        match self.call.operation {
            Register => {
                let (range, value) = self.items.pop().expect("one");
                self.held.push(map.register(range, value).expect("free"));
            }
            RegisterRefused => {
                let (range, value) = self.items.pop().expect("one");
                drop(map.register(range, value).expect_err("taken"));
            }
            RegisterAll => self.held = map.register_all(self.items.drain(..)).expect("free"),
            Unregister => drop(self.held.pop().expect("one").unregister()),
            UnregisterByKey => {
                assert!(map.unregister(self.key.take().expect("one")).is_ok());
            }
            UnregisterAll => drop(map.unregister_all(self.held.drain(..))),
            UnregisterWithoutMemory => {
                allocator::refusing(|| drop(map.unregister_all(self.held.drain(..))));
            }
            Wait => self.held.pop().expect("one").unregister().wait(),
            Reclaim | ReclaimRemoved => {
                let _ = map.reclaim();
            }
            Synchronize => map.synchronize(),
            Enter => drop(map.enter()),
            Lookup => {
                let pc = self.call.shape.start(1);
                assert_eq!(map.lookup(pc, |hit| hit.value().id()), Some(pc));
            }
            Snapshot => self.view = Some(map.snapshot().expect("memory")),
            DropSnapshot => drop(self.view.take()),
            Stats => assert_eq!(map.stats().entries, self.call.shape.residents()),
            DropMap => drop(self.victim.take()),
        }
    }

    /// Takes back what the call did, and sees that nothing else is left of it.
    pub(crate) fn undo(mut self) -> &'s Site {
        drop(self.site.map().unregister_all(mem::take(&mut self.held)));
        let site = self.site;
        drop(self);
        site.check();
        site
    }
}

/// A map with ranges, garbage, something removed, and a view.
fn victim(site: &Site, items: impl Iterator<Item = (Range<usize>, Tracked<'static>)>) -> Map {
    let map = Map::new();
    let value = |i| site.tally.track(i);
    for code in map.register_all(items).expect("free") {
        code.leak();
    }
    for i in 1..4 {
        drop(map.register(i * 0x100..i * 0x100 + 1, value(i)).expect("free"));
    }
    let code = map.register(0x1000..0x1001, value(7)).expect("free");
    allocator::refusing(|| drop(code));
    map
}
