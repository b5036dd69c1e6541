//! Registering and unregistering one range, beside n others; and batches.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pcmap::CodeMap;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};

const BASE: usize = 0x7f00_0000_0000;
const STRIDE: usize = 0x1000;

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("publication_cost/pair");
    for n in [10, 1_000, 10_000] {
        let ranges = || (0..n).map(|i| (BASE + i * STRIDE..BASE + i * STRIDE + 0x800, i));
        let extra = BASE + n / 2 * STRIDE + 0x800;

        let map = CodeMap::new();
        let code = map.register_all(ranges()).expect("no overlap");
        group.bench_function(BenchmarkId::new("pcmap", n), |b| {
            b.iter(|| drop(map.register(extra..extra + 0x100, n).expect("no overlap")));
        });
        drop(code);

        let locked: RwLock<BTreeMap<_, _>> = RwLock::new(
            ranges().map(|(range, i)| (range.end, (range.start, Arc::new(i)))).collect(),
        );
        group.bench_function(BenchmarkId::new("rwlock_btreemap", n), |b| {
            b.iter(|| {
                let end = extra + 0x100;
                locked.write().expect("not poisoned").insert(end, (extra, Arc::new(n)));
                black_box(locked.write().expect("not poisoned").remove(&end))
            });
        });
    }
    group.finish();
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("publication_cost/batch");
    for k in [10, 1_000, 10_000] {
        group.throughput(Throughput::Elements(k as u64));
        let map = CodeMap::new();
        group.bench_function(BenchmarkId::new("pcmap", k), |b| {
            b.iter_batched(
                || (0..k).map(|i| (BASE + i * STRIDE..BASE + (i + 1) * STRIDE, i)),
                |ranges| map.unregister_all(map.register_all(ranges).expect("no overlap")),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, pairs, batches);
criterion_main!(benches);
