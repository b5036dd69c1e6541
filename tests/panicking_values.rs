//! Values whose destructors all panic: each runs once, the panics reach callers, and nothing is aborted.
//!
//! Registering never panics, whatever garbage there is. What it costs is printed, and what is checked is the
//! number of destructions.

use pcmap::{CodeMap, Registration};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// How often each value was destroyed.
struct Tally {
    drops: Vec<AtomicU8>,
    made: AtomicUsize,
}

impl Tally {
    fn of(most: usize) -> Self {
        let drops = (0..most).map(|_| AtomicU8::new(0)).collect();
        Self { drops, made: AtomicUsize::new(0) }
    }

    fn value(&self) -> Panicking<'_> {
        Panicking { tally: self, number: self.made.fetch_add(1, SeqCst) }
    }

    fn made(&self) -> usize {
        self.made.load(SeqCst)
    }

    fn dropped(&self) -> usize {
        self.drops.iter().filter(|drops| drops.load(SeqCst) != 0).count()
    }

    /// Every value that was made was destroyed, once.
    fn check_all(&self) {
        let (made, unmade) = self.drops.split_at(self.made());
        assert!(made.iter().all(|drops| drops.load(SeqCst) == 1));
        assert!(unmade.iter().all(|drops| drops.load(SeqCst) == 0));
    }
}

/// Panics when it is destroyed, silently.
struct Panicking<'t> {
    tally: &'t Tally,
    number: usize,
}

impl Drop for Panicking<'_> {
    fn drop(&mut self) {
        let before = self.tally.drops[self.number].fetch_add(1, SeqCst);
        // (That it is the first time is checked where a panic is seen.)
        resume_unwind(Box::new((self.number, before)));
    }
}

type Map<'t> = CodeMap<Panicking<'t>>;

/// Makes a call, and says whether it panicked with a panic of a value.
fn panics(call: impl FnOnce()) -> bool {
    let Err(panic) = catch_unwind(AssertUnwindSafe(call)) else { return false };
    match panic.downcast_ref::<(usize, u8)>() {
        Some(&(_, before)) => assert_eq!(before, 0, "destroyed once"),
        None => resume_unwind(panic),
    }
    true
}

fn range(place: usize) -> std::ops::Range<usize> {
    (place + 1) * 64..(place + 1) * 64 + 48
}

/// Registers a value; this does not panic.
fn register<'m, 't>(
    map: &'m Map<'t>,
    tally: &'t Tally,
    place: usize,
) -> Registration<'m, Panicking<'t>> {
    let registered = catch_unwind(AssertUnwindSafe(|| map.register(range(place), tally.value())));
    match registered {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            std::mem::forget(error.value);
            panic!("{}", error.reason)
        }
        Err(_) => panic!("registering runs no destructor"),
    }
}

fn register_many<'m, 't>(
    map: &'m Map<'t>,
    tally: &'t Tally,
    places: std::ops::Range<usize>,
) -> Vec<Registration<'m, Panicking<'t>>> {
    let items: Vec<_> = places.map(|place| (range(place), tally.value())).collect();
    match map.register_all(items) {
        Ok(code) => code,
        Err(_) => panic!("free"),
    }
}

/// Reclaims; what is left is asked for otherwise.
fn reclaim(map: &Map<'_>) {
    let _ = map.reclaim();
}

/// Destroys what is left of a map's garbage, with as many calls as that takes.
fn settle(map: &Map<'_>) -> usize {
    let mut panicked = 0;
    for _ in 0..8 {
        panicked += usize::from(panics(|| reclaim(map)));
    }
    panicked
}

/// Several threads, and all ways to unregister.
#[test]
fn threads_that_unregister_what_panics() {
    const THREADS: usize = 4;
    const EACH: usize = 4_000;
    let tally = Tally::of(THREADS * EACH * 2);
    let map = Map::new();
    let panicked = AtomicUsize::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let (tally, map, panicked) = (&tally, &map, &panicked);
            scope.spawn(move || {
                let count = |call: &mut dyn FnMut()| {
                    panicked.fetch_add(usize::from(panics(call)), SeqCst);
                };
                for number in 0..EACH {
                    let place = writer * 100_000 + number % 100;
                    let mut code = Some(register(map, tally, place));
                    let mut take = || code.take().expect("there");
                    match number % 6 {
                        0 => count(&mut || drop(take())),
                        1 => count(&mut || take().unregister().wait()),
                        2 => count(&mut || {
                            let mut retirement = take().unregister();
                            while !retirement.is_complete() {
                                thread::yield_now();
                            }
                        }),
                        3 => {
                            count(&mut || drop(take()));
                            count(&mut || reclaim(map));
                        }
                        4 => {
                            let others = register_many(map, tally, place + 200..place + 204);
                            let mut others = Some(others);
                            count(&mut || drop(map.unregister_all(others.take().expect("there"))));
                            count(&mut || {
                                let key = take().into_key();
                                map.unregister(key).expect("of this map").wait();
                            });
                        }
                        _ => {
                            count(&mut || drop(take()));
                            count(&mut || map.synchronize());
                        }
                    }
                }
            });
        }
    });
    let last = settle(&map);
    let stats = map.stats();
    assert_eq!((stats.entries, stats.retired), (0, 0), "{stats}");
    tally.check_all();
    println!(
        "{THREADS} threads: {} values destroyed once, {} calls panicked, {last} of them in the end; {:?}",
        tally.dropped(),
        panicked.load(SeqCst) + last,
        begin.elapsed(),
    );
    assert!(panicked.load(SeqCst) != 0);
    // What is in the map is destroyed with it.
    register(&map, &tally, 0).leak();
    assert!(panics(move || drop(map)));
    tally.check_all();
}

