//! Random operations, each compared with a model so plain that it is right at a glance.

use crate::tracked::{Tally, Tracked};
use pcmap::{
    CodeMap, CodeRange, Pc, RangeError, Reader, Refused, Registered, Registration, Snapshot,
};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;

/// The addresses of the small spaces, of which every one is looked up after every operation.
const SIZE: usize = 40;

/// What should be registered: start, end and identity.
type Row = (usize, usize, usize);

/// The model: no binary search, no order to get wrong, every question answered by asking each row.
#[derive(Clone, Default)]
struct Oracle {
    rows: BTreeMap<usize, Row>,
}

impl Oracle {
    fn holds(&(start, end, _): &Row, pc: usize) -> bool {
        start <= pc && pc < end
    }

    fn at(&self, pc: usize) -> Option<Row> {
        self.rows.values().copied().find(|row| Self::holds(row, pc))
    }

    fn below(&self, pc: usize) -> Option<Row> {
        self.rows.values().copied().rfind(|&(_, end, _)| end <= pc)
    }

    fn above(&self, pc: usize) -> Option<Row> {
        self.rows.values().copied().find(|&(start, _, _)| start > pc)
    }

    /// The rows that share an address with `range`.
    fn sharing(&self, range: CodeRange) -> Vec<Row> {
        self.rows.values().copied().filter(|&row| share(row, range)).collect()
    }

    fn insert(&mut self, range: CodeRange, id: usize) {
        if range.start() < range.end() {
            self.rows.insert(range.start(), (range.start(), range.end(), id));
        }
    }

    fn remove(&mut self, range: CodeRange, id: usize) {
        self.rows.retain(|_, row| *row != (range.start(), range.end(), id));
    }
}

/// Whether a row and a range share an address: the highest start lies below the lowest end.
fn share((start, end, _): Row, range: CodeRange) -> bool {
    start.max(range.start()) < end.min(range.end())
}

/// A range as somebody may write it down: perhaps reversed, perhaps beyond the last address.
#[derive(Clone, Copy, Debug)]
enum Bounds {
    UpTo(usize, usize),
    Bytes(usize, usize),
}

impl TryFrom<Bounds> for CodeRange {
    type Error = RangeError;

    fn try_from(bounds: Bounds) -> Result<Self, RangeError> {
        match bounds {
            Bounds::UpTo(start, end) => (start..end).try_into(),
            Bounds::Bytes(start, len) => Self::from_start_len(start, len),
        }
    }
}

impl Bounds {
    /// What must be said about it, worked out without the crate.
    fn error(self) -> Option<RangeError> {
        match self {
            Self::UpTo(start, end) if start > end => Some(RangeError::Reversed { start, end }),
            Self::Bytes(start, len) if start > usize::MAX - len => {
                Some(RangeError::Wraps { start, len })
            }
            _ => None,
        }
    }

