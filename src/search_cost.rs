//! A test: what a lookup reads, counted, on every layout that the benches measure.
//!
//! Not a timer: the search reports each address of the index that it reads, and this counts them
//! and the cache lines they are on. The bound is `Tree::most_levels` and `most_probes`, stated in
//! `src/index/tree.rs`; beside the nodes a lookup reads one line of the map, one of its reader
//! counts, and one or two of the version.

use crate::address_range::{CodeRange, Pc};
use crate::index::Index;
use crate::index::entry::Item;
use crate::index::tree::Tree;
use crate::layouts::{Layout, Layouts, SIZES};
use crate::process;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

const LINE: usize = 64;

/// How much one lookup read of the nodes.
#[derive(Clone, Copy, Default)]
struct Cost {
    probes: usize,
    lines: usize,
}

fn cost(tree: &Tree<()>, pc: usize, expected: bool) -> Cost {
    let probes = Cell::new(0);
    let lines = RefCell::new(BTreeSet::new());
    let found = tree.find_probed(Pc::new(pc), |address| {
        probes.set(probes.get() + 1);
        let mut lines = lines.borrow_mut();
        lines.insert(address.addr() / LINE);
        // A slot is three words, which two lines may share; a byte of a table counts as much.
        lines.insert((address.addr() + 3 * size_of::<usize>() - 1) / LINE);
    });
    assert_eq!(found, expected, "{pc:#x}");
    Cost { probes: probes.get(), lines: lines.borrow().len() }
}

fn mean(sum: usize, of: usize) -> f64 {
    sum as f64 / of as f64
}

/// Looks all probes up, prints what they cost, and checks it against the bound.
fn measure(layout: &Layout) {
    let items = layout.ranges.iter().map(|range| {
        let range = CodeRange::try_from(range.clone()).expect("a range");
        Item::try_new(range, ()).expect("memory")
    });
    let items: Vec<_> = items.collect();
    let index = Index::new();
    index.insert_items(&items).expect("no overlap");
    let reading = index.enter();
    let tree = &reading.version().expect("published").tree;
    let n = layout.ranges.len();
    let levels = usize::from(tree.height) + 1;
    let (mut sum, mut worst) = (Cost::default(), Cost::default());
    let probes = layout.probes();
    for (pcs, expected) in [(&probes, true), (&layout.misses(), false)] {
        for &pc in pcs {
            let cost = cost(tree, pc, expected);
            worst.probes = worst.probes.max(cost.probes);
            worst.lines = worst.lines.max(cost.lines);
            if expected {
                sum.probes += cost.probes;
                sum.lines += cost.lines;
            }
        }
    }
    println!(
        "{:10} n={n:<8} levels {levels}, reads {:4.1} on {:4.1} cache lines; at most {} on {}; \
         bound {}; {:.1} bytes an entry",
        layout.name,
        mean(sum.probes, probes.len()),
        mean(sum.lines, probes.len()),
        worst.probes,
        worst.lines,
        Tree::<()>::most_probes(n),
        mean(index.size().2, n),
    );
    assert!(levels <= Tree::<()>::most_levels(n));
    assert!(worst.probes <= Tree::<()>::most_probes(n));
    // A byte of a table is on one line, a slot on two at most.
    assert!(worst.lines <= 2 * Tree::<()>::most_probes(n) - levels);
    assert!(n < 1_000 || index.size().2 <= 64 * n, "at most 64 bytes an entry");
}

#[test]
fn what_a_lookup_reads_is_bounded_on_every_layout() {
    let layouts = Layouts::default();
    let mut notices = BTreeSet::new();
    for name in Layouts::NAMES {
        for n in SIZES {
            match layouts.find(name, n) {
                Ok(layout) => measure(&layout),
                Err(notice) => assert!(notices.insert(notice)),
            }
        }
    }
    notices.iter().for_each(|notice| println!("{notice}"));
    match process::layout() {
        Some(layout) => measure(&layout),
        None => println!("skipped: process: this system's loader is not known"),
    }
}

/// Mean reads of lookups in each range.
fn mean_reads(index: &Index<()>, ranges: &[CodeRange]) -> f64 {
    let reading = index.enter();
    let tree = &reading.version().expect("published").tree;
    let reads = ranges.iter().map(|range| cost(tree, range.start(), true).probes);
    mean(reads.sum(), ranges.len())
}

/// Tables are carried over from write to write; what short-lived code did to them wears off with
/// compaction.
#[test]
fn what_came_and_went_costs_later_lookups_little() {
    const STRIDE: usize = 0x1000;
    let range = |start, len| CodeRange::from_start_len(start, len).expect("a range");
    let item = |range| Item::try_new(range, ()).expect("memory");
    let ranges: Vec<_> = (1..4_000).map(|i| range(i * STRIDE, 0xc00)).collect();
    let index = Index::new();
    index.insert_items(&ranges.iter().copied().map(item).collect::<Vec<_>>()).expect("no overlap");
    let before = mean_reads(&index, &ranges);
    let stubs = |beside: &CodeRange| {
        let end = beside.end();
        (0..15).map(move |stub| range(end + stub * 16, 16))
    };
    let stubs: Vec<_> = ranges.iter().step_by(40).flat_map(stubs).map(item).collect();
    for stub in &stubs {
        index.insert_items(core::slice::from_ref(stub)).expect("free");
    }
    let during = mean_reads(&index, &ranges);
    for stub in &stubs {
        index.remove_items(core::slice::from_ref(stub));
    }
    while index.compact(usize::MAX) {}
    let after = mean_reads(&index, &ranges);
    println!(
        "{} stubs: reads {before:.2} before, {during:.2} beside them, {after:.2} after",
        stubs.len()
    );
    assert!(during > before + 1.0, "so many beside each other are hard to tell apart");
    assert!(after <= before + 1.1);
}
