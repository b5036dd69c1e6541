//! Any bytes as a sequence of calls on several maps, each compared with a plain `BTreeMap`.
//!
//! Shared by the fuzz target and by the test that replays its corpus. Each operation begins with a
//! byte that picks the map (two bits) and the call; its operands follow, and what is missing at the
//! end of the input is zeros. So every input is a sequence, and a sequence stays one when bytes are
//! put in or cut out.

#[path = "../../tests/tracked/mod.rs"]
mod tracked;

use pcmap::{CodeMap, CodeRange, Reader, Refused, Registered, Registration, Snapshot};
use std::collections::BTreeMap;
use tracked::{Tally, Tracked};

const MAPS: usize = 3;
/// Calls per input at most, and ranges per map: an input is to be run in milliseconds.
const MOST_CALLS: usize = 400;
const MOST_RANGES: usize = 12_000;
/// Readers and snapshots kept per map.
const MOST_KEPT: usize = 3;

/// What inputs made the maps do, for seeing that a corpus does something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: usize,
    pub(crate) lookups: usize,
    pub(crate) refusals: usize,
    pub(crate) most_ranges: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.lookups += other.lookups;
        self.refusals += other.refusals;
        self.most_ranges = self.most_ranges.max(other.most_ranges);
    }
}

struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        usize::from(first)
    }

    /// An address: low, high, in one of 64 arenas far from each other, or in a dense region.
    fn address(&mut self) -> usize {
        let (high, low) = (self.byte(), self.byte());
        let (kind, high) = (high >> 6, high & 63);
        match kind {
            0 => high * 0x100 + low,
            1 => usize::MAX - (high * 0x100 + low),
            2 => (high << 36) + low * 0x100,
            _ => 0x1000_0000 + high * 0x1000 + low * 0x10,
        }
    }

    /// Start and length, in bytes: not always a range.
    fn bounds(&mut self) -> (usize, usize) {
        let start = self.address();
        let len = match self.byte() {
            len @ 0..=99 => len,
            len @ 100..=199 => (len - 100) * 0x40,
            len @ 200..=239 => 1 << (len - 200),
            len => usize::MAX - (len - 240) * 0x1000,
        };
        (start, len)
    }
}

type Row = (usize, usize, usize);

/// What should be registered: by start, the end and the identity.
#[derive(Clone, Default)]
struct Oracle(BTreeMap<usize, (usize, usize)>);

impl Oracle {
    fn at(&self, pc: usize) -> Option<Row> {
        let (&start, &(end, id)) = self.0.range(..=pc).next_back()?;
        (pc < end).then_some((start, end, id))
    }

    /// Whether a range that is not empty shares an address with what is registered.
    fn is_in_the_way(&self, start: usize, end: usize) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, &(e, _))| e > start)
    }

    fn insert(&mut self, range: CodeRange, id: usize) {
        if !range.is_empty() {
            self.0.insert(range.start(), (range.end(), id));
        }
    }

    fn rows(&self) -> impl DoubleEndedIterator<Item = Row> {
        self.0.iter().map(|(&start, &(end, id))| (start, end, id))
    }
}

/// A view that was kept, and what it has to go on showing.
struct Kept<V> {
    view: V,
    shows: Oracle,
}

/// A map, its oracle, and what is held of it.
struct World<'m, 't> {
    map: &'m CodeMap<Tracked<'t>>,
    tally: &'t Tally,
    oracle: Oracle,
    publications: u64,
    held: Vec<Registration<'m, Tracked<'t>>>,
    readers: Vec<Kept<Reader<'m, Tracked<'t>>>>,
    snapshots: Vec<Kept<Snapshot<Tracked<'t>>>>,
    next_id: usize,
    counts: Counts,
}

fn row(code: Registered<'_, Tracked<'_>>) -> Row {
    (code.range().start(), code.range().end(), code.value().id())
}

/// The range of these bounds, if it is one; worked out without the crate.
fn end_of((start, len): (usize, usize)) -> Option<usize> {
    start.checked_add(len)
}

impl<'m, 't> World<'m, 't> {
    fn new(map: &'m CodeMap<Tracked<'t>>, tally: &'t Tally) -> Self {
        Self {
            map,
            tally,
            oracle: Oracle::default(),
            publications: 0,
            held: Vec::new(),
            readers: Vec::new(),
            snapshots: Vec::new(),
            next_id: 0,
            counts: Counts::default(),
        }
    }

