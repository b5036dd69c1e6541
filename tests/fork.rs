//! Forks, at any moment: the child looks up, registers, unregisters and takes out garbage.
//!
//! A child says what it found by its exit status, for it has only one thread of a test harness
//! that it must not disturb: no panic, no output. An alarm turns a child that hangs into one that
//! fails.
//!
//! What a child may expect: readers and writers that the fork left behind in the middle of
//! something hold back, for good, versions that existed at that moment, and no others. Whatever
//! the child itself registers and unregisters is destroyed.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "fork, and ending children")]

mod children;
mod tracked;

use children::{PANICKED, end_children_that_panic, leave, status_for};
use pcmap::{CodeMap, Registration};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread;
use tracked::{Tally, Tracked};

type Map<'t> = CodeMap<Tracked<'t>>;

/// Seconds after which a child is taken to hang.
const PATIENCE: libc::c_uint = 20;

/// The line of the last check that held, for telling where a child hangs.
static REACHED: AtomicU32 = AtomicU32::new(0);

/// A check in a child: the line it stands on becomes the exit status.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            leave(status_for(line!()));
        }
        REACHED.store(line!(), SeqCst);
    };
}

/// The exit status of a child that hung; it has told where.
const HUNG: u32 = 255;

extern "C" fn on_alarm(_: libc::c_int) {
    let mut text = *b"a child hangs behind line 00000\n";
    let mut line = REACHED.load(SeqCst);
    for digit in text.iter_mut().rev().skip(1).take(5) {
        *digit = b'0' + (line % 10) as u8;
        line /= 10;
    }
    // SAFETY: async-signal-safe; writes from a valid place.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    leave(HUNG);
}

/// One test at a time: a child should find no threads lost but those that its test is about.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    end_children_that_panic();
    let handler: extern "C" fn(libc::c_int) = on_alarm;
    // SAFETY: the handler has the signature it should have, and is signal-safe. (No alarm goes off
    // in this process.)
    unsafe { libc::signal(libc::SIGALRM, handler as libc::sighandler_t) };
    // The harness starts the next test's thread when one has ended. A child that is forked while a
    // thread is being created may hang in the C library when it creates one itself: let that be over.
    thread::sleep(std::time::Duration::from_millis(100));
    alone
}

/// Forks: `None` in the child, which is to [`leave`]; its process id in the parent.
fn fork_here() -> Option<libc::pid_t> {
    // SAFETY: the child of this process with many threads goes on with what glibc keeps usable
    // after a fork (memory allocation), the crate under test, and `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Before anything else, a lock above all: the handler and the panic hook are set already.
        // SAFETY: no preconditions.
        unsafe { libc::alarm(PATIENCE) };
    }
    (pid != 0).then_some(pid)
}

/// Forks; the child does `work` and ends. Gives what the parent has to wait for.
fn fork(work: impl FnOnce()) -> libc::pid_t {
    fork_here().unwrap_or_else(|| {
        work();
        leave(0)
    })
}

/// Waits for a child, and says what went wrong in it, if anything.
fn outcome(pid: libc::pid_t) -> Result<(), String> {
    assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: `status` is a valid place, and `pid` is our child.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid, "waitpid: {}", std::io::Error::last_os_error());
    if libc::WIFSIGNALED(status) {
        return Err(format!("the child was ended by signal {}", libc::WTERMSIG(status)));
    }
    match libc::WEXITSTATUS(status) as u32 {
        0 => Ok(()),
        PANICKED => Err("the child panicked".to_owned()),
        HUNG => Err("the child hung".to_owned()),
        status => Err(format!("the check of line n failed, n % 251 + 1 == {status}")),
    }
}

/// Forks, and fails if the child does.
fn in_child(work: impl FnOnce()) {
    if let Err(why) = outcome(fork(work)) {
        panic!("{why}");
    }
}

fn id_at(map: &Map<'_>, pc: usize) -> Option<usize> {
    map.lookup(pc, |hit| hit.value().id())
}

const PAGE: usize = 0x1000;

/// Registers `count` pages from `first` on, each with its page number for identity.
fn register_pages<'m, 't>(
    map: &'m Map<'t>,
    tally: &'t Tally,
    first: usize,
    count: usize,
) -> Vec<Registration<'m, Tracked<'t>>> {
    let pages =
        (first..first + count).map(|page| (page * PAGE..page * PAGE + 99, tally.track(page)));
    map.register_all(pages).expect("pages of the caller's own")
}

