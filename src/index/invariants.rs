//! Tests: what every tree must be, checked after each of many writes. The model package runs them
//! with nodes of eight slots, so that a few ranges make a tall tree; here nodes have their real size.

use super::edit::{BATCH, Change};
use super::entry::{Entry, Item};
use super::node::{Node, fewest_slots, most_slots};
use super::slot::Slot;
use super::tree::Tree;
use super::{Index, Refusal};
use crate::address_range::{CodeRange, Pc};
use crate::sync::{LEAF_SLOTS, explore, unique_number};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Whether nodes have their real size.
const REAL: bool = LEAF_SLOTS > 16;

/// A size for nodes of real size, for those where miri takes every step, and for small nodes.
fn sized<S>(real: S, in_miri: S, small: S) -> S {
    match (REAL, cfg!(miri)) {
        (true, false) => real,
        (true, true) => in_miri,
        (false, _) => small,
    }
}

/// Checks the shape of the tree, and that each of its live ranges is found, by every way there is; gives
/// them.
fn check(tree: &Tree<usize>) -> Vec<CodeRange> {
    let mut nodes = 0;
    let mut bytes = 0;
    let mut slots = Vec::new();
    if !tree.root.is_nothing() {
        walk(tree, &tree.root, tree.height, true, &mut |slot, height| {
            if height.is_none() {
                slots.push(*slot);
            } else {
                nodes += 1;
                bytes += Node::<usize>::bytes(slot.plan());
            }
        });
    }
    assert!(nodes <= 1 + slots.len(), "no empty node");
    assert!(usize::from(tree.height) < Tree::<usize>::most_levels(slots.len()));
    assert_eq!((tree.entries, tree.bytes), (slots.len(), bytes));
    assert!(slots.iter().map(Slot::range).eq(tree.iter().map(|found| found.range)));
    for pair in slots.windows(2) {
        assert!(pair[0].start() < pair[1].start(), "sorted");
        let is_apart = pair[0].end() <= pair[1].start();
        assert!(is_apart || tree.is_removed(&pair[0]), "none starts inside a live one");
    }
    let live = slots.iter().filter(|slot| !tree.is_removed(slot));
    let ranges: Vec<_> = live.map(Slot::range).collect();
    for range in &ranges {
        for pc in [range.start(), range.end() - 1] {
            let probes = Cell::new(0);
            assert!(
                tree.find_probed(Pc::new(pc), |_| probes.set(probes.get() + 1)),
                "{pc:#x} of {range}"
            );
            assert!(probes.get() <= Tree::<usize>::most_probes(slots.len()), "{probes:?} probes");
            assert_eq!(find(tree, pc), Some((*range, range.start())));
        }
    }
    let gaps = ranges.windows(2).filter(|pair| pair[0].end() < pair[1].start());
    for pc in gaps.map(|pair| pair[0].end()).chain([0, usize::MAX]) {
        let inside = ranges.iter().any(|range| range.contains(pc));
        assert!(inside || find(tree, pc).is_none(), "{pc:#x}");
    }
    ranges
}

/// All nodes and entries of a tree, by address.
fn things(tree: &Tree<usize>) -> (BTreeSet<*mut Node<usize>>, BTreeSet<*mut Entry<usize>>) {
    let (mut nodes, mut entries) = (BTreeSet::new(), BTreeSet::new());
    if !tree.root.is_nothing() {
        walk(tree, &tree.root, tree.height, true, &mut |slot, height| {
            if height.is_none() {
                entries.insert(slot.entry());
            } else {
                nodes.insert(slot.node());
            }
        });
    }
    (nodes, entries)
}

/// What a lookup finds: the range and the value.
fn find(tree: &Tree<usize>, pc: usize) -> Option<(CodeRange, usize)> {
    let found = tree.find(Pc::new(pc)).filter(|found| !found.entry.is_removed())?;
    #[expect(unsafe_code, reason = "the value of a live entry")]
    // SAFETY: (`Entry::value`) 1. live, and in a section of the caller's.
    Some((found.range, *unsafe { found.entry.value() }))
}

fn walk(
    tree: &Tree<usize>,
    slot: &Slot<usize>,
    height: u8,
    is_root: bool,
    visit: &mut impl FnMut(&Slot<usize>, Option<u8>),
) {
    visit(slot, Some(height));
    let slots = tree.below(slot);
    assert!(slots.len() <= most_slots(height), "{} slots", slots.len());
    let fewest = if is_root { 1 + usize::from(height > 0) } else { fewest_slots(height) };
    assert!(slots.len() >= fewest, "{} slots at height {height}", slots.len());
    assert_eq!(
        Some(slot.start()),
        slots.first().map(|s| s.start()),
        "a node starts where its first range does"
    );
    for below in slots.iter() {
        if height == 0 {
            visit(&below, None);
        } else {
            walk(tree, &below, height - 1, false, visit);
        }
    }
}

