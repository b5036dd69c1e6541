//! What a write makes and displaces, counted on every layout that the benches measure.
//!
//! Not a timer: the allocator counts what a write asks for, and the figures of the map what it displaces. A
//! write makes a node of each level. Now and then it makes a second one that compacts a leaf.
//! A write that made the index anew would ask for thousands of blocks. Removing and waiting ask for nothing:
//! there an allocation ends the process. `PCMAP_LONG=1` adds a million ranges.

#[path = "../benches/support/functions.rs"]
mod functions;
#[expect(dead_code, reason = "each test uses a part of it")]
mod heap;
#[path = "../benches/support/layouts.rs"]
#[expect(dead_code, reason = "nothing is looked up here")]
mod layouts;

use heap::{asked_by, without_asking};
use layouts::{Layout, Layouts, SIZES};
use pcmap::{CodeMap, Registration, Stats};
use std::collections::BTreeSet;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

type Map = CodeMap<()>;

/// The most bytes of a node.
const NODE: usize = 8 << 10;
/// The entry, and lists of what is replaced and left out.
const BESIDE: usize = 2 << 10;
/// Writes that are made while a reader is inside, so that nothing is freed and used again: fewer than
/// what begins an era.
const AT_A_TIME: usize = 12;

/// 1 + floor(log64 n)
fn levels(n: usize) -> usize {
    1 + n.max(1).ilog2() as usize / 6
}

/// The most that one write costs, and the sum.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    writes: usize,
    blocks: usize,
    most_blocks: usize,
    bytes: usize,
    most_bytes: usize,
    /// Nodes and removed entries that it displaced.
    most_displaced: usize,
    /// Writes that asked for one block of each level and an entry, and for no more.
    plain: usize,
}

/// How much was displaced so far. (Nodes, and the entries that were left out; values too.)
fn displaced(stats: &Stats) -> usize {
    (stats.retired + stats.destroyed) as usize
}

impl Cost {
    /// Makes a write, and counts.
    fn count<'m>(&mut self, map: &'m Map, range: Range<usize>) -> Registration<'m, ()> {
        let before = map.stats();
        let (code, asked) = asked_by(|| map.register(range, ()));
        let code = code.expect("free");
        let after = map.stats();
        self.writes += 1;
        self.blocks += asked.blocks;
        self.bytes += asked.bytes;
        self.most_blocks = self.most_blocks.max(asked.blocks);
        self.most_bytes = self.most_bytes.max(asked.bytes);
        let levels = levels(after.entries + after.removed);
        self.plain += usize::from(asked.blocks <= levels + 1);
        // (Tombstones that are left out are counted apart: each was a removal.)
        let left_out = before.removed.saturating_sub(after.removed);
        let displaced = displaced(&after) - displaced(&before);
        self.most_displaced = self.most_displaced.max(displaced.saturating_sub(left_out));
        code
    }

    fn mean(sum: usize, of: usize) -> f64 {
        sum as f64 / of.max(1) as f64
    }

    /// Prints the figures, and checks them for an index of `n` ranges. So many `publications` belong to a
    /// write at most.
    fn check(&self, layout: &Layout, what: &str, n: usize, publications: usize) {
        let levels = levels(n);
        println!(
            "{:9} n={n:<7} {what:9}: levels {levels}, blocks {:4.1}, at most {}; bytes {:6.0}, at most {}; \
             displaced at most {}; {} of {} made one node of each level",
            layout.name,
            Self::mean(self.blocks, self.writes),
            self.most_blocks,
            Self::mean(self.bytes, self.writes),
            self.most_bytes,
            self.most_displaced,
            self.plain,
            self.writes,
        );
        // A node of each level that is cut becomes two, and the root gets one above it; one that is joined
        // takes its neighbours with it.
        let nodes = publications * (2 * levels + 1);
        // Beside them: the entry, and lists that outgrow their places.
        let lists = if publications == 1 { 0 } else { 8 };
        assert!(self.most_blocks <= nodes + 1 + lists, "{self:?}");
        assert!(self.most_bytes <= nodes * NODE + publications * BESIDE, "{self:?}");
        assert!(publications != 1 || self.plain * 10 >= self.writes * 9, "{self:?}");
        assert!(self.most_displaced <= publications * 3 * levels, "{self:?}");
    }
}

