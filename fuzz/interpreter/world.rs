//! A map, what it should hold, and everything that is held of it: each call compared.

use crate::oracle::{Bounds, Oracle, Row, share};
use crate::tracked::{Tally, Tracked};
use pcmap::{CodeMap, CodeRange, Pc, Reader, Refused, Registered, Registration, Snapshot};

/// Ranges per map: an input is to be run in milliseconds.
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

/// A view that was kept, and what it has to go on showing.
struct Kept<V> {
    view: V,
    shows: Oracle,
}

/// A map, its oracle, and what is held of it.
pub(crate) struct World<'m, 't> {
    pub(crate) map: &'m CodeMap<Tracked<'t>>,
    tally: &'t Tally,
    oracle: Oracle,
    /// Registrations and batches that published something, and ranges that were unregistered.
    publications: u64,
    removals: u64,
    held: Vec<Registration<'m, Tracked<'t>>>,
    readers: Vec<Kept<Reader<'m, Tracked<'t>>>>,
    snapshots: Vec<Kept<Snapshot<Tracked<'t>>>>,
    next_id: usize,
    pub(crate) counts: Counts,
}

fn row(code: Registered<'_, Tracked<'_>>) -> Row {
    (code.range().start(), code.range().end(), code.value().id())
}

impl<'m, 't> World<'m, 't> {
    pub(crate) fn new(map: &'m CodeMap<Tracked<'t>>, tally: &'t Tally) -> Self {
        Self {
            map,
            tally,
            oracle: Oracle::default(),
            publications: 0,
            removals: 0,
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

    pub(crate) fn register(&mut self, bounds: Bounds) {
        let value = self.value();
        let (id, edges) = (value.id(), bounds.edges());
        match self.map.register(bounds, value) {
            Ok(code) => {
                let (start, end) = edges.expect("it was accepted");
                let range = code.range();
                assert!(
                    start == end || !self.oracle.is_in_the_way(start, end),
                    "{range} was accepted"
                );
                assert_eq!((range.start(), range.end(), code.value().id()), (start, end, id));
                self.publications += u64::from(start < end);
                self.oracle.insert(range, id);
                self.held.push(code);
            }
            Err(error) => {
                assert_eq!(error.value.id(), id, "another value came back");
                self.counts.refusals += 1;
                match error.reason {
                    Refused::InvalidRange(why) => assert_eq!(edges, Err(why)),
                    Refused::Overlap { requested, existing } => {
                        assert_eq!(edges, Ok((requested.start(), requested.end())));
                        assert!(self.holds(existing) && overlap(requested, existing), "{error}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
        if let Ok((start, end)) = edges {
            self.look_around(&[start, end]);
        }
    }

    /// Whether it is the range of a row.
    fn holds(&self, range: CodeRange) -> bool {
        let row = self.oracle.at(range.start());
        row.is_some_and(|row| (row.0, row.1) == (range.start(), range.end()))
    }

    pub(crate) fn register_all(&mut self, batch: Vec<Bounds>) {
        if self.oracle.len() + batch.len() > MOST_RANGES {
            return;
        }
        let edges: Vec<_> = batch.iter().map(|bounds| bounds.edges()).collect();
        let invalid = edges.iter().position(Result::is_err);
        let mut sorted: Vec<_> =
            edges.iter().flatten().copied().filter(|(start, end)| start < end).collect();
        sorted.sort_unstable();
        let conflict = sorted.windows(2).any(|pair| pair[0].1 > pair[1].0)
            || sorted.iter().any(|&(start, end)| self.oracle.is_in_the_way(start, end));
        let items: Vec<_> = batch.iter().map(|&bounds| (bounds, self.value())).collect();
        let ids = self.next_id + 1 - batch.len()..self.next_id + 1;
        match self.map.register_all(items) {
            Ok(code) => {
                assert!(invalid.is_none() && !conflict, "a batch was accepted");
                let found = code.iter().map(|code| Ok((code.range().start(), code.range().end())));
                assert!(found.eq(edges), "out of order");
                assert!(code.iter().map(|code| code.value().id()).eq(ids), "out of order");
                for code in &code {
                    self.oracle.insert(code.range(), code.value().id());
                }
                self.publications += u64::from(!sorted.is_empty());
                self.held.extend(code);
            }
            Err(error) => {
                self.counts.refusals += 1;
                let taken = error.values.len();
                let back = error.values.iter().map(Tracked::id);
                let back = back.chain(error.rest.map(|(_, value)| value.id()));
                assert!(back.eq(ids), "everything comes back, in order");
                match (error.reason, invalid) {
                    (Refused::InvalidRange(why), Some(at)) => {
                        assert_eq!((edges[at], taken), (Err(why), at + 1));
                    }
                    (Refused::Overlap { requested, existing }, None) => {
                        assert!(conflict && taken == edges.len());
                        self.check_batch_conflict(&sorted, requested, existing);
                    }
                    (reason, _) => panic!("{reason}"),
                }
            }
        }
        let edges: Vec<_> = sorted.iter().flat_map(|&(start, end)| [start, end]).collect();
        self.look_around(edges.get(..8).unwrap_or(&edges));
        self.look_around(edges.get(edges.len().saturating_sub(4)..).unwrap_or(&[]));
    }

    /// Both ranges of a refused batch are where they are said to be, and share an address.
    fn check_batch_conflict(
        &self,
        batch: &[(usize, usize)],
        requested: CodeRange,
        existing: CodeRange,
    ) {
        let times = |range: CodeRange| {
            batch.iter().filter(|&&edges| edges == (range.start(), range.end())).count()
        };
        assert_ne!(times(requested), 0, "{requested} is not in the batch");
        assert!(overlap(requested, existing), "{existing} does not overlap {requested}");
        let in_batch = times(existing) > usize::from(existing == requested);
        assert!(in_batch || self.holds(existing), "{existing} is neither in the map nor the batch");
    }

    /// Notes that a range goes: for those that are inside, too.
    fn forget(&mut self, range: CodeRange, id: usize) {
        self.oracle.remove(range, id);
        self.readers.iter_mut().for_each(|kept| kept.shows.remove_if_there(range, id));
        self.removals += u64::from(!range.is_empty());
    }

    /// Notes that registrations go; the edges of some.
    fn go(&mut self, going: &[Registration<'m, Tracked<'t>>]) -> Vec<usize> {
        going.iter().for_each(|code| self.forget(code.range(), code.value().id()));
        let some = going.iter().step_by(1 + going.len() / 4);
        some.flat_map(|code| [code.range().start(), code.range().end()]).collect()
    }

    fn take(&mut self, at: usize) -> Option<Registration<'m, Tracked<'t>>> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(at % self.held.len()))
    }

    /// One registration goes, in the way that `how` picks.
    pub(crate) fn unregister(&mut self, at: usize, how: usize) {
        let Some(code) = self.take(at) else { return };
        let edges = self.go(std::slice::from_ref(&code));
        let publications = self.map.stats().publications;
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
        assert_eq!(self.map.stats().publications, publications, "a removal publishes nothing");
        drop(retirement);
        self.look_around(&edges);
    }

    pub(crate) fn unregister_all(&mut self, from: usize, count: usize) {
        let from = from * self.held.len() / 256;
        let going: Vec<_> = self.held.drain(from..self.held.len().min(from + count)).collect();
        let edges = self.go(&going);
        drop(self.map.unregister_all(going));
        self.look_around(&edges);
    }

    pub(crate) fn leak(&mut self, at: usize) {
        if let Some(code) = self.take(at) {
            let (range, id) = (code.range(), code.value().id());
            code.leak();
            let stays = self.oracle.at(range.start()).is_some_and(|row| row.2 == id);
            assert!(stays || range.is_empty());
        }
    }

    /// A key of this map is given to another one, and then to this.
    pub(crate) fn go_astray(&mut self, at: usize, other: &CodeMap<Tracked<'t>>) {
        let Some(code) = self.take(at) else { return };
        let (range, id, edges) = (code.range(), code.value().id(), [code.range().start()]);
        match other.unregister(code.into_key()) {
            Ok(_) => assert!(range.is_empty(), "{range} is no entry of that map"),
            Err(wrong) => {
                assert_eq!(wrong.key.range(), range);
                self.look_around(&edges);
                self.forget(range, id);
                assert!(self.map.unregister(wrong.key).is_ok(), "it stays good for its map");
            }
        }
        self.look_around(&edges);
    }

    pub(crate) fn keep_or_let_go(&mut self, what: usize, at: usize) {
        let map = self.map;
        match what % 4 {
            0 if self.snapshots.len() < MOST_KEPT => {
                let view = map.snapshot().expect("memory");
                let least = self.publications + self.removals;
                assert!(view.is_empty() || view.sequence() >= least, "{}", view.sequence());
                self.snapshots.push(Kept { view, shows: self.oracle.clone() });
            }
            1 if self.readers.len() < MOST_KEPT => {
                self.readers.push(Kept { view: map.enter(), shows: self.oracle.clone() });
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
            self.look_at(pc);
        }
        let stats = self.map.stats();
        assert_eq!(stats.entries, self.oracle.len(), "{stats}");
        // Besides what registered there is what compacted.
        assert!(stats.publications >= self.publications, "{stats}");
        assert!(stats.removed as u64 <= self.removals, "{stats}");
        assert!(stats.oldest_wait.is_some() || stats.retired == 0, "{stats}");
        assert!(self.readers.len() >= stats.eras_held, "{stats}");
        self.counts.most_ranges = self.counts.most_ranges.max(stats.entries);
    }

    /// Looks up an address in every view there is.
    pub(crate) fn look_at(&mut self, pc: usize) {
        let found = self.map.lookup(pc, |hit| {
            assert_eq!((hit.pc(), hit.range().start() + hit.offset()), (Pc::new(pc), pc));
            (hit.range().start(), hit.range().end(), hit.value().id())
        });
        assert_eq!(found, self.oracle.at(pc), "lookup of {pc:#x}");
        for Kept { view, shows } in &self.readers {
            let found = view.lookup(pc);
            let found = found.map(|h| (h.range().start(), h.range().end(), h.value().id()));
            assert_eq!(found, shows.at(pc), "lookup of {pc:#x} in a kept reader");
        }
        let now = self.map.snapshot().expect("memory");
        let now = [(&now, &self.oracle)];
        for (view, shows) in self.snapshots.iter().map(|kept| (&kept.view, &kept.shows)).chain(now)
        {
            assert_eq!(view.find(pc).map(row), shows.at(pc), "find of {pc:#x}");
            let around = view.neighbours(pc);
            assert_eq!(around.at.map(row), shows.at(pc), "at {pc:#x}");
            assert_eq!(around.below.map(row), shows.below(pc), "below {pc:#x}");
            assert_eq!(around.above.map(row), shows.above(pc), "above {pc:#x}");
        }
        self.counts.lookups += 1 + self.readers.len() + self.snapshots.len();
    }

    /// Everything that is registered, in every view.
    pub(crate) fn look_at_all(&self) {
        let now = self.map.snapshot().expect("memory");
        let now = [(&now, &self.oracle)];
        for (view, shows) in self.snapshots.iter().map(|kept| (&kept.view, &kept.shows)).chain(now)
        {
            assert_eq!((view.len(), view.is_empty()), (shows.len(), shows.len() == 0));
            assert!(view.iter().map(row).eq(shows.rows()), "a snapshot");
            assert!(view.iter().rev().map(row).eq(shows.rows().rev()), "a snapshot, reversed");
        }
        for Kept { view, shows } in &self.readers {
            let id_at = |pc| view.lookup(pc).map(|hit| hit.value().id());
            let is_there = |(start, end, id)| [start, end - 1].map(id_at) == [Some(id); 2];
            assert!(shows.rows().all(is_there), "a kept reader");
        }
    }

    /// What shares an address with a range, in every snapshot, both ways.
    pub(crate) fn view_range(&self, bounds: Bounds) {
        let Ok(range) = CodeRange::try_from(bounds) else { return };
        let now = self.map.snapshot().expect("memory");
        let now = [(&now, &self.oracle)];
        for (view, shows) in self.snapshots.iter().map(|kept| (&kept.view, &kept.shows)).chain(now)
        {
            assert!(view.range(range).map(row).eq(shows.sharing(range)), "{range}");
            assert!(view.range(range).rev().map(row).eq(shows.sharing(range).rev()), "{range}");
        }
    }

    pub(crate) fn synchronize(&mut self) {
        let remaining = self.map.reclaim();
        assert_eq!(remaining.items, self.map.stats().retired);
        if self.readers.is_empty() {
            assert!(remaining.is_empty(), "no reader is inside");
            self.map.synchronize();
            let stats = self.map.stats();
            assert_eq!((stats.retired, stats.retired_bytes, stats.eras_held), (0, 0, 0));
            assert!(stats.removed * 4 <= stats.removed + stats.entries, "{stats}");
        }
    }

    /// Everything goes; nothing is left but what was leaked.
    pub(crate) fn close(mut self) -> Counts {
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

fn overlap(a: CodeRange, b: CodeRange) -> bool {
    share((a.start(), a.end(), 0), b)
}
