#![expect(unsafe_code, reason = "calls machine code")]
//! The same image in several engines, and the same mapping registered several times: counted.

use crate::Bench;
use crate::guests::images::{Layout, call};
use pcmap::registry::{EngineCode, Module, ModuleRegistry};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

#[test]
fn an_image_in_several_engines() {
    let bench = Bench::new(false);
    let layout = Layout::new(1, 3);
    let image = layout.image();
    let codes: Vec<_> = (0..4)
        .map(|_| EngineCode::load(&bench.another_engine(), image.clone()).expect("memory"))
        .collect();
    assert_eq!((bench.map.stats().entries, bench.memory.live()), (4, 4));
    drop(codes);
    bench.assert_empty();
}

#[test]
fn a_mapping_registered_several_times() {
    for private_copies in [false, true] {
        let (bench, elsewhere) = (Bench::new(private_copies), Bench::new(private_copies));
        let layout = Layout::new(1, 3);
        let first = EngineCode::load(&bench.engine, layout.image()).expect("memory");
        let start = first.text_range().start.address();
        let owners = || bench.map.lookup(start, |hit| hit.value().owners());
        // By the same engine, by another, and by one with another map.
        let again = first.share_with(&bench.engine).expect("memory");
        let other = again.share_with(&bench.another_engine()).expect("memory");
        let far = other.share_with(&elsewhere.engine).expect("memory");
        assert_eq!(owners(), Some(3));
        assert_eq!((bench.map.stats().entries, elsewhere.map.stats().entries), (1, 1));
        assert_eq!((bench.memory.live(), elsewhere.memory.live()), (1, 0));
        let ranges = [&first, &again, &other, &far].map(|code| code.text_range());
        assert!(ranges.iter().all(|range| *range == ranges[0]));

        // A store that has it by one registration has it by the other.
        let mut store = ModuleRegistry::new(&bench.engine);
        let modules = [&first, &again].map(|code| Module::new(code, 0).expect("memory"));
        let ids = modules.clone().map(|module| store.register_module(&module).expect("memory"));
        assert_ne!(ids[0], ids[1]);
        let code = store.store_code_base(&first).expect("loaded");
        assert_eq!(store.store_code_base(&again), Some(code));
        let frame = store.lookup_frame_info(code.address() + layout.functions[0].start);
        assert_eq!(frame.map(|frame| frame.module_id()), Some(ids[0]), "the first stays");
        drop((modules, store));

        // In whichever order they go, it stays until the last.
        drop(first);
        assert_eq!(owners(), Some(2));
        drop(other);
        assert_eq!(owners(), Some(1));
        let back = far.share_with(&bench.engine).expect("memory");
        assert_eq!(owners(), Some(2));
        drop((again, back));
        assert_eq!(owners(), None);
        bench.map.synchronize();
        assert_eq!(bench.memory.live(), 1, "the other map has it");
        // And it can come back after the last had left.
        let back = far.share_with(&bench.engine).expect("memory");
        assert_eq!(owners(), Some(1));
        let at = layout.functions[0].start;
        let code = back.text_range().start.checked_add(at).expect("an address");
        // SAFETY: (`call`) 1. a guest, in code that `back` keeps.
        assert_eq!(unsafe { call(code.as_ptr(), 2, 3) }, 5);
        drop((back, far));
        elsewhere.map.synchronize();
        bench.assert_empty();
    }
}

/// Stores that end at once, and were the last owners of their code together: nothing is
/// published for that, whichever of them is the last for which code.
#[test]
fn stores_that_end_at_once() {
    const STORES: usize = 2;
    let rounds = if cfg!(debug_assertions) { 20 } else { 100 };
    for private_copies in [false, true] {
        let image = Layout::new(1, 1).image();
        for _ in 0..rounds {
            let bench = Bench::new(private_copies);
            let mut stores = [(); STORES].map(|()| ModuleRegistry::new(&bench.engine));
            for _ in 0..200 {
                let code = EngineCode::load(&bench.engine, image.clone()).expect("memory");
                let module = Module::new(&code, 0).expect("memory");
                for store in &mut stores {
                    store.register_module(&module).expect("memory");
                }
            }
            let before = bench.map.stats().publications;
            let barrier = Barrier::new(STORES);
            thread::scope(|scope| {
                for store in stores {
                    scope.spawn(|| {
                        barrier.wait();
                        drop(store);
                    });
                }
            });
            let publications = bench.map.stats().publications - before;
            assert_eq!((publications, bench.map.stats().entries), (0, 0));
            bench.assert_empty();
        }
    }
}

/// Threads register and let go of the same mapping all the time. Whoever has it registered finds
/// it; and in the end it is gone.
#[test]
fn joining_and_leaving_at_once() {
    const THREADS: usize = 4;
    let rounds = if cfg!(debug_assertions) { 5_000 } else { 50_000 };
    let bench = Bench::new(false);
    let elsewhere = Bench::new(false);
    let layout = Layout::new(1, 1);
    let kept = EngineCode::load(&elsewhere.engine, layout.image()).expect("memory");
    let start = kept.text_range().start.address();
    let most = AtomicUsize::new(0);
    let (barrier, done) = (Barrier::new(THREADS + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    for _ in 0..rounds {
                        let code = kept.share_with(&bench.engine).expect("memory");
                        let owners = bench.map.lookup(start, |hit| hit.value().owners());
                        let owners = owners.expect("who registered it finds it");
                        assert!((1..=THREADS).contains(&owners), "{owners}");
                        most.fetch_max(owners, SeqCst);
                        drop(code);
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            barrier.wait();
            while !done.load(SeqCst) {
                assert!(bench.map.stats().entries <= 1);
                bench.map.lookup(start, |hit| {
                    assert!(std::ptr::eq(hit.value().tables(), kept.tables()));
                });
            }
        });
        for worker in workers {
            worker.join().expect("no panic");
        }
        done.store(true, SeqCst);
    });
    let publications = bench.map.stats().publications;
    println!(
        "{THREADS} threads, {rounds} times each: {publications} publications, at most {} owners",
        most.load(SeqCst)
    );
    drop(kept);
    bench.assert_empty();
    elsewhere.assert_empty();
}