/// What `n` values cost that are destroyed by one call.
fn in_one_call(n: usize, call: impl FnOnce(&Map<'_>)) -> Duration {
    let tally = Tally::of(n + 1);
    let map = Map::new();
    let code = register_many(&map, &tally, 0..n);
    // A reader keeps the values until the call.
    let reader = map.enter();
    assert!(!panics(|| drop(map.unregister_all(code))));
    drop(reader);
    assert_eq!(tally.dropped(), 0);
    let begin = Instant::now();
    assert!(panics(|| call(&map)), "it reaches the caller");
    let took = begin.elapsed();
    assert_eq!(tally.dropped(), n, "one that panics keeps none of the others alive");
    // After so many panics calls work.
    let code = register(&map, &tally, n);
    assert!(map.lookup(range(n).start, |_| ()).is_some());
    assert!(panics(|| code.unregister().wait()));
    assert!(map.lookup(range(n).start, |_| ()).is_none());
    settle(&map);
    assert_eq!(map.stats().retired, 0, "{}", map.stats());
    drop(map);
    tally.check_all();
    took
}

#[test]
fn one_call_destroys_all_that_panic() {
    type Call = (&'static str, fn(&Map<'_>));
    let calls: [Call; 3] = [
        ("reclaim", reclaim),
        ("synchronize", |map| map.synchronize()),
        ("reclaim beside a view", |map| {
            let _view = map.snapshot().expect("memory");
            reclaim(map);
        }),
    ];
    for (name, call) in calls {
        let [once, twice] = [10_000, 20_000].map(|n| in_one_call(n, call));
        println!(
            "{name}: 10,000 values in {once:?}, 20,000 in {twice:?}: {:.2} times",
            twice.as_secs_f64() / once.as_secs_f64()
        );
    }
}

/// A map that goes, with many values that panic: registered, removed, and shown by a snapshot.
#[test]
fn a_map_that_goes_with_values_that_panic() {
    for n in [10_000, 20_000] {
        let tally = Tally::of(3 * n);
        let map = Map::new();
        register_many(&map, &tally, 0..n).into_iter().for_each(Registration::leak);
        let removed = register_many(&map, &tally, n..2 * n);
        assert!(!panics(|| {
            std::mem::forget(map.enter());
            drop(map.unregister_all(removed));
        }));
        let view = map.snapshot().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((view.len(), tally.dropped()), (n, 0));
        // What the snapshot shows outlives the map.
        let begin = Instant::now();
        assert!(panics(move || drop(map)));
        let took_map = begin.elapsed();
        assert_eq!(tally.dropped(), n);
        assert_eq!(view.iter().map(|code| code.value().number).max(), Some(n - 1));
        let another = view.clone();
        assert!(!panics(move || drop(another)));
        let begin = Instant::now();
        assert!(panics(move || drop(view)));
        println!(
            "{n} values go with the map in {took_map:?}, {n} with a view in {:?}",
            begin.elapsed()
        );
        tally.check_all();
    }
}

/// Owners of a snapshot let go at the same time: one of them destroys what it alone shows.
#[test]
fn the_last_owner_of_a_snapshot_gets_the_panic() {
    for _ in 0..20 {
        const N: usize = 500;
        let tally = Tally::of(N);
        let map = Map::new();
        let code = register_many(&map, &tally, 0..N);
        let view = map.snapshot().unwrap_or_else(|error| panic!("{error}"));
        panics(|| map.unregister_all(code).wait());
        // The map has let go of the view that it had at hand, too.
        settle(&map);
        assert_eq!(tally.dropped(), 0, "the snapshot shows them");
        let go = AtomicBool::new(false);
        let panicked = thread::scope(|scope| {
            let owners = [view.clone(), view.clone(), view].map(|view| {
                let go = &go;
                scope.spawn(move || {
                    while !go.load(SeqCst) {
                        thread::yield_now();
                    }
                    panics(move || drop(view))
                })
            });
            go.store(true, SeqCst);
            owners.map(|owner| owner.join().expect("its panic was caught"))
        });
        assert_eq!(panicked.iter().filter(|panicked| **panicked).count(), 1);
        tally.check_all();
        assert!(!panics(move || drop(map)));
    }
}

/// While a thread unwinds, what it lets go of must not panic out of a destructor: that would abort.
#[test]
fn letting_go_while_unwinding() {
    const N: usize = 100;
    let tally = Tally::of(6 * N);
    let unwind = |call: &mut dyn FnMut()| {
        struct Guard<'a>(&'a mut dyn FnMut());
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                (self.0)();
            }
        }
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _guard = Guard(call);
            resume_unwind(Box::new("unwinding"));
        }));
        let panic = panic.expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"unwinding"), "the first panic goes on");
    };
    let map = Map::new();
    // There is garbage that is due, for each of the calls to find.
    let mut code = register_many(&map, &tally, 0..3 * N);
    let mut waited = Some(code.split_off(2 * N));
    let mut held = Some(code.split_off(N));
    let view = map.snapshot().unwrap_or_else(|error| panic!("{error}"));
    drop(map.unregister_all(code));
    unwind(&mut || drop(held.take()));
    unwind(&mut || map.unregister_all(waited.take().into_iter().flatten()).wait());
    unwind(&mut || reclaim(&map));
    unwind(&mut || map.synchronize());
    let mut view = Some(view);
    unwind(&mut || drop(view.take()));
    drop((held, waited));
    register_many(&map, &tally, 0..N).into_iter().for_each(Registration::leak);
    let mut map = Some(map);
    unwind(&mut || drop(map.take()));
    tally.check_all();
    println!("{} values destroyed while unwinding", tally.dropped());
}