/// Numbers that look random (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// An index and what should be in it.
struct Both {
    index: Rc<Index<usize>>,
    expected: BTreeMap<usize, Item<usize>>,
}

impl Both {
    fn new() -> Self {
        Self { index: Rc::new(Index::new()), expected: BTreeMap::new() }
    }

    fn insert(&mut self, starts: impl IntoIterator<Item = usize>, len: usize) {
        let mut items: Vec<_> = starts
            .into_iter()
            .filter_map(|start| CodeRange::from_start_len(start, len).ok())
            .map(|range| Item::try_new(range, range.start()).expect("memory"))
            .collect();
        items.sort_by_key(|item| item.range);
        let mut free = true;
        for (number, item) in items.iter().enumerate() {
            let others = self.expected.values().chain(&items[..number]);
            free &= !others.into_iter().any(|other| other.range.overlaps(item.range));
        }
        match self.index.insert_items(&items) {
            Ok(_) => {
                assert!(free, "inserted over another");
                self.expected.extend(items.into_iter().map(|item| (item.range.start(), item)));
            }
            Err(Refusal::Overlap { added, existing }) => {
                assert!(!free && added.overlaps(existing), "{added} and {existing}");
            }
            Err(Refusal::OutOfMemory(_)) => panic!("there is memory"),
        }
    }

    fn remove(&mut self, starts: impl IntoIterator<Item = usize>) {
        let gone = starts.into_iter().filter_map(|start| self.expected.remove(&start));
        self.index.remove_items(&gone.collect::<Vec<_>>());
    }

    fn check(&self) -> u8 {
        let reading = self.index.enter();
        let tree = reading.version().map(|version| &version.tree);
        let ranges = tree.map_or(Vec::new(), check);
        assert!(ranges.iter().eq(self.expected.values().map(|item| &item.range)));
        tree.map_or(0, |tree| tree.height)
    }
}

#[test]
fn random_writes_keep_the_tree_in_shape() {
    let (rounds, span, seeds) = sized((300, 4_000, 1_u64), (12, 1_200, 1), (24, 160, 40));
    (1..=seeds).for_each(|seed| {
        explore(move || {
            let mut random = Random(seed.wrapping_mul(0x5EED_1234_5678_9ABC));
            let mut both = Both::new();
            let (mut tallest, mut most) = (0, 0);
            for round in 0..rounds {
                // It grows in the first half and shrinks in the second, with batches of all sizes.
                let batch = [1, 1, 1, 3, span / 8][random.below(5)];
                let mut starts: BTreeSet<_> = (0..batch).map(|_| 16 * random.below(span)).collect();
                if (round < rounds / 2) == (random.below(4) != 0) {
                    // One in eight may be taken, or so long that it reaches into the next.
                    let careless = random.below(8) == 0;
                    if !careless {
                        starts.retain(|start| !both.expected.contains_key(start));
                    }
                    both.insert(starts, if careless { 24 } else { 16 });
                } else {
                    both.remove(starts);
                }
                tallest = tallest.max(both.check());
                most = most.max(both.expected.len());
                if round % 16 == 0 {
                    both.index.reclaim();
                }
            }
            println!("{rounds} writes, {most} ranges at most, {} levels at most", tallest + 1);
            assert!(tallest >= 1 || !REAL);
        })
    });
}

/// What grows in order, as a compiler's output does, and shrinks from either end or the middle.
#[test]
fn growing_in_order_and_shrinking_to_nothing() {
    let total = sized(3_000, 140, 60);
    for from_the in ["front", "back", "middle"] {
        explore(move || {
            let mut both = Both::new();
            for i in 0..total {
                both.insert([i * 64], 48);
            }
            let height = both.check();
            assert!(height >= 1);
            while let Some((&first, _)) = both.expected.first_key_value() {
                let start = match from_the {
                    "front" => first,
                    "back" => both.expected.last_key_value().map_or(0, |(&last, _)| last),
                    _ => *both.expected.keys().nth(both.expected.len() / 2).expect("there is one"),
                };
                both.remove([start]);
                if both.expected.len() % (total / sized(20, 2, 4)) < 2 {
                    assert!(both.check() <= height);
                }
            }
            both.check();
            both.index.reclaim();
            println!(
                "{total} in order, {height} levels above the leaves, gone from the {from_the}"
            );
        });
    }
}

/// Far-apart clusters, of which nodes are made that do not span them.
#[test]
fn clusters_and_single_ranges_far_apart() {
    let per_cluster = sized(200, 24, 6);
    explore(move || {
        let mut both = Both::new();
        let clusters = (0..6).flat_map(|cluster| {
            (0..per_cluster).map(move |i| (cluster << 40) + 0x1_0000 + i * (16 << cluster))
        });
        both.insert(clusters, 16);
        both.insert((7..40).map(|far| far << 41), 4096);
        both.check();
        both.remove((0..6).map(|cluster| (cluster << 40) + 0x1_0000));
        both.insert([1, usize::MAX - 8], 8);
        both.check();
        println!("{} ranges in clusters", both.expected.len());
    });
}