/// In a child: registers and unregisters pages from 5000 on, and sees all of it destroyed.
fn live_on<'t>(map: &Map<'t>, own: &'t Tally) {
    for round in 0..40 {
        let page = 5000 + round;
        let Ok(code) = map.register(page * PAGE..page * PAGE + 9, own.track(page)) else {
            leave(status_for(line!()))
        };
        ensure!(id_at(map, page * PAGE + 8) == Some(page));
        ensure!(id_at(map, page * PAGE + 9).is_none());
        let mut retirement = code.unregister();
        ensure!(id_at(map, page * PAGE).is_none());
        match round % 3 {
            0 => retirement.wait(),
            1 => drop(retirement.is_complete()),
            _ => drop(map.unregister_all(register_pages(map, own, 6000, 5))),
        }
    }
    ensure!(own.alive() != 0 || own.dropped() != 0);
    map.synchronize();
    ensure!(own.alive() == 0);
}

#[test]
fn a_quiet_child_loses_nothing() {
    let _alone = alone();
    let (tally, own) = (Tally::new(), Tally::new());
    // Never written to, written to, with garbage, with a snapshot.
    for stage in 0..4 {
        let map = Map::new();
        let mut code = Vec::new();
        let mut view = None;
        if stage >= 1 {
            code = register_pages(&map, &tally, 10, 20);
        }
        if stage >= 2 {
            code.truncate(10);
        }
        if stage >= 3 {
            view = Some(map.snapshot().expect("memory"));
        }
        let before = tally.dropped();
        in_child(|| {
            for registration in &code {
                let at = registration.range().start();
                ensure!(id_at(&map, at) == Some(at / PAGE));
            }
            live_on(&map, &own);
            let stats = map.stats();
            ensure!((stats.retired, stats.retired_bytes) == (0, 0));
            ensure!(stats.oldest_wait.is_none());
            ensure!(stats.entries == code.len());
            if let Some(view) = &view {
                ensure!(view.iter().all(|c| c.value().id() == c.range().start() / PAGE));
            }
            let (alive, held) = (tally.alive(), code.len());
            map.unregister_all(std::mem::take(&mut code)).wait();
            drop(view.take());
            ensure!(tally.alive() + held <= alive);
            ensure!(map.stats().retired == 0);
        });
        // The parent is as it was.
        assert_eq!((own.alive(), own.dropped()), (0, 0));
        assert_eq!(map.stats().entries, code.len());
        assert!(tally.dropped() == before || stage >= 2);
        drop(code);
        map.synchronize();
        drop(view);
        assert_eq!(tally.alive(), 0);
        drop(map);
    }
}

#[test]
fn a_fork_inside_a_read_section() {
    let _alone = alone();
    let (tally, own) = (Tally::new(), Tally::new());
    let map = Map::new();
    let mut code = register_pages(&map, &tally, 10, 4);
    let reader = map.enter();
    let hit = reader.lookup(10 * PAGE).expect("registered");
    let Some(pid) = fork_here() else {
        // The reader crossed the fork with its thread: what it found is there until it leaves.
        drop(code.swap_remove(0));
        drop(code);
        for _ in 0..20 {
            let _ = map.reclaim();
        }
        live_on(&map, &own);
        map.synchronize();
        ensure!(tally.dropped() == 0);
        ensure!(hit.value().id() == 10);
        ensure!(reader.lookup(13 * PAGE).map(|hit| hit.value().id()) == Some(13));
        ensure!(id_at(&map, 10 * PAGE).is_none());
        ensure!(map.stats().retired != 0);
        drop(reader);
        for _ in 0..20 {
            let _ = map.reclaim();
        }
        ensure!(tally.alive() == 0);
        ensure!(map.stats().retired == 0);
        ensure!(map.stats().oldest_wait.is_none());
        ensure!(map.reclaim().items == 0);
        ensure!(map.stats().retired_bytes == 0);
        leave(0)
    };
    if let Err(why) = outcome(pid) {
        panic!("{why}");
    }
    assert_eq!((hit.value().id(), tally.dropped()), (10, 0));
}

#[test]
fn a_reader_that_enters_before_the_childs_first_write() {
    let _alone = alone();
    let (tally, own) = (Tally::new(), Tally::new());
    let map = Map::new();
    let mut code = register_pages(&map, &tally, 10, 4);
    in_child(|| {
        // Counted where the parent's readers were; the writes below start a count of their own.
        let early = map.enter();
        let hit = early.lookup(11 * PAGE);
        drop(code.remove(1));
        let late = map.enter();
        for round in 0..40 {
            drop(register_pages(&map, &own, 5000 + round, 2));
        }
        drop(std::mem::take(&mut code));
        for _ in 0..20 {
            let _ = map.reclaim();
        }
        ensure!(tally.dropped() == 0);
        ensure!(hit.map(|hit| hit.value().id()) == Some(11));
        ensure!(late.lookup(11 * PAGE).is_none());
        ensure!(late.lookup(12 * PAGE).map(|hit| hit.value().id()) == Some(12));
        drop(early);
        for _ in 0..20 {
            let _ = map.reclaim();
        }
        ensure!(late.lookup(12 * PAGE).map(|hit| hit.value().id()) == Some(12));
        drop(late);
        map.synchronize();
        ensure!((tally.alive(), own.alive()) == (0, 0));
        ensure!(map.stats().retired == 0);
    });
}