    fn value(&mut self) -> Tracked<'t> {
        self.next_id += 1;
        self.tally.track(self.next_id)
    }

    fn register(&mut self, bounds: (usize, usize)) {
        let value = self.value();
        let id = value.id();
        let range = CodeRange::from_start_len(bounds.0, bounds.1);
        assert_eq!(range.is_ok(), end_of(bounds).is_some(), "{bounds:x?}");
        let Ok(range) = range else { return };
        let conflict = !range.is_empty() && self.oracle.is_in_the_way(range.start(), range.end());
        match self.map.register(range, value) {
            Ok(code) => {
                assert!(!conflict, "{range} was accepted");
                assert_eq!((code.range(), code.value().id()), (range, id));
                self.publications += u64::from(!range.is_empty());
                self.oracle.insert(range, id);
                self.held.push(code);
            }
            Err(error) => {
                assert!(conflict, "{range} was refused: {error}");
                assert_eq!(error.value.id(), id);
                self.check_conflict(error.reason);
                self.counts.refusals += 1;
            }
        }
        self.look_around(&[range.start(), range.end()]);
    }

    fn check_conflict(&self, reason: Refused) {
        let Refused::Overlap { requested, existing } = reason else { panic!("{reason}") };
        let (low, high) =
            (requested.start().max(existing.start()), requested.end().min(existing.end()));
        assert!(low < high, "{requested} and {existing} do not overlap");
    }

    fn register_all(&mut self, batch: Vec<(usize, usize)>) {
        if self.oracle.0.len() + batch.len() > MOST_RANGES {
            return;
        }
        let valid: Option<Vec<_>> =
            batch.iter().map(|&bounds| end_of(bounds).map(|end| (bounds.0, end))).collect();
        let mut sorted: Vec<_> =
            valid.iter().flatten().copied().filter(|(start, end)| start < end).collect();
        sorted.sort_unstable();
        let conflict = sorted.windows(2).any(|pair| pair[0].1 > pair[1].0)
            || sorted.iter().any(|&(start, end)| self.oracle.is_in_the_way(start, end));
        let items: Vec<_> = batch.iter().map(|&bounds| (Bounds(bounds), self.value())).collect();
        let first = self.next_id + 1 - batch.len();
        match self.map.register_all(items) {
            Ok(code) => {
                assert!(valid.is_some() && !conflict, "a batch was accepted");
                assert_eq!(code.len(), batch.len());
                for (code, id) in code.iter().zip(first..) {
                    assert_eq!(code.value().id(), id, "out of order");
                    self.oracle.insert(code.range(), id);
                }
                self.publications += u64::from(!sorted.is_empty());
                self.held.extend(code);
            }
            Err(error) => {
                self.counts.refusals += 1;
                let back = error.values.iter().map(Tracked::id);
                let back = back.chain(error.rest.map(|(_, value)| value.id()));
                assert!(back.eq(first..first + batch.len()), "everything comes back, in order");
                match error.reason {
                    Refused::InvalidRange(_) => assert!(valid.is_none()),
                    reason => {
                        assert!(valid.is_some() && conflict, "{reason}");
                        self.check_conflict(reason);
                    }
                }
            }
        }
        let edges: Vec<_> = sorted.iter().flat_map(|&(start, end)| [start, end]).collect();
        self.look_around(edges.get(..8).unwrap_or(&edges));
        self.look_around(edges.get(edges.len().saturating_sub(4)..).unwrap_or(&[]));
    }

    /// Notes that registrations go; the edges of some.
    fn go(&mut self, going: &[Registration<'m, Tracked<'t>>]) -> Vec<usize> {
        for code in going.iter().filter(|code| !code.range().is_empty()) {
            let gone = self.oracle.0.remove(&code.range().start());
            assert_eq!(gone, Some((code.range().end(), code.value().id())));
        }
        let some = going.iter().step_by(1 + going.len() / 4);
        some.flat_map(|code| [code.range().start(), code.range().end()]).collect()
    }

    fn take(&mut self, at: usize) -> Option<Registration<'m, Tracked<'t>>> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(at % self.held.len()))
    }

    /// One registration goes, in the way that `how` picks.
    fn unregister(&mut self, at: usize, how: usize) {
        let Some(code) = self.take(at) else { return };
        let edges = self.go(std::slice::from_ref(&code));
        self.publications += u64::from(!code.range().is_empty());
        let mut retirement = match how % 4 {
            0 => code.unregister(),
            1 => self.map.unregister(code.into_key()).expect("a key of this map"),
            2 => self.map.unregister_all([code]),
            _ => {
                drop(code);
                return self.look_around(&edges);
            }
        };
        if self.readers.is_empty() {
            assert!(retirement.is_complete(), "no reader is inside");
        }
        self.look_around(&edges);
    }

    fn unregister_all(&mut self, from: usize, count: usize) {
        let from = from * self.held.len() / 256;
        let going: Vec<_> = self.held.drain(from..self.held.len().min(from + count)).collect();
        let edges = self.go(&going);
        let any = going.iter().any(|code| !code.range().is_empty());
        self.publications += u64::from(any);
        self.map.unregister_all(going);
        self.look_around(&edges);
    }

    fn keep_or_let_go(&mut self, what: usize, at: usize) {
        let (map, shows) = (self.map, self.oracle.clone());
        match what % 4 {
            0 if self.snapshots.len() < MOST_KEPT => {
                let view = map.snapshot();
                assert_eq!(view.sequence(), self.publications);
                self.snapshots.push(Kept { view, shows });
            }
            1 if self.readers.len() < MOST_KEPT => {
                self.readers.push(Kept { view: map.enter(), shows });
            }
            0 | 2 if !self.snapshots.is_empty() => {
                drop(self.snapshots.swap_remove(at % self.snapshots.len()));
            }
            1 | 3 if !self.readers.is_empty() => {
                drop(self.readers.swap_remove(at % self.readers.len()));
            }
            _ => {}
        }
    }

    /// Looks up these addresses and their neighbours, in every view there is.
    fn look_around(&mut self, edges: &[usize]) {
        for pc in edges.iter().flat_map(|&pc| [pc.saturating_sub(1), pc, pc.saturating_add(1)]) {
            let found = self.map.lookup(pc, |hit| {
                assert_eq!(hit.range().start() + hit.offset(), pc);
                (hit.range().start(), hit.range().end(), hit.value().id())
            });
            assert_eq!(found, self.oracle.at(pc), "lookup of {pc:#x}");
            for Kept { view, shows } in &self.readers {
                let found = view.lookup(pc);
                let found = found.map(|h| (h.range().start(), h.range().end(), h.value().id()));
                assert_eq!(found, shows.at(pc), "lookup of {pc:#x} in a kept reader");
            }
            for Kept { view, shows } in &self.snapshots {
                assert_eq!(view.find(pc).map(row), shows.at(pc), "{pc:#x} in a kept snapshot");
            }
            self.counts.lookups += 1 + self.readers.len() + self.snapshots.len();
        }
        let stats = self.map.stats();
        assert_eq!((stats.entries, stats.publications), (self.oracle.0.len(), self.publications));
        assert_eq!(stats.retired + stats.destroyed, stats.publications);
        self.counts.most_ranges = self.counts.most_ranges.max(stats.entries);
    }

    /// Everything that is registered, in every view.
    fn look_at_all(&self) {
        assert!(self.map.snapshot().iter().map(row).eq(self.oracle.rows()));
        for Kept { view, shows } in &self.snapshots {
            assert!(view.iter().map(row).eq(shows.rows()), "a kept snapshot");
            assert!(view.iter().rev().map(row).eq(shows.rows().rev()), "a kept snapshot, reversed");
        }
        for Kept { view, shows } in &self.readers {
            let id_at = |pc| view.lookup(pc).map(|hit| hit.value().id());
            assert!(
                shows
                    .rows()
                    .all(|(start, end, id)| id_at(start) == Some(id) && id_at(end - 1) == Some(id)),
                "a kept reader"
            );
        }
    }

    fn view_range(&self, bounds: (usize, usize)) {
        let Ok(range) = CodeRange::from_start_len(bounds.0, bounds.1) else { return };
        let rows = self
            .oracle
            .rows()
            .filter(|&(start, end, _)| start.max(range.start()) < end.min(range.end()));
        assert!(self.map.snapshot().range(range).map(row).eq(rows), "{range}");
    }

    fn synchronize(&mut self) {
        let remaining = self.map.reclaim();
        assert_eq!(remaining.versions, self.map.stats().retired);
        if self.readers.is_empty() {
            assert!(remaining.is_empty(), "no reader is inside");
            self.map.synchronize();
            let stats = self.map.stats();
            assert_eq!((stats.retired, stats.retired_bytes), (0, 0));
        }
    }

    /// Everything goes, in one publication; nothing is left but what was leaked.
    fn close(mut self) -> Counts {
        self.look_at_all();
        self.readers.clear();
        let all = self.held.len();
        self.unregister_all(0, all);
        self.look_at_all();
        self.snapshots.clear();
        self.synchronize();
        self.counts
    }
}

