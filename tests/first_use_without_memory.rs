//! The first use of everything, in a process where nothing was used before, without memory: an error or a
//! success, and never an abort.
//!
//! Each trial is a process of its own, which makes one call while memory for so many allocations is left and
//! for no more: on the thread that `main` runs on, and on one that was started just before. How it went is the
//! child's exit status. There is no harness, which would warm things up.
#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "an alarm for children that hang"))]

#[cfg(target_os = "linux")]
#[expect(dead_code, reason = "each test uses a part of it")]
mod heap;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("skipped: not on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use crate::heap::with_memory_for;
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
    use pcmap::trap::{GuestThread, TrapHandler, TrapOptions};
    use pcmap::{CodeMap, Reader, Refused, Registration};
    use std::cell::Cell;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitCode};
    use std::thread;

    type Map = CodeMap<Box<usize>>;
    type Code<'m> = Vec<Registration<'m, Box<usize>>>;

    /// How a trial went.
    const NOT_REFUSED: u8 = 10;
    const RIDDEN_OUT: u8 = 11;
    const REPORTED: u8 = 12;

    /// Where and with how much memory the call is made.
    struct Trial {
        granted: usize,
        on_new_thread: bool,
        refused: Cell<usize>,
    }

    impl Trial {
        /// Makes the call.
        fn run<R: Send>(&self, call: impl FnOnce() -> R + Send) -> R {
            let granted = self.granted;
            let run = || with_memory_for(granted, call);
            let (result, refused) = if self.on_new_thread {
                thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
            } else {
                run()
            };
            self.refused.set(refused);
            result
        }
    }

    fn range(place: usize) -> std::ops::Range<usize> {
        (place + 1) * 64..(place + 1) * 64 + 48
    }

    fn is_there(map: &Map, place: usize) -> bool {
        map.lookup(range(place).start, |hit| assert_eq!(**hit.value(), place)).is_some()
    }

    fn is_for_memory(reason: &Refused) -> bool {
        matches!(reason, Refused::OutOfMemory { .. })
    }

    fn register(map: &Map, place: usize) -> Registration<'_, Box<usize>> {
        map.register(range(place), Box::new(place)).expect("memory")
    }

    fn map_with(ranges: usize) -> Map {
        let map = Map::new();
        (0..ranges).for_each(|place| register(&map, place).leak());
        map
    }

    /// With memory, everything works after the trial.
    fn goes_on(map: &Map) -> bool {
        let code = register(map, 5_000);
        let found = is_there(map, 5_000)
            && map.snapshot().expect("memory").find(range(5_000).start).is_some();
        code.unregister().wait();
        map.synchronize();
        found && !is_there(map, 5_000)
    }

    /// Readers of four eras, and code that is registered: the next era needs memory.
    fn stalled(map: &Map) -> (Vec<Reader<'_, Box<usize>>>, Code<'_>) {
        let (mut readers, mut code) = (Vec::new(), Vec::new());
        for number in 0..4 {
            readers.push(map.enter());
            code.push(register(map, 350 + number));
            if number != 3 {
                let _ = map.reclaim();
                assert_eq!(map.stats().eras, number as u64 + 2, "a new one begins");
            }
        }
        (readers, code)
    }

    fn image() -> CodeImage {
        let mut image = CodeImage::builder(vec![0x0f, 0x0b, 0, 0]);
        let function = image.function(FuncKey::new(0, 0), 0..4_u32, "unreachable").expect("valid");
        function.trap(0_u32, TrapCode::new(9)).expect("valid");
        image.finish().expect("memory")
    }

    /// One call: says whether it succeeded, and whether all is as it should be after that.
    type Case = (&'static str, fn(&Trial) -> (bool, bool));

    const CASES: [Case; 23] = [
        ("register", |trial| {
            let (map, value) = (Map::new(), Box::new(0));
            let registered = trial.run(|| map.register(range(0), value));
            let success = registered.is_ok();
            let is_right = match registered {
                Ok(code) => is_there(&map, 0) && code.range().start() == range(0).start,
                Err(error) => is_for_memory(&error.reason) && *error.value == 0,
            };
            (success, is_right && !is_there(&map, 0) && goes_on(&map))
        }),
        ("register, beside others", |trial| {
            let (map, value) = (map_with(300), Box::new(1_000));
            let registered = trial.run(|| map.register(range(1_000), value));
            let success = registered.is_ok();
            let shown = is_there(&map, 1_000);
            drop(registered);
            (success, shown == success && (0..300).all(|i| is_there(&map, i)) && goes_on(&map))
        }),
        ("register_all", |trial| {
            let map = Map::new();
            let items: Vec<_> = (0..100).map(|i| (range(i), Box::new(i))).collect();
            let registered = trial.run(|| map.register_all(items).map_err(|error| error.reason));
            let success = registered.is_ok();
            let shown = (0..100).filter(|&i| is_there(&map, i)).count();
            let is_right = match registered {
                Ok(code) => shown == 100 && code.len() == 100,
                Err(reason) => shown == 0 && is_for_memory(&reason),
            };
            (success, is_right && goes_on(&map))
        }),
        ("snapshot", |trial| {
            let map = map_with(100);
            let view = trial.run(|| map.snapshot());
            let is_right = view.as_ref().map_or(true, |view| view.len() == 100);
            (view.is_ok(), is_right && goes_on(&map))
        }),
        ("snapshot of nothing", |trial| {
            let map = Map::new();
            let view = trial.run(|| map.snapshot());
            (view.is_ok(), goes_on(&map))
        }),
        ("unregister and wait", |trial| {
            let map = map_with(100);
            let code = register(&map, 1_000);
            trial.run(|| code.unregister().wait());
            (true, !is_there(&map, 1_000) && map.stats().entries == 100 && goes_on(&map))
        }),
        ("unregister and ask", |trial| {
            let map = map_with(100);
            let code = register(&map, 1_000);
            let complete = trial.run(|| {
                let mut retirement = code.unregister();
                (0..100).any(|_| retirement.is_complete())
            });
            (true, complete && !is_there(&map, 1_000) && goes_on(&map))
        }),
        ("drop of a registration", |trial| {
            let map = map_with(100);
            let code = register(&map, 1_000);
            trial.run(|| drop(code));
            (true, !is_there(&map, 1_000) && goes_on(&map))
        }),
        ("unregister_all", |trial| {
            let map = Map::new();
            let code: Vec<_> = (0..300).map(|i| register(&map, i)).collect();
            trial.run(|| map.unregister_all(code).wait());
            (true, map.stats().entries == 0 && goes_on(&map))
        }),
        ("unregister by key", |trial| {
            let map = Map::new();
            let key = register(&map, 0).into_key();
            trial.run(|| map.unregister(key).expect("of this map").wait());
            (true, !is_there(&map, 0) && goes_on(&map))
        }),
        ("reclaim", |trial| {
            // More than a quarter is removed: that is to be left out, if there is memory.
            let map = map_with(300);
            let code: Vec<_> = (300..600).map(|i| register(&map, i)).collect();
            drop(code);
            let remaining = trial.run(|| map.reclaim());
            let is_right = map.stats().entries == 300 && remaining.items <= 600;
            (true, is_right && goes_on(&map))
        }),
        ("reclaim beside readers", |trial| {
            let map = map_with(300);
            let (readers, code) = stalled(&map);
            drop(code);
            for _ in 0..3 {
                let _ = trial.run(|| map.reclaim());
            }
            drop(readers);
            (true, goes_on(&map))
        }),
        ("register beside readers", |trial| {
            // So much garbage waits that a registration begins an era, if there is memory for one.
            let map = map_with(300);
            let (readers, mut code) = stalled(&map);
            let in_current = || map.eras().find(|era| era.is_current).expect("there is one");
            while in_current().retired_bytes < 250_000 {
                code.push(register(&map, 400 + code.len()));
            }
            let values: Vec<_> = (3_000..3_006).map(Box::new).collect();
            let registered = trial.run(|| {
                let each = values.into_iter().map(|value| map.register(range(*value), value));
                each.filter_map(|registered| registered.ok().map(Registration::leak)).count()
            });
            let shown = (3_000..3_006).filter(|&place| is_there(&map, place)).count();
            drop((readers, code));
            (registered == 6, shown == registered && goes_on(&map))
        }),
        ("reclaim of nothing", |trial| {
            let map = Map::new();
            let remaining = trial.run(|| map.reclaim());
            (true, remaining.is_empty() && goes_on(&map))
        }),
        ("synchronize", |trial| {
            let map = map_with(100);
            (300..600).for_each(|i| drop(register(&map, i)));
            trial.run(|| map.synchronize());
            (true, map.stats().entries == 100 && goes_on(&map))
        }),
        ("drop of a map", |trial| {
            let map = map_with(300);
            let view = map.snapshot().expect("memory");
            (300..600).for_each(|i| drop(register(&map, i)));
            trial.run(|| drop(map));
            (true, view.len() == 300)
        }),
        ("drop of a snapshot", |trial| {
            let map = map_with(300);
            let view = map.snapshot().expect("memory");
            let other = view.clone();
            trial.run(|| drop((view, other)));
            (true, goes_on(&map))
        }),
        ("stats and eras", |trial| {
            let map = map_with(100);
            let (stats, eras) = trial.run(|| (map.stats(), map.eras().count()));
            (true, stats.entries == 100 && eras == 1 && goes_on(&map))
        }),
        ("lookup", |trial| {
            let map = map_with(100);
            let found = trial.run(|| is_there(&map, 7) && !is_there(&map, 777));
            (true, found && goes_on(&map))
        }),
        ("Engine::new", |trial| {
            let config = EngineConfig::new();
            let engine = trial.run(|| Engine::new(config));
            (engine.is_ok(), true)
        }),
        ("EngineCode::load", |trial| {
            let engine = Engine::new(EngineConfig::new()).expect("memory");
            let given = image();
            let code = trial.run(|| EngineCode::load(&engine, given).ok());
            (code.is_some(), EngineCode::load(&engine, image()).is_ok())
        }),
        ("TrapHandler::install", |trial| {
            let handler = trial.run(|| TrapHandler::install(TrapOptions::new()));
            (handler.is_ok(), TrapHandler::install(TrapOptions::new()).is_ok())
        }),
        ("GuestThread::prepare", |trial| {
            let handler = TrapHandler::install(TrapOptions::new()).expect("memory");
            let success = trial.run(|| GuestThread::prepare(&handler).is_ok());
            (success, GuestThread::prepare(&handler).is_ok())
        }),
    ];

    /// In a child: one trial.
    fn try_one(case: usize, trial: &Trial) -> u8 {
        // SAFETY: no preconditions; its default action ends a child that hangs.
        unsafe { libc::alarm(60) };
        let (success, is_right) = CASES[case].1(trial);
        assert!(is_right, "something is not as it should be afterwards");
        match (trial.refused.get(), success) {
            (0, true) => NOT_REFUSED,
            (0, false) => panic!("nothing was refused, and still an error"),
            (_, true) => RIDDEN_OUT,
            (_, false) => REPORTED,
        }
    }

    /// Every k until nothing is refused; says whether all went well.
    fn try_all(case: usize, on_new_thread: bool) -> bool {
        let (name, _) = CASES[case];
        let (mut ridden_out, mut reported) = (0, 0);
        let program = std::env::current_exe().expect("known");
        for granted in 0.. {
            let arguments = [case, usize::from(on_new_thread), granted].map(|n| n.to_string());
            let child = Command::new(&program).arg("child").args(arguments).output();
            let child = child.expect("a process");
            match child.status.code().and_then(|code| u8::try_from(code).ok()) {
                Some(NOT_REFUSED) => break,
                Some(RIDDEN_OUT) => ridden_out += 1,
                Some(REPORTED) => reported += 1,
                status => {
                    println!(
                        "{name}, memory for {granted} allocations, new thread: {on_new_thread}: status \
                         {status:?}, signal {:?}: {}",
                        child.status.signal(),
                        String::from_utf8_lossy(&child.stderr),
                    );
                    return false;
                }
            }
        }
        println!(
            "{name}, new thread: {on_new_thread}: {reported} errors, {ridden_out} successes without memory"
        );
        true
    }

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        if let [child, case, on_new_thread, granted] = &arguments[..]
            && child == "child"
        {
            let number = |text: &String| text.parse::<usize>().expect("a number");
            let trial = Trial {
                granted: number(granted),
                on_new_thread: number(on_new_thread) == 1,
                refused: Cell::new(0),
            };
            return ExitCode::from(try_one(number(case), &trial));
        }
        if arguments.iter().any(|argument| argument == "--list") {
            return ExitCode::SUCCESS;
        }
        let mut all_well = true;
        for case in 0..CASES.len() {
            for on_new_thread in [false, true] {
                all_well &= try_all(case, on_new_thread);
            }
        }
        ExitCode::from(u8::from(!all_well))
    }
}
