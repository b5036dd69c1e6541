//! The fuzz targets' inputs as ordinary tests: the corpora in the tree, random bytes, and random
//! calls in address spaces so small that every address is looked up after each.
//!
//! `PCMAP_LONG=1` in the environment tries many more random inputs.

#[cfg(feature = "elf")]
#[path = "../fuzz/interpreter/image.rs"]
mod image;
#[cfg(feature = "elf")]
#[path = "../fuzz/interpreter/images.rs"]
mod images;
#[path = "../fuzz/interpreter/input.rs"]
mod input;
#[path = "../fuzz/interpreter/operations.rs"]
mod operations;
#[path = "../fuzz/interpreter/oracle.rs"]
mod oracle;
#[cfg(feature = "elf")]
#[path = "../fuzz/interpreter/sound_tables.rs"]
mod sound_tables;
#[cfg(feature = "elf")]
#[path = "../fuzz/interpreter/tables.rs"]
mod tables;
mod tracked;
#[path = "../fuzz/interpreter/world.rs"]
mod world;

use proptest::collection::vec as list;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::ops::AddAssign;
use std::path::Path;
use std::{env, fs};

/// Runs every input in the tree of a target; says which, so that the last one is to blame.
fn replay(target: &str, mut run: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for file in fs::read_dir(folder).expect("the corpus is in the tree") {
        let path = file.expect("a readable folder").path();
        println!("{}", path.display());
        run(&fs::read(path).expect("a readable file"));
        inputs += 1;
    }
    println!("{target}: {inputs} inputs");
    assert!(inputs >= 10, "a poor corpus");
}

/// Every target has a corpus, and every corpus a test here.
#[test]
fn every_target_is_replayed() {
    let names = |folder: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let files = fs::read_dir(folder).expect("a folder in the tree");
        let path = files.map(|file| file.expect("a readable folder").path());
        let stem = path.map(|path| path.file_stem().expect("a name").to_owned());
        let mut names: Vec<_> = stem.map(|name| name.into_string().expect("in UTF-8")).collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz/fuzz_targets"), ["images", "operations", "tables"]);
    assert_eq!(names("fuzz/corpus"), ["images", "operations", "tables"]);
}

#[test]
fn the_corpus_of_operations() {
    let mut total = world::Counts::default();
    replay("operations", |input| total += operations::run(input, &[]));
    println!("{total:?}");
    assert!(total.refusals > 100 && total.most_ranges > 1000, "a poor corpus");
}

#[test]
#[cfg(feature = "elf")]
fn the_corpus_of_images() {
    let (mut given, mut refused) = (0, 0);
    replay("images", |input| *if images::read_any(input) { &mut given } else { &mut refused } += 1);
    println!("{given} files gave images, {refused} did not");
    assert!(given >= 10 && refused >= 10, "a poor corpus");
}

#[test]
#[cfg(feature = "elf")]
fn the_corpus_of_tables() {
    let mut total = tables::Counts::default();
    replay("tables", |input| total += tables::run(input));
    println!("{total:?}");
    let least = [total.read, total.built, total.refused, total.images, total.refused_images];
    assert!(least.iter().all(|&count| count >= 10), "a poor corpus");
}

/// Runs many inputs, and shortens one that fails; what they came to.
fn search<C: AddAssign + Default>(
    short: u32,
    inputs: impl Strategy<Value = Vec<u8>>,
    run: impl Fn(&[u8]) -> C,
) -> C {
    let is_long = env::var_os("PCMAP_LONG").is_some_and(|value| value != "0");
    let cases = if is_long { short * 200 } else { short };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let total = RefCell::new(C::default());
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        let counts = run(&input);
        *total.borrow_mut() += counts;
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{cases} inputs");
    total.into_inner()
}

#[test]
fn random_operations() {
    let bytes = list(any::<u8>(), 0..2000);
    let total = search(100, bytes, |input| operations::run(input, &[]));
    println!("{total:?}");
    assert!(total.refusals > 100 && total.lookups > 10_000);
}

#[test]
#[cfg(feature = "elf")]
fn random_tables() {
    // The first byte picks what is made of the rest; tables begin with small numbers.
    let numbers = list(0_u32..6, 0..8)
        .prop_map(|numbers| numbers.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>());
    let rest = prop_oneof![list(any::<u8>(), 0..20), list(any::<u8>(), 0..600)];
    let bytes = (0_u8..7, numbers, rest)
        .prop_map(|(first, numbers, bytes)| [vec![first], numbers, bytes].concat());
    let total = search(1000, bytes, tables::run);
    println!("{total:?}");
    let least = [total.read, total.built, total.refused, total.images, total.refused_images];
    assert!(least.iter().all(|&count| count > 0), "something is never done");
}

/// Calls on one map, in the 40 addresses from the one that two bytes say.
fn small([high, low]: [u8; 2]) -> impl Strategy<Value = Vec<u8>> {
    const SIZE: u8 = 40;
    let bounds = (0..=SIZE, prop_oneof![9 => 0..10_u8, 1 => 240..=255_u8])
        .prop_map(move |(at, len)| [high, low + at, len]);
    let some = || any::<u8>();
    let call = prop_oneof![
        8 => bounds.clone().prop_map(|bounds| [&[0][..], &bounds].concat()),
        3 => list(bounds.clone(), 0..6).prop_map(|batch| {
            [&[4, batch.len() as u8][..], &batch.concat()].concat()
        }),
        6 => (some(), some()).prop_map(|(at, how)| [7, at, how].to_vec()),
        1 => (some(), 0..3_u8).prop_map(|(from, count)| [9, from, count].to_vec()),
        1 => some().prop_map(|at| [10, at].to_vec()),
        4 => (some(), some()).prop_map(|(what, at)| [11, what, at].to_vec()),
        1 => bounds.prop_map(|bounds| [&[13][..], &bounds].concat()),
        1 => Just([14].to_vec()),
        1 => some().prop_map(|at| [15, at].to_vec()),
    ];
    list(call, 1..60).prop_map(|calls| calls.concat())
}

fn every_pc(origin: [u8; 2], pcs: impl Iterator<Item = usize>) {
    let pcs: Vec<_> = pcs.collect();
    let total = search(250, small(origin), |input| operations::run(input, &pcs));
    println!("{total:?}");
    assert!(total.refusals > 100, "sequences without a conflict test half of it");
}

#[test]
fn every_pc_of_a_small_space() {
    every_pc([0x10, 0], 0xffe..0x1000 + 52);
}

#[test]
fn every_pc_of_the_lowest_addresses() {
    every_pc([0, 0], 0..52);
}

#[test]
fn every_pc_of_the_highest_addresses() {
    every_pc([0x40, 0], usize::MAX - 42..=usize::MAX);
}