/// Free places of a layout: some, all over it.
fn places(layout: &Layout, count: usize) -> Vec<Range<usize>> {
    let pairs = layout.ranges.windows(2).map(|pair| pair[0].end..pair[1].start);
    let gaps: Vec<_> = pairs.filter(|gap| gap.len() >= 2).collect();
    let end = layout.ranges.last().expect("not empty").end;
    let mut random = fastrand::Rng::with_seed(7);
    let mut places: Vec<_> = (0..count * 4)
        .filter_map(|_| random.choice(&gaps))
        .map(|gap| gap.start..gap.start + 1)
        .collect();
    places.sort_unstable_by_key(|place| place.start);
    places.dedup();
    random.shuffle(&mut places);
    // Where code lies wall to wall, it is added behind.
    places.extend((0..count).map(|i| end + 2 * i..end + 2 * i + 1));
    places.truncate(count);
    places
}

/// Writes to an index without tombstones.
fn measure_writes(layout: &Layout, map: &Map) {
    let mut cost = Cost::default();
    for places in places(layout, 240).chunks(AT_A_TIME) {
        // Gives back the blocks that are kept for later writes.
        let _ = map.reclaim();
        let reader = map.enter();
        let code: Vec<_> = places.iter().map(|place| cost.count(map, place.clone())).collect();
        drop(reader);
        without_asking("unregister_all", || drop(map.unregister_all(code)));
        let _ = map.reclaim();
    }
    cost.check(layout, "writes", layout.n(), 1);
}

/// Writes to a leaf until it is cut.
fn measure_cuts(layout: &Layout, map: &Map) {
    let end = layout.ranges.last().expect("not empty").end;
    let (mut cost, mut code) = (Cost::default(), Vec::new());
    let count = 300;
    for i in 0..count {
        if i % AT_A_TIME == 0 {
            let _ = map.reclaim();
        }
        code.push(cost.count(map, end + 0x1000 + 2 * i..end + 0x1001 + 2 * i));
    }
    cost.check(layout, "cuts", layout.n() + count, 1);
    map.unregister_all(code).wait();
}

/// Writes while more than a quarter of the index is removed: each compacts a leaf as well.
fn measure_compactions(layout: &Layout, map: &Map, code: &mut Vec<Registration<'_, ()>>) {
    let n = layout.n();
    // All over the index, so that each leaf has some; and some leaves have nothing else.
    let mut number = 0;
    let removed = code.extract_if(.., |_| {
        number += 1;
        number % 3 == 0 || (n / 4..n / 2).contains(&number)
    });
    let removed: Vec<_> = removed.collect();
    without_asking("unregister_all", || drop(map.unregister_all(removed)));
    let before = map.stats();
    assert!(before.removed * 4 > before.entries, "{before}");
    let mut cost = Cost::default();
    let mut added = Vec::new();
    for place in places(layout, 120) {
        // Only while there are many: those that are left are many enough at every write.
        added.push(cost.count(map, place));
    }
    let after = map.stats();
    let publications = after.publications - before.publications;
    println!(
        "  {publications} publications; removed {}, and {} after",
        before.removed, after.removed
    );
    assert!(publications > cost.writes as u64, "some of them compacted");
    cost.check(layout, "compacts", n, 2);
    without_asking("registrations", || added.into_iter().for_each(drop));
    assert!(map.reclaim().items < u64::MAX);
    let clean = map.stats();
    assert!(clean.removed * 4 <= clean.entries + clean.removed, "{clean}");
}

fn is_long() -> bool {
    std::env::var_os("PCMAP_LONG").is_some_and(|value| value != "0")
}