    fn edges(self) -> [usize; 2] {
        match self {
            Self::UpTo(start, end) => [start, end],
            Self::Bytes(start, len) => [start, start.saturating_add(len)],
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Register(Bounds),
    RegisterAll(Vec<Bounds>),
    Drop(Index),
    Unregister(Index),
    UnregisterByKey(Index),
    UnregisterAll(Vec<Index>),
    Leak(Index),
    KeepReader,
    DropReader(Index),
    KeepSnapshot,
    DropSnapshot(Index),
    ViewRange(Bounds),
    Reclaim,
    Synchronize,
}

fn ops(bounds: impl Strategy<Value = Bounds> + Clone + 'static) -> impl Strategy<Value = Vec<Op>> {
    let some = || any::<Index>();
    let op = prop_oneof![
        8 => bounds.clone().prop_map(Op::Register),
        3 => proptest::collection::vec(bounds.clone(), 0..6).prop_map(Op::RegisterAll),
        2 => some().prop_map(Op::Drop),
        2 => some().prop_map(Op::Unregister),
        2 => some().prop_map(Op::UnregisterByKey),
        1 => proptest::collection::vec(some(), 0..6).prop_map(Op::UnregisterAll),
        1 => some().prop_map(Op::Leak),
        1 => Just(Op::KeepReader),
        1 => some().prop_map(Op::DropReader),
        1 => Just(Op::KeepSnapshot),
        1 => some().prop_map(Op::DropSnapshot),
        1 => bounds.prop_map(Op::ViewRange),
        1 => Just(Op::Reclaim),
        1 => Just(Op::Synchronize),
    ];
    proptest::collection::vec(op, 1..60)
}

/// Ranges in a space of [`SIZE`] addresses: dense enough that every kind of conflict comes up.
fn small(origin: usize) -> impl Strategy<Value = Bounds> + Clone {
    prop_oneof![
        8 => (0..=SIZE, 0..=9_usize)
            .prop_map(move |(at, len)| Bounds::UpTo(origin + at, origin + (at + len).min(SIZE))),
        2 => (0..=SIZE, 0..=SIZE)
            .prop_map(move |(start, end)| Bounds::UpTo(origin + start, origin + end)),
        1 => (0..=SIZE, 0..=9_usize)
            .prop_map(move |(at, len)| Bounds::Bytes(origin + at, len.min(SIZE - at))),
        1 => (1..=SIZE, 0..=SIZE)
            .prop_map(move |(at, less)| Bounds::Bytes(origin + at, usize::MAX - less)),
    ]
}

/// Ranges all over the address space, with its two ends and page boundaries hit often.
fn large() -> impl Strategy<Value = Bounds> + Clone {
    let address = prop_oneof![
        2 => 0..4_usize,
        2 => (0..4_usize).prop_map(|below| usize::MAX - below),
        4 => (0..64_usize, 0..3_usize).prop_map(|(page, off)| (page << 12) + 0xfff + off),
        2 => (0..16_usize, 0..64_usize).prop_map(|(arena, page)| (arena << 40) + (page << 12)),
        1 => any::<usize>(),
    ];
    prop_oneof![
        2 => (address.clone(), address.clone()).prop_map(|(start, end)| Bounds::UpTo(start, end)),
        6 => (address.clone(), 0..0x3000_usize)
            .prop_map(|(start, len)| Bounds::UpTo(start, start.saturating_add(len))),
        2 => (address, prop_oneof![0..8_usize, any::<usize>()])
            .prop_map(|(start, len)| Bounds::Bytes(start, len)),
    ]
}

/// A view of the map that was kept, with what it has to go on showing.
struct Kept<V> {
    view: V,
    shows: Oracle,
}

/// The map, the model, and everything held of the map.
struct World<'m, 't> {
    map: &'m CodeMap<Tracked<'t>>,
    tally: &'t Tally,
    oracle: Oracle,
    publications: u64,
    next_id: usize,
    held: Vec<Registration<'m, Tracked<'t>>>,
    readers: Vec<Kept<Reader<'m, Tracked<'t>>>>,
    snapshots: Vec<Kept<Snapshot<Tracked<'t>>>>,
    lookups: u64,
    refusals: u64,
}

fn row(code: Registered<'_, Tracked<'_>>) -> Row {
    (code.range().start(), code.range().end(), code.value().id())
}

impl<'m, 't> World<'m, 't> {
    fn new(map: &'m CodeMap<Tracked<'t>>, tally: &'t Tally) -> Self {
        Self {
            map,
            tally,
            oracle: Oracle::default(),
            publications: 0,
            next_id: 1,
            held: Vec::new(),
            readers: Vec::new(),
            snapshots: Vec::new(),
            lookups: 0,
            refusals: 0,
        }
    }

    fn new_value(&mut self) -> Tracked<'t> {
        self.next_id += 1;
        self.tally.track(self.next_id)
    }

    fn take(&mut self, at: &Index) -> Option<Registration<'m, Tracked<'t>>> {
        let len = self.held.len();
        (len != 0).then(|| self.held.swap_remove(at.index(len)))
    }

    /// Notes a registration that is about to go: not in the model, one publication if it counts.
    fn goes(&mut self, registration: &Registration<'m, Tracked<'t>>) {
        self.oracle.remove(registration.range(), registration.value().id());
        self.publications += u64::from(!registration.range().is_empty());
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Register(bounds) => self.register(*bounds),
            Op::RegisterAll(batch) => self.register_all(batch),
            Op::Drop(at) => {
                if let Some(registration) = self.take(at) {
                    self.goes(&registration);
                    drop(registration);
                }
            }
            Op::Unregister(at) => {
                if let Some(registration) = self.take(at) {
                    self.goes(&registration);
                    let mut retirement = registration.unregister();
                    if self.readers.is_empty() {
                        assert!(retirement.is_complete(), "no reader is inside");
                    }
                }
            }
            Op::UnregisterByKey(at) => {
                if let Some(registration) = self.take(at) {
                    self.goes(&registration);
                    let range = registration.range();
                    let key = registration.into_key();
                    assert_eq!(key.range(), range);
                    assert!(self.map.unregister(key).is_ok(), "a key of this map");
                }
            }
            Op::UnregisterAll(picks) => {
                let before = self.publications;
                let mut gone = Vec::new();
                for pick in picks {
                    gone.extend(self.take(pick));
                }
                for registration in &gone {
                    self.goes(registration);
                }
                self.publications = self.publications.min(before + 1);
                self.map.unregister_all(gone);
            }
            Op::Leak(at) => {
                if let Some(registration) = self.take(at) {
                    registration.leak();
                }
            }
            Op::KeepReader => {
                let kept = Kept { view: self.map.enter(), shows: self.oracle.clone() };
                self.readers.push(kept);
                self.readers.truncate(3);
            }
            Op::DropReader(at) => {
                if !self.readers.is_empty() {
                    self.readers.swap_remove(at.index(self.readers.len()));
                }
            }
            Op::KeepSnapshot => {
                let kept = Kept { view: self.map.snapshot(), shows: self.oracle.clone() };
                assert_eq!(kept.view.sequence(), self.publications);
                self.snapshots.push(kept);
                self.snapshots.truncate(3);
            }
            Op::DropSnapshot(at) => {
                if !self.snapshots.is_empty() {
                    self.snapshots.swap_remove(at.index(self.snapshots.len()));
                }
            }
            Op::ViewRange(bounds) => self.view_range(*bounds),
            Op::Reclaim => {
                let remaining = self.map.reclaim();
                assert_eq!(remaining.versions, self.map.stats().retired);
                if self.readers.is_empty() {
                    assert!(remaining.is_empty(), "no reader is inside: {remaining:?}");
                }
            }
            Op::Synchronize => {
                if self.readers.is_empty() {
                    self.map.synchronize();
                    assert_eq!(self.map.stats().retired, 0);
                    assert_eq!(self.map.stats().retired_bytes, 0);
                }
            }
        }
    }