#[test]
fn a_reader_lost_in_the_fork() {
    let _alone = alone();
    let (tally, own) = (Tally::new(), Tally::new());
    let map = Box::into_raw(Box::new(Map::new()));
    // SAFETY: from the box above; the parent frees it below, when nothing borrows it any more, and
    // the child frees its own copy.
    let shared: &Map<'_> = unsafe { &*map };
    let code = register_pages(shared, &tally, 10, 4);
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let lost = scope.spawn(move || {
            let reader = shared.enter();
            let hit = reader.lookup(10 * PAGE).expect("registered");
            inside.send(()).expect("the other end waits");
            may_go.recv().expect("the other end says when");
            hit.value().id()
        });
        is_inside.recv().expect("the reader enters");
        in_child(|| {
            live_on(shared, &own);
            let inherited = shared.stats().retired;
            ensure!(inherited != 0);
            // What the lost reader could be looking at is kept.
            drop(code);
            ensure!((10..14).all(|page| id_at(shared, page * PAGE).is_none()));
            for _ in 0..10 {
                shared.synchronize();
            }
            live_on(shared, &own);
            ensure!(tally.dropped() == 0);
            let kept = shared.stats();
            ensure!(kept.retired == inherited);
            ensure!(kept.retired_bytes != 0);
            ensure!(kept.oldest_wait.is_some());
            let page = register_pages(shared, &own, 7000, 1);
            std::mem::forget(page);
            ensure!(shared.snapshot().expect("memory").len() == 1);
            // SAFETY: from `Box::into_raw` above, in the parent; this process's copy is freed here
            // only, and nothing of this process borrows it: the reader's thread is not in it.
            drop(unsafe { Box::from_raw(map) });
            ensure!(tally.alive() == 0);
            // The forgotten registration is the last that counts its value.
            ensure!(own.alive() == 1);
        });
        go.send(()).expect("the reader waits");
        assert_eq!(lost.join().expect("no panic"), 10, "the parent's reader never noticed");
    });
    // SAFETY: from `Box::into_raw` above; the borrows of this process have ended.
    drop(unsafe { Box::from_raw(map) });
    assert_eq!(tally.alive(), 0);
}

#[test]
fn a_reader_lost_before_the_first_write() {
    let _alone = alone();
    let own = Tally::new();
    let map = Map::new();
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let map = &map;
        scope.spawn(move || {
            let reader = map.enter();
            inside.send(()).expect("the other end waits");
            may_go.recv().expect("the other end says when");
            assert!(reader.lookup(PAGE).is_none());
        });
        is_inside.recv().expect("the reader enters");
        in_child(|| {
            live_on(map, &own);
            // The empty version that every map begins with is all that it can hold.
            ensure!(map.stats().retired <= 1);
        });
        go.send(()).expect("the reader waits");
    });
}

/// Forks `depth` times in a row, each child the parent of the next, and works at every level.
fn descend<'t>(
    map: &Map<'t>,
    [tally, own]: [&'t Tally; 2],
    code: &mut Vec<Registration<'_, Tracked<'t>>>,
    depth: usize,
) {
    if depth == 0 {
        return;
    }
    // The readers of all levels above are inside too: their frames are on this thread's stack.
    let reader = map.enter();
    let last = 10 + code.len() - 1;
    let hit = reader.lookup(last * PAGE);
    let Some(pid) = fork_here() else {
        let dropped = tally.dropped();
        drop(code.pop());
        ensure!(id_at(map, last * PAGE).is_none());
        ensure!(id_at(map, 10 * PAGE) == Some(10));
        for _ in 0..20 {
            let _ = map.reclaim();
        }
        live_on(map, own);
        ensure!(hit.map(|hit| hit.value().id()) == Some(last));
        descend(map, [tally, own], code, depth - 1);
        ensure!(hit.map(|hit| hit.value().id()) == Some(last));
        ensure!(tally.dropped() == dropped);
        drop(reader);
        live_on(map, own);
        leave(0)
    };
    ensure_child(pid);
}

