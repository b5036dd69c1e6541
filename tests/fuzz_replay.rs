//! The fuzz target's inputs as an ordinary test: the corpus in the tree, and random bytes.
//!
//! `PCMAP_LONG=1` in the environment tries many more random inputs.

#[path = "../fuzz/interpreter/operations.rs"]
mod operations;

use operations::Counts;
use std::path::Path;
use std::{env, fs};

#[test]
fn the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/operations");
    let mut total = Counts::default();
    let mut inputs = 0;
    for file in fs::read_dir(folder).expect("the corpus is in the tree") {
        let path = file.expect("a readable folder").path();
        println!("{}", path.display()); // the last one is to blame
        total += operations::run(&fs::read(path).expect("a readable file"));
        inputs += 1;
    }
    println!("{inputs} inputs: {total:?}");
    assert!(inputs >= 10 && total.refusals > 100 && total.most_ranges > 1000, "a poor corpus");
}

#[test]
fn random_bytes() {
    let is_long = env::var_os("PCMAP_LONG").is_some_and(|value| value != "0");
    let inputs = if is_long { 50_000 } else { 100 };
    let mut total = Counts::default();
    for seed in 0..inputs {
        let mut random = fastrand::Rng::with_seed(seed);
        let len = random.usize(0..2000);
        let input: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
        println!("seed {seed}"); // the last one is to blame
        total += operations::run(&input);
    }
    println!("{inputs} random inputs: {total:?}");
    assert!(total.refusals > 100 && total.lookups > 10_000);
}
