#![expect(unsafe_code, reason = "reads mapped code, and calls it")]
//! Code comes and goes while other threads hold what they found: memory that a hit is in stays
//! mapped, and the tables that answer are those of that code.

use crate::Bench;
use crate::guests::expected;
use crate::guests::images::{Layout, call};
use pcmap::registry::{EngineCode, Module, ModuleRegistry};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

const WRITERS: usize = 2;
const READERS: usize = 2;
/// Places where writers tell readers of code that has just been there.
const PLACES: usize = 64;

/// Loads code, runs it in two stores, and drops everything, in one order or another.
fn load_and_run(bench: &Bench, layouts: &[Layout], round: usize, places: &[AtomicUsize]) {
    let layout = &layouts[round % layouts.len()];
    let code = EngineCode::load(&bench.engine, layout.image()).expect("memory");
    let module = Module::new(&code, 0).expect("memory");
    let mut stores = [(); 2].map(|()| ModuleRegistry::new(&bench.engine));
    for (i, store) in stores.iter_mut().enumerate() {
        let start = store.store_code_base_or_register(&module).expect("memory").expect("text");
        places[(3 * round + i) % PLACES].store(start.address(), SeqCst);
        let function = &layout.functions[round % layout.functions.len()];
        let at = start.checked_add(function.start).expect("an address");
        // SAFETY: (`call`) 1. a guest, in code that the store keeps.
        assert_eq!(unsafe { call(at.as_ptr(), 9, 4) }, expected(&function.guest, 9, 4));
    }
    places[(3 * round + 2) % PLACES].store(code.text_range().start.address(), SeqCst);
    if round.is_multiple_of(2) {
        drop((code, module));
    }
    let [one, other] = stores;
    drop(one);
    drop(other);
}

/// Looks up places all over the code that writers told of, and looks at what is mapped there while
/// it holds the hits. Gives how many it found, and how many were gone.
fn look(bench: &Bench, layouts: &[Layout], places: &[AtomicUsize], done: &AtomicBool) -> [u64; 2] {
    let mut found = [0; 2];
    let mut step = 0_usize;
    while !done.load(SeqCst) {
        let reader = bench.map.enter();
        for _ in 0..16 {
            step = step.wrapping_add(1);
            let start = places[step % PLACES].load(SeqCst);
            let Some(hit) = reader.lookup(start + step * 13 % 200) else {
                found[1] += 1;
                continue;
            };
            found[0] += 1;
            // Which layout it is, the length of its text tells.
            let len = hit.range().len();
            let layout = layouts.iter().find(|layout| layout.text.len() == len);
            let layout = layout.expect("one of them");
            let offset = hit.offset();
            let key = hit.value().function_at(offset).map(|function| function.key);
            let truth = layout.function_at(offset).map(|function| function.key);
            assert_eq!(key.filter(|_| truth.is_some()), truth);
            let place = std::ptr::with_exposed_provenance::<u8>(hit.pc().address());
            // SAFETY: the hit keeps the mapping; nobody patches code in this test.
            assert_eq!(unsafe { place.read() }, layout.text[offset]);
        }
    }
    found
}

fn churn(private_copies: bool) {
    let rounds = if cfg!(debug_assertions) { 3_000 } else { 30_000 };
    let bench = Bench::new(private_copies);
    let layouts: Vec<_> = (2..7).map(|functions| Layout::new(1, functions)).collect();
    let places = [const { AtomicUsize::new(0) }; PLACES];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..READERS).map(|_| scope.spawn(|| look(&bench, &layouts, &places, &done))).collect();
        let write = |first: usize| {
            (first..rounds).step_by(WRITERS).for_each(|round| {
                load_and_run(&bench, &layouts, round, &places);
            });
        };
        let writers: Vec<_> = (0..WRITERS).map(|first| scope.spawn(move || write(first))).collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, SeqCst);
        assert!(outcomes.into_iter().all(|outcome| outcome.is_ok()), "a writer panicked");
        for reader in readers {
            let [found, gone] = reader.join().expect("no panic");
            println!("private copies {private_copies}: {found} found, {gone} gone");
            assert!(found > 100 && gone > 100, "nothing was tested");
        }
    });
    bench.assert_empty();
}

#[test]
fn what_a_reader_holds_stays_mapped() {
    churn(false);
    churn(true);
}