/// Removed ranges do not stand in the way, wherever they are, and compaction leaves them out.
#[test]
fn removed_ranges_are_in_nobodys_way_and_leave_the_tree() {
    let total = sized(1_000, 150, 40);
    explore(move || {
        let mut both = Both::new();
        both.insert((0..total).map(|i| i * 16), 16);
        for step in [7, 3, 1] {
            let starts: Vec<_> = both.expected.keys().copied().step_by(step).collect();
            both.remove(starts.iter().copied());
            both.check();
            // In place of some; across the starts of others, in the next leaf too; and before one.
            both.insert(starts.iter().copied().step_by(5), 16);
            both.insert(starts.iter().skip(2).copied().step_by(5), 40);
            both.insert(starts.iter().skip(3).step_by(5).map(|start| start + 4), 2);
            both.check();
            both.index.reclaim();
            both.check();
            let (live, removed, _) = both.index.size();
            println!("{live} of {total} left, and {removed} removed");
            assert!(live == both.expected.len() && removed * 4 <= live + removed);
        }
        // One across all of them.
        let all: Vec<_> = both.expected.keys().copied().collect();
        both.remove(all);
        both.insert([1], total * 16);
        both.check();
        assert_eq!(both.index.size().0, 1);
    });
}

/// A new range that begins in one leaf and reaches into the next one, over removed ranges there: the next
/// leaf begins behind it from then on, and what is live there is in its way.
#[test]
fn a_range_that_reaches_into_the_next_leaf() {
    let (total, gone) = if REAL { (LEAF_SLOTS + 1, LEAF_SLOTS / 8) } else { (9, 2) };
    for len in [0x110, 0x210, u32::MAX as usize, 1 << 32, (1 << 32) + 0x10, (1 << 33) + 0x10] {
        explore(move || {
            let start = |i| 0x10_0000 + i * 0x100;
            let mut both = Both::new();
            both.insert((0..total).map(start), 16);
            let middle = total / 2;
            both.remove((middle..middle + gone).map(start));
            for last_before in middle - 2..middle + gone {
                both.insert([start(last_before) + 16], len);
                both.check();
            }
            both.insert([1], 1);
            both.remove([start(0), start(total - 1)]);
            both.check();
            println!("{len:#x} bytes over {gone} removed ranges");
        });
    }
}

/// A batch that loses to another write again and again makes that write's change to its own tree: what it
/// publishes in the end is what it would have made from the newest version.
#[test]
fn a_batch_that_goes_from_version_to_version() {
    let (span, seeds) = sized((1_500, 6_u64), (300, 2), (120, 24));
    (1..=seeds).for_each(|seed| {
        explore(move || {
            let mut random = Random(seed.wrapping_mul(0x5EED_4321_8765_9ABC));
            let mut both = Both::new();
            both.insert((0..span / 2).filter(|i| i % 3 != 0).map(|i| i * 32), 16);
            both.remove((0..span / 2).filter(|i| i % 7 == 1).map(|i| i * 32));
            // Between the others, and behind them.
            let starts = (0..span).filter(|_| random.below(3) == 0).map(|i| 16 + i * 32);
            let items: Vec<_> = starts
                .map(|start| CodeRange::from_start_len(start, 16).expect("a range"))
                .map(|range| Item::try_new(range, range.start()).expect("memory"))
                .collect();
            let slots: Vec<_> = items.iter().map(Slot::of_item).collect();
            let index = both.index.clone();
            let reading = index.enter();
            items.iter().for_each(|item| item.enter_map(1));
            let mut edit = index.edit(&reading, BATCH | unique_number());
            edit.apply(Change { add: &slots, visit: &[] }).expect("free");
            let mut sections = vec![reading];
            for _ in 0..6 {
                let others: BTreeSet<usize> =
                    (0..random.below(40)).map(|_| 32 * random.below(span)).collect();
                if random.below(2) == 0 {
                    both.remove(others);
                } else {
                    let free = others.into_iter().filter(|at| !both.expected.contains_key(at));
                    both.insert(free.collect::<Vec<_>>(), 16);
                }
                if random.below(3) == 0 {
                    both.index.compact(usize::MAX);
                }
                let newer = index.enter();
                let from = sections.last().expect("one").tree();
                edit.rebase(&from, &newer.tree()).expect("free");
                // What it will retire is what the newest version has and its own tree lacks.
                let (mut nodes, mut entries) = things(&newer.tree());
                let (its_nodes, its_entries) = things(&edit.tree);
                nodes.retain(|node| !its_nodes.contains(node));
                entries.retain(|entry| !its_entries.contains(entry));
                let replaced: Vec<_> = edit.replaced.iter().collect();
                assert_eq!(replaced.iter().copied().collect::<BTreeSet<_>>(), nodes);
                assert_eq!(replaced.len(), nodes.len(), "each once");
                assert_eq!(edit.omitted.iter().collect::<BTreeSet<_>>(), entries);
                sections.push(newer);
            }
            let newest = sections.pop().expect("one");
            assert!(index.publish(&newest, &mut edit), "nobody writes meanwhile");
            index.retire_displaced(newest, &edit);
            drop(sections);
            both.expected.extend(items.into_iter().map(|item| (item.range.start(), item)));
            both.check();
            // (More than once, where a call is impatient.)
            (0..6).for_each(|_| both.index.reclaim());
            both.check();
            let backlog = both.index.backlog();
            assert_eq!((backlog.items, backlog.bytes), (0, 0));
            println!("{} ranges", both.expected.len());
        });
    });
}