/// Waits for a child in a process that may be a child itself.
fn ensure_child(pid: libc::pid_t) {
    if let Err(why) = outcome(pid) {
        eprintln!("{why}");
        leave(99);
    }
}

#[test]
fn forks_of_forks() {
    let _alone = alone();
    const DEPTH: usize = 5;
    let (tally, own) = (Tally::new(), Tally::new());
    in_child(|| {
        let map = Map::new();
        let mut code = register_pages(&map, &tally, 10, DEPTH + 1);
        descend(&map, [&tally, &own], &mut code, DEPTH);
    });
    // And without readers: everything is destroyed at every level.
    fn work<'t>(map: &Map<'t>, own: &'t Tally, depth: usize) {
        live_on(map, own);
        ensure!(map.stats().retired == 0);
        ensure!(map.stats().retired_bytes == 0);
        ensure!((10..20).all(|page| id_at(map, page * PAGE).is_some()));
        if depth > 0 {
            ensure_child(fork(|| work(map, own, depth - 1)));
            live_on(map, own);
            ensure!(map.stats().retired == 0);
        }
    }
    let own = Tally::new();
    let map = Map::new();
    let code = register_pages(&map, &tally, 10, 10);
    in_child(|| work(&map, &own, DEPTH));
    drop(code);
    map.synchronize();
    assert_eq!(map.stats().retired, 0);
    println!("{DEPTH} generations");
}

/// A child with several threads of its own, the first thing they do being a write.
#[test]
fn a_child_with_threads() {
    let _alone = alone();
    let (tally, own) = (Tally::new(), Tally::new());
    let map = Map::new();
    let code = register_pages(&map, &tally, 10, 4);
    for _ in 0..10 {
        let reader = map.enter();
        in_child(|| {
            ensure!(id_at(&map, 10 * PAGE) == Some(10));
            thread::scope(|scope| {
                for thread in 0..4_usize {
                    let (map, own) = (&map, &own);
                    scope.spawn(move || {
                        for i in 0..100 {
                            let page = 5000 + thread * 100 + i;
                            ensure!(id_at(map, 10 * PAGE) == Some(10));
                            let code = register_pages(map, own, page, 1);
                            ensure!(id_at(map, page * PAGE) == Some(page));
                            drop(code);
                            ensure!(id_at(map, page * PAGE).is_none());
                        }
                    });
                }
            });
            ensure!(id_at(&map, 10 * PAGE) == Some(10));
            map.synchronize();
            ensure!(own.alive() == 0);
            drop(reader);
            ensure!(map.reclaim().is_empty());
        });
    }
    drop(code);
}

/// Forks while other threads are in the middle of every kind of call.
#[test]
fn forks_in_a_storm() {
    const ROUNDS: usize = 200;
    const PRESENT: usize = 24;
    const CHURNED: usize = 1000;
    let _alone = alone();
    static TALLY: Tally = Tally::new();
    static OWN: Tally = Tally::new();
    static MAP: Map<'static> = Map::new();
    let present = register_pages(&MAP, &TALLY, 10, PRESENT);
    let stop = AtomicBool::new(false);
    let mut children = [0_usize; 2];
    thread::scope(|scope| {
        let stop = &stop;
        for writer in 0..2 {
            scope.spawn(move || {
                let first = CHURNED + writer * 100;
                let mut page = first;
                while !stop.load(SeqCst) {
                    let code = register_pages(&MAP, &TALLY, page, 1 + page % 3);
                    if page.is_multiple_of(2) {
                        drop(code);
                    } else {
                        MAP.unregister_all(code);
                    }
                    page = first + (page - first + 3) % 90;
                    // Little garbage for children to inherit: they look at what they cannot
                    // destroy again and again.
                    if page.is_multiple_of(8) {
                        MAP.synchronize();
                    }
                }
            });
        }
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let reader = MAP.enter();
                for page in 10..10 + PRESENT {
                    let found = reader.lookup(page * PAGE).map(|hit| hit.value().id());
                    assert_eq!(found, Some(page));
                }
            }
        });
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let view = MAP.snapshot().expect("memory");
                let _ = MAP.reclaim();
                assert!(view.len() >= PRESENT);
                let _ = MAP.stats();
            }
        });
        for round in 0..ROUNDS {
            // Different moments of the others' work.
            for _ in 0..round * 37 % 500 {
                std::hint::spin_loop();
            }
            // The child tells by a pipe whether something of the parent's was kept.
            let mut ends = [0; 2];
            // SAFETY: `ends` has room for two descriptors.
            assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
            let pid = fork(|| {
                for page in 10..10 + PRESENT {
                    ensure!(id_at(&MAP, page * PAGE) == Some(page));
                    ensure!(id_at(&MAP, page * PAGE + 99).is_none());
                }
                for page in CHURNED..CHURNED + 200 {
                    ensure!(id_at(&MAP, page * PAGE).is_none_or(|id| id == page));
                }
                let before = MAP.stats();
                live_on(&MAP, &OWN);
                let after = MAP.stats();
                // Besides what was retired: the version that was published, and one that each
                // writer may have linked behind it.
                ensure!(after.retired <= before.retired + 3);
                let fresh = Map::new();
                live_on(&fresh, &OWN);
                ensure!(fresh.stats().retired == 0);
                let kept = u8::from(after.retired != 0);
                // SAFETY: writes one byte from a valid place to an open descriptor.
                unsafe { libc::write(ends[1], (&raw const kept).cast(), 1) };
            });
            // SAFETY: an open descriptor, closed once.
            unsafe { libc::close(ends[1]) };
            let result = outcome(pid);
            let mut lost = 0_u8;
            // SAFETY: reads one byte from an open descriptor to a valid place.
            let read = unsafe { libc::read(ends[0], (&raw mut lost).cast(), 1) };
            // SAFETY: an open descriptor, closed once.
            unsafe { libc::close(ends[0]) };
            if let Err(why) = result {
                stop.store(true, SeqCst);
                panic!("round {round}: {why}");
            }
            assert_eq!(read, 1);
            children[usize::from(lost)] += 1;
        }
        stop.store(true, SeqCst);
    });
    let [clean, kept] = children;
    println!("{clean} children destroyed everything, {kept} keep what lost threads may hold");
    println!("parent: {}", MAP.stats());
    drop(present);
    MAP.synchronize();
    assert_eq!(MAP.stats().retired, 0, "the parent's garbage is all destroyed");
    assert_eq!((TALLY.alive(), OWN.dropped()), (0, 0));
}