    fn register(&mut self, bounds: Bounds) {
        let value = self.new_value();
        let id = value.id();
        let before = self.map.stats().publications;
        match self.map.register(bounds, value) {
            Ok(registration) => {
                assert_eq!(bounds.error(), None, "{bounds:?} was accepted");
                let range = registration.range();
                assert_eq!([range.start(), range.end()], bounds.edges());
                assert_eq!(self.oracle.sharing(range), [], "{range} was accepted over these");
                assert_eq!(registration.value().id(), id);
                self.oracle.insert(range, id);
                self.publications += u64::from(!range.is_empty());
                self.held.push(registration);
            }
            Err(error) => {
                self.refusals += 1;
                assert_eq!(error.value.id(), id, "another value came back");
                assert_eq!(self.map.stats().publications, before, "{error} and a publication");
                match error.reason {
                    Refused::InvalidRange(why) => assert_eq!(Some(why), bounds.error()),
                    Refused::Overlap { requested, existing } => {
                        assert_eq!(Ok(requested), bounds.try_into());
                        let rows = self.oracle.sharing(requested);
                        let named = rows.iter().any(|&(start, end, _)| {
                            [start, end] == [existing.start(), existing.end()]
                        });
                        assert!(named, "{existing} is not in the way of {requested}: {rows:?}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn register_all(&mut self, batch: &[Bounds]) {
        let items: Vec<_> = batch.iter().map(|&bounds| (bounds, self.new_value())).collect();
        let ids: Vec<_> = items.iter().map(|(_, value)| value.id()).collect();
        let invalid = batch.iter().position(|bounds| bounds.error().is_some());
        let before = self.map.stats().publications;
        match self.map.register_all(items) {
            Ok(registrations) => {
                assert_eq!(invalid, None, "an invalid range was accepted");
                let mut any = false;
                for ((registration, bounds), &id) in registrations.iter().zip(batch).zip(&ids) {
                    let range = registration.range();
                    assert_eq!([range.start(), range.end()], bounds.edges(), "out of order");
                    assert_eq!(registration.value().id(), id, "out of order");
                    assert_eq!(self.oracle.sharing(range), [], "{range} accepted over these");
                    self.oracle.insert(range, id);
                    any |= !range.is_empty();
                }
                assert_eq!(registrations.len(), batch.len());
                self.publications += u64::from(any);
                self.held.extend(registrations);
            }
            Err(error) => {
                self.refusals += 1;
                assert_eq!(self.map.stats().publications, before, "{error} and a publication");
                let taken: Vec<_> = error.values.iter().map(Tracked::id).collect();
                let rest: Vec<_> = error.rest.map(|(_, value)| value.id()).collect();
                match error.reason {
                    Refused::InvalidRange(why) => {
                        let at = invalid.expect("every range is valid");
                        assert_eq!(Some(why), batch[at].error());
                        assert_eq!(taken, ids[..=at]);
                        assert_eq!(rest, ids[at + 1..]);
                    }
                    Refused::Overlap { requested, existing } => {
                        assert_eq!(invalid, None, "the invalid one should have been named");
                        assert_eq!((taken, rest), (ids, Vec::new()));
                        self.check_batch_conflict(batch, requested, existing);
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    /// Both ranges of a refused batch are where they are said to be, and share an address.
    fn check_batch_conflict(&self, batch: &[Bounds], requested: CodeRange, existing: CodeRange) {
        let times = |range| batch.iter().filter(|&&b| CodeRange::try_from(b) == Ok(range)).count();
        assert_ne!(times(requested), 0, "{requested} is not in the batch");
        let row = (existing.start(), existing.end(), 0);
        assert!(share(row, requested), "{existing} does not overlap {requested}");
        let in_map = self.oracle.sharing(requested).iter().any(|r| (r.0, r.1) == (row.0, row.1));
        let in_batch = times(existing) > usize::from(existing == requested);
        assert!(in_map || in_batch, "{existing} is neither in the map nor in the batch");
    }

    fn view_range(&self, bounds: Bounds) {
        let Ok(range) = CodeRange::try_from(bounds) else { return };
        let now = [(self.map.snapshot(), &self.oracle)];
        let kept = self.snapshots.iter().map(|kept| (kept.view.clone(), &kept.shows));
        for (snapshot, oracle) in kept.chain(now) {
            let mut expected = oracle.sharing(range);
            assert_eq!(snapshot.range(range).map(row).collect::<Vec<_>>(), expected, "{range}");
            expected.reverse();
            assert_eq!(snapshot.range(range).rev().map(row).collect::<Vec<_>>(), expected);
        }
    }

    /// Everything that can be asked about these addresses, asked of every view there is.
    fn check(&mut self, pcs: &[usize]) {
        let stats = self.map.stats();
        assert_eq!(stats.entries, self.oracle.rows.len());
        assert_eq!(stats.publications, self.publications);
        assert_eq!(stats.retired + stats.destroyed, stats.publications);
        assert_eq!(stats.oldest_wait.is_some(), stats.retired != 0, "{stats}");

        for &pc in pcs {
            let expected = self.oracle.at(pc);
            let found = self.map.lookup(pc, |hit| {
                assert_eq!(hit.pc(), Pc::new(pc));
                assert_eq!(hit.range().start() + hit.offset(), pc);
                (hit.range().start(), hit.range().end(), hit.value().id())
            });
            assert_eq!(found, expected, "lookup of {pc:#x}");
            self.lookups += 1;
            for Kept { view, shows } in &self.readers {
                let found = view.lookup(pc);
                let found =
                    found.map(|hit| (hit.range().start(), hit.range().end(), hit.value().id()));
                assert_eq!(found, shows.at(pc), "lookup of {pc:#x} in a kept reader");
            }
        }
        check_snapshot(&self.map.snapshot(), &self.oracle, pcs);
        for Kept { view, shows } in &self.snapshots {
            check_snapshot(view, shows, pcs);
        }
        for registration in &self.held {
            let (range, id) = (registration.range(), registration.value().id());
            let seen = self.oracle.at(range.start());
            assert!(range.is_empty() || seen == Some((range.start(), range.end(), id)));
        }
    }
}

fn check_snapshot(snapshot: &Snapshot<Tracked<'_>>, oracle: &Oracle, pcs: &[usize]) {
    assert_eq!(snapshot.len(), oracle.rows.len());
    assert_eq!(snapshot.is_empty(), oracle.rows.is_empty());
    assert!(snapshot.iter().map(row).eq(oracle.rows.values().copied()));
    assert!(snapshot.iter().rev().map(row).eq(oracle.rows.values().rev().copied()));
    for &pc in pcs {
        assert_eq!(snapshot.find(pc).map(row), oracle.at(pc), "find of {pc:#x}");
        let around = snapshot.neighbours(pc);
        assert_eq!(around.at.map(row), oracle.at(pc), "at {pc:#x}");
        assert_eq!(around.below.map(row), oracle.below(pc), "below {pc:#x}");
        assert_eq!(around.above.map(row), oracle.above(pc), "above {pc:#x}");
    }
}

/// Runs the operations; `pcs` says where to look after each. Gives lookups made and refusals met.
fn run(ops: &[Op], pcs: impl Fn(&Oracle, &Op) -> Vec<usize>) -> (u64, u64) {
    let tally = Tally::new();
    let map = CodeMap::new();
    let mut world = World::new(&map, &tally);
    world.check(&[0, 1, usize::MAX]);
    for op in ops {
        world.apply(op);
        let pcs = pcs(&world.oracle, op);
        world.check(&pcs);
    }
    let counts = (world.lookups, world.refusals);
    world.readers.clear();
    world.snapshots.clear();
    let held = std::mem::take(&mut world.held);
    for registration in &held {
        world.goes(registration);
    }
    map.unregister_all(held);
    map.synchronize();
    assert_eq!(map.stats().retired, 0);
    let leaked = world.oracle.rows.len();
    assert_eq!(map.stats().entries, leaked);
    assert_eq!(tally.alive(), leaked, "only what was leaked is left");
    drop(world);
    drop(map);
    assert_eq!(tally.alive(), 0);
    counts
}

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { 250 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Every address of a small space, and two on either side of it.
fn every_pc(origin: usize) -> Vec<usize> {
    let first = origin.saturating_sub(2);
    let last = origin.saturating_add(SIZE + 2);
    (first..=last).collect()
}

/// The bounds of all that is registered and of what was asked for, and their neighbours.
fn boundaries(oracle: &Oracle, op: &Op) -> Vec<usize> {
    let mut pcs = vec![0, usize::MAX];
    pcs.extend(oracle.rows.values().flat_map(|&(start, end, _)| [start, end]));
    match op {
        Op::Register(bounds) | Op::ViewRange(bounds) => pcs.extend(bounds.edges()),
        Op::RegisterAll(batch) => pcs.extend(batch.iter().flat_map(|bounds| bounds.edges())),
        _ => {}
    }
    pcs.iter().flat_map(|&pc| [pc.saturating_sub(1), pc, pc.saturating_add(1)]).collect()
}

fn run_cases(
    name: &str,
    ops: impl Strategy<Value = Vec<Op>>,
    pcs: impl Fn(&Oracle, &Op) -> Vec<usize>,
) {
    let totals = std::cell::Cell::new((0, 0, 0));
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let outcome = runner.run(&ops, |ops| {
        let (lookups, refusals) = run(&ops, &pcs);
        let (cases, l, r) = totals.get();
        totals.set((cases + 1, l + lookups, r + refusals));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (cases, lookups, refusals) = totals.get();
    println!("{name}: {cases} sequences, {lookups} lookups, {refusals} refusals");
    assert_ne!(refusals, 0, "sequences without a conflict test half of it");
}

#[test]
fn every_pc_of_a_small_space() {
    run_cases("small space", ops(small(0x1000)), |_, _| every_pc(0x1000));
}

#[test]
fn every_pc_of_the_lowest_addresses() {
    run_cases("lowest addresses", ops(small(0)), |_, _| every_pc(0));
}

#[test]
fn every_pc_of_the_highest_addresses() {
    const ORIGIN: usize = usize::MAX - SIZE;
    run_cases("highest addresses", ops(small(ORIGIN)), |_, _| every_pc(ORIGIN));
}

#[test]
fn every_boundary_of_a_large_space() {
    run_cases("large space", ops(large()), boundaries);
}

/// Every range of a small space asked of one snapshot, empty ones included.
#[test]
fn every_range_of_a_snapshot() {
    let tally = Tally::new();
    let map = CodeMap::new();
    let mut oracle = Oracle::default();
    let code: [(usize, usize); 6] = [(2, 5), (5, 6), (9, 12), (12, 20), (25, 26), (30, 40)];
    for (id, &(start, end)) in code.iter().enumerate() {
        let registration = map.register(start..end, tally.track(id)).expect("no conflict");
        oracle.insert(registration.range(), id);
        registration.leak();
    }
    let snapshot = map.snapshot();
    let mut asked = 0;
    for start in 0..=42_usize {
        for end in start..=42 {
            let range = CodeRange::try_from(start..end).expect("in order");
            let found: Vec<_> = snapshot.range(range).map(row).collect();
            assert_eq!(found, oracle.sharing(range), "{range}");
            asked += 1;
        }
    }
    println!("{asked} ranges of one snapshot");
}