/// What stands in a batch's way since it was built is told as what was there before.
#[test]
fn a_batch_that_finds_something_in_its_way_later() {
    explore(|| {
        let mut both = Both::new();
        let index = both.index.clone();
        both.insert((0..20).map(|i| i * 64), 16);
        let range = CodeRange::from_start_len(16, 16).expect("a range");
        let item = Item::try_new(range, 16).expect("memory");
        item.enter_map(1);
        let reading = index.enter();
        let mut edit = index.edit(&reading, BATCH | unique_number());
        edit.apply(Change { add: &[Slot::of_item(&item)], visit: &[] }).expect("free");
        both.insert([24], 16);
        let newer = index.enter();
        let refused = edit.rebase(&reading.tree(), &newer.tree()).expect_err("in the way");
        let existing = CodeRange::from_start_len(24, 16).expect("a range");
        assert_eq!(refused, Refusal::Overlap { added: range, existing });
        item.leave_map();
        drop(edit);
        drop((reading, newer));
        // If it goes before the batch looks, it is not.
        let item = [Item::try_new(range, 16).expect("memory")];
        item[0].enter_map(1);
        let reading = index.enter();
        both.remove([24]);
        let mut edit = index.edit(&reading, BATCH | unique_number());
        edit.apply(Change { add: &[Slot::of_item(&item[0])], visit: &[] }).expect("free");
        item[0].leave_map();
    });
}

/// Single writes, which change the tables of nodes in place of making them anew: at either end and
/// inside, on even, crowded, far-apart and long ranges, and where leaves stop being packed.
#[test]
fn single_writes_keep_every_table_true() {
    const REACH: usize = u32::MAX as usize;
    let (writes, most) = sized((700, 220), (24, 12), (16, 14));
    let layouts =
        ["even", "crowded", "aligned", "clusters", "at the reach of a packed leaf", "at the end"];
    for layout in layouts {
        explore(move || {
            let mut random = Random(0x5EED_0000_0000_0001 + layout.len() as u64);
            let mut both = Both::new();
            let mut shrinks = false;
            let mut checks = 0;
            for write in 0..writes {
                let held = both.expected.len();
                shrinks = if shrinks { held > most / 8 } else { held >= most };
                if held != 0 && random.below(8) < if shrinks { 6 } else { 2 } {
                    let at = [0, held - 1, random.below(held), random.below(held)][random.below(4)];
                    let start = both.expected.keys().nth(at).copied();
                    both.remove(start);
                } else {
                    let near = both.expected.keys().nth(random.below(held.max(1)));
                    let near = near.copied().unwrap_or(1 << 40);
                    let (start, len) = match layout {
                        "even" => (0x10_0000 + 4096 * random.below(2 * most), 64),
                        // (Several to a bucket, and some where it begins.)
                        "aligned" => (0x10_0000 + 16 * random.below(6 * most), 16),
                        "crowded" => (near + random.below(40), 1 + random.below(2)),
                        "clusters" => ((random.below(5) << 40) + (16 << random.below(30)), 16),
                        "at the end" => (usize::MAX - (random.below(most) << random.below(40)), 1),
                        _ => {
                            let len = [1, 64, REACH - 1, REACH, REACH + 1, REACH + 65];
                            let on = [64, 128, 192, REACH + random.below(3) - 1];
                            (
                                near + on[random.below(4)],
                                len[[0, 1, random.below(6)][random.below(3)]],
                            )
                        }
                    };
                    both.insert([start], len);
                }
                if !REAL || write % sized(3, 6, 1) == 0 {
                    both.check();
                    checks += 1;
                }
            }
            println!("{layout}: {writes} writes, {checks} checks, {} left", both.expected.len());
        });
    }
}
