//! One thread looking up: each address depends on the answer before, as in a walk.
//!
//! Rivals: a binary search without any synchronisation, which is what users can imagine; and a
//! lock around a `BTreeMap` keyed by end address, with an `Arc` cloned per lookup, which is how
//! wasmtime keeps its global map.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pcmap::CodeMap;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};

const BASE: usize = 0x7f00_0000_0000;
const STRIDE: usize = 0x1000;
const LENGTH: usize = 0xc00;

/// An address inside some range, from the answer before.
fn next_pc(n: usize, seed: &mut usize, answer: usize) -> usize {
    // Numerical Recipes' generator; the high bits choose the range.
    *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223).wrapping_add(answer & 1);
    BASE + ((*seed >> 16) % n) * STRIDE + 0x123
}

fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup_latency");
    for n in [10, 1_000, 100_000] {
        let ranges = || (0..n).map(|i| (BASE + i * STRIDE..BASE + i * STRIDE + LENGTH, i));

        let map = CodeMap::new();
        let code = map.register_all(ranges()).expect("no overlap");
        let (mut seed, mut answer) = (1, 0);
        group.bench_function(BenchmarkId::new("pcmap", n), |b| {
            b.iter(|| {
                let pc = next_pc(n, &mut seed, answer);
                answer = map.lookup(pc, |hit| *hit.value()).expect("registered");
                black_box(answer)
            });
        });
        group.bench_function(BenchmarkId::new("pcmap_reader", n), |b| {
            let reader = map.enter();
            b.iter(|| {
                let pc = next_pc(n, &mut seed, answer);
                answer = *reader.lookup(pc).expect("registered").value();
                black_box(answer)
            });
        });
        drop(code);

        let starts: Vec<_> = ranges().map(|(range, _)| range.start).collect();
        group.bench_function(BenchmarkId::new("partition_point", n), |b| {
            b.iter(|| {
                let pc = next_pc(n, &mut seed, answer);
                answer = starts.partition_point(|&start| start <= pc) - 1;
                black_box(answer)
            });
        });

        let locked: RwLock<BTreeMap<_, _>> = RwLock::new(
            ranges().map(|(range, i)| (range.end, (range.start, Arc::new(i)))).collect(),
        );
        group.bench_function(BenchmarkId::new("rwlock_btreemap", n), |b| {
            b.iter(|| {
                let pc = next_pc(n, &mut seed, answer);
                let map = locked.read().expect("not poisoned");
                let (_, (start, value)) = map.range(pc + 1..).next().expect("registered");
                let value = (*start <= pc).then(|| value.clone()).expect("registered");
                answer = *value;
                black_box(answer)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