/// Forks while another thread dismantles versions of many nodes, and readers are inside: the child
/// carries on where that thread was, destroys what it registers itself, and drops the map whole. A
/// thread that the child starts gets the stack of a lost one, and must not be taken for it.
#[test]
fn a_child_carries_on_with_what_a_lost_thread_dismantled() {
    const ROUNDS: usize = 200;
    const MANY: usize = 3_000;
    let _alone = alone();
    let starts = |from: usize| (0..MANY).map(move |i| from + i * 16);
    let pages = |from: usize| starts(from).map(|start| (start..start + 8, start));
    let map = Box::leak(Box::new(CodeMap::<usize>::new()));
    let raw = std::ptr::from_mut(map);
    let map = &*map;
    let stop = AtomicBool::new(false);
    let mut failed = None;
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let _ = map.unregister_all(map.register_all(pages(PAGE)).expect("free"));
                let _ = map.reclaim();
            }
        });
        scope.spawn(move || {
            while !stop.load(SeqCst) {
                let reader = map.enter();
                for i in 0..200 {
                    let pc = PAGE + i * 37 % MANY * 16;
                    assert!(reader.lookup(pc).is_none_or(|hit| *hit.value() == pc));
                }
            }
        });
        for round in 0..ROUNDS {
            thread::sleep(std::time::Duration::from_micros((round * 131 % 3000) as u64));
            let child = fork(|| {
                let _ = map.reclaim();
                let own = Tally::new();
                let mine = CodeMap::new();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for from in [0x100_0000, 0x200_0000] {
                            let code = map.register_all(pages(from)).expect("free");
                            let right = |i| {
                                let pc = from + i * 16;
                                map.lookup(pc, |hit| *hit.value()) == Some(pc)
                            };
                            ensure!((0..MANY).all(right));
                            map.unregister_all(code).wait();
                        }
                        for i in 0..20 {
                            drop(mine.register(PAGE..PAGE + 1, own.track(i)).expect("free"));
                        }
                        mine.synchronize();
                        ensure!(own.alive() == 0);
                    });
                });
                let waits = map.stats().retired;
                let _ = map.register(0x300_0000..0x300_0001, 1).expect("free").unregister();
                map.synchronize();
                ensure!(map.stats().retired <= waits); // nothing of its own
                // SAFETY: leaked above; this process has one thread, and it uses it no more.
                drop(unsafe { Box::from_raw(raw) });
            });
            failed = outcome(child).err();
            if failed.is_some() {
                break;
            }
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(failed, None);
    println!("{ROUNDS} children, each beside a lost reader and a lost writer of {MANY} ranges");
    // SAFETY: leaked above; all threads that used it are gone.
    drop(unsafe { Box::from_raw(raw) });
}