#[test]
fn a_write_makes_one_node_of_each_level() {
    let layouts = Layouts::default();
    let mut notices = BTreeSet::new();
    for name in Layouts::NAMES {
        for n in SIZES.into_iter().filter(|&n| is_long() || n < 1_000_000) {
            let layout = match layouts.find(name, n) {
                Ok(layout) => layout,
                Err(notice) => {
                    notices.insert(notice);
                    continue;
                }
            };
            let map = Map::new();
            let items = layout.ranges.iter().map(|range| (range.clone(), ()));
            let mut code = map.register_all(items).expect("free");
            measure_writes(&layout, &map);
            if n <= 100_000 {
                measure_cuts(&layout, &map);
                measure_compactions(&layout, &map, &mut code);
            }
        }
    }
    notices.iter().for_each(|notice| println!("{notice}"));
}

/// Where a whole region was removed, a compaction takes a few leaves of it at a time, and so does a write that
/// falls there.
#[test]
fn a_write_leaves_out_a_few_leaves_at_a_time() {
    for n in [10_000, 100_000] {
        let map = Map::new();
        let range = |i: usize| (i + 1) * 0x1000..(i + 1) * 0x1000 + 0xc00;
        let mut code = map.register_all((0..n).map(|i| (range(i), ()))).expect("free");
        // Some stay: their leaves are too small, and are joined with neighbours.
        let mut number = 0;
        let removed = code.extract_if(.., |_| {
            number += 1;
            number % 1_000 != 0
        });
        let removed: Vec<_> = removed.collect();
        without_asking("unregister_all", || drop(map.unregister_all(removed)));
        let (mut most_left_out, mut most) = (0, (0, Duration::ZERO));
        for i in 0..200 {
            let before = map.stats();
            let begin = Instant::now();
            let (code, asked) = asked_by(|| map.register(range(n + i), ()));
            code.expect("free").leak();
            let left_out = before.removed - map.stats().removed.min(before.removed);
            most_left_out = most_left_out.max(left_out);
            most = most.max((asked.bytes, begin.elapsed()));
        }
        println!("{n} ranges: a write left out at most {most_left_out} and asked for {most:?}");
        // Leaves of 128: the one that is compacted, and two that are joined to it.
        assert!(most_left_out <= 3 * 128, "{most_left_out} of {n} at once");
    }
}

/// Every way to remove, and to wait: with readers inside, behind them, and with garbage that makes eras end.
#[test]
fn removing_and_waiting_ask_for_no_memory() {
    const N: usize = 2_000;
    let map = Map::new();
    let range = |i: usize| (i + 1) * 64..(i + 1) * 64 + 48;
    let mut waits = 0;
    for round in 0..10 {
        let mut code = map.register_all((0..N).map(|i| (range(i), ()))).expect("free");
        // A reader inside keeps the epoch from advancing, every other time.
        let reader = (round % 2 == 1).then(|| map.enter());
        let held: Vec<_> =
            (0..200).map(|i| map.register(range(N + i), ()).expect("free")).collect();
        let mut take = || code.pop().expect("there");
        let (one, two, three) = (take(), take(), take());
        let key = take().into_key();
        let dropped_key = map.register(range(2 * N + round), ()).expect("free").into_key();
        without_asking("drop of a registration", || drop(one));
        let retirement = without_asking("unregister", || two.unregister());
        without_asking("drop of a retirement", || drop(retirement));
        let mut asked = without_asking("unregister", || three.unregister());
        without_asking("is_complete", || {
            for _ in 0..100 {
                let _ = asked.is_complete();
            }
        });
        let of_key = without_asking("unregister of a key", || map.unregister(key));
        let of_key = of_key.expect("of this map");
        without_asking("drop of a key", || drop(dropped_key));
        let all = without_asking("unregister_all", || map.unregister_all(code));
        without_asking("drops", || held.into_iter().for_each(drop));
        // While a reader on another thread stays for a while.
        drop(reader);
        let entered = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            let (map, entered) = (&map, &entered);
            scope.spawn(move || {
                let _reader = map.enter();
                entered.wait();
                thread::sleep(Duration::from_millis(20));
            });
            entered.wait();
            without_asking("is_complete", || asked.is_complete());
            without_asking("wait", || {
                asked.wait();
                of_key.wait();
                all.wait();
            });
            waits += 3;
        });
        without_asking("synchronize", || map.synchronize());
        assert_eq!(map.stats().entries, round + 1, "code whose key is dropped stays");
    }
    println!("{waits} waits, and no allocation");
}