/// A range as it was given: start and length, perhaps wrapping.
#[derive(Clone, Copy)]
struct Bounds((usize, usize));

impl TryFrom<Bounds> for CodeRange {
    type Error = pcmap::RangeError;

    fn try_from(Bounds((start, len)): Bounds) -> Result<Self, Self::Error> {
        Self::from_start_len(start, len)
    }
}

fn one_call(worlds: &mut [World<'_, '_>; MAPS], input: &mut Input<'_>) {
    let first = input.byte();
    let which = (first >> 6) % MAPS;
    let world = &mut worlds[which];
    match first % 16 {
        0..=3 => {
            let bounds = input.bounds();
            world.register(bounds);
        }
        4 => {
            let batch = (0..input.byte() % 8).map(|_| input.bounds()).collect();
            world.register_all(batch);
        }
        // A run of ranges at a distance from each other, touching or apart: trees grow tall.
        5 | 6 => {
            let (start, count) = (input.address(), 1 + input.byte() * 2);
            let (len, apart) = (1 + input.byte() % 64, input.byte() % 4 * 32);
            let starts = (0..count).map(|i| start.saturating_add(i * (len + apart)));
            world.register_all(starts.map(|start| (start, len)).collect());
        }
        7 | 8 => world.unregister(input.byte() * 7, input.byte()),
        9 => world.unregister_all(input.byte(), input.byte() * 2),
        10 => {
            if let Some(code) = world.take(input.byte()) {
                let (range, id) = (code.range(), code.value().id());
                code.leak();
                let stays = world.oracle.at(range.start()).is_some_and(|row| row.2 == id);
                assert!(stays || range.is_empty());
            }
        }
        11 | 12 => world.keep_or_let_go(input.byte(), input.byte()),
        13 => {
            let bounds = input.bounds();
            world.view_range(bounds);
        }
        14 => world.synchronize(),
        _ => {
            // A key of one map given to another.
            let (at, other) = (input.byte(), worlds[(which + 1) % MAPS].map);
            let world = &mut worlds[which];
            if let Some(code) = world.take(at) {
                let (range, edges) = (code.range(), [code.range().start(), code.range().end()]);
                if range.is_empty() {
                    assert!(other.unregister(code.into_key()).is_ok(), "it is no entry");
                } else {
                    let key = other.unregister(code.into_key()).expect_err("of another map").key;
                    world.look_around(&edges);
                    world.oracle.0.remove(&range.start());
                    world.publications += 1;
                    assert!(world.map.unregister(key).is_ok());
                }
                world.look_around(&edges);
            }
        }
    }
    worlds[which].counts.calls += 1;
}

/// Runs an input; panics where a map and its oracle differ.
pub(crate) fn run(input: &[u8]) -> Counts {
    let tallies = [const { Tally::new() }; MAPS];
    let mut total = Counts::default();
    {
        let maps: [CodeMap<Tracked<'_>>; MAPS] = Default::default();
        let mut worlds: [World<'_, '_>; MAPS] =
            std::array::from_fn(|i| World::new(&maps[i], &tallies[i]));
        let mut input = Input(input);
        for call in 1..=MOST_CALLS {
            if input.0.is_empty() {
                break;
            }
            one_call(&mut worlds, &mut input);
            if call % 32 == 0 {
                worlds.iter().for_each(World::look_at_all);
            }
        }
        for (world, tally) in worlds.into_iter().zip(&tallies) {
            let map = world.map;
            total += world.close();
            // What is leaked stays, and each value else was dropped once.
            assert_eq!(tally.alive(), map.stats().entries);
        }
    }
    assert!(tallies.iter().all(|tally| tally.alive() == 0), "a value outlives its map");
    total
}
