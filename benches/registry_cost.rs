//! What a store's registry costs: modules registered where there are many already, many stores of
//! one module, private copies, and questions. Against wasmtime's scheme, written anew
//! (`support/lock_and_maps.rs`); both put the same images into the same memory, and pay for that
//! alike.

#[path = "support/lock_and_maps.rs"]
mod lock_and_maps;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/options.rs"]
mod options;
#[path = "support/report.rs"]
mod report;
#[path = "support/resident.rs"]
mod resident;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/schemes.rs"]
mod schemes;

use memory::Memory;
use options::{Mode, Options};
use pcmap::registry::{
    CodeImage, CodeMemory, Engine, EngineConfig, FuncKey, FuncKind, SignatureKey,
};
use report::{Report, Setting};
use rounds::{median, take_turns};
use schemes::{LockAndMaps, Pcmap, Scheme};
use std::hint::black_box;
use std::time::Instant;

/// Modules registered in a turn, beside those that are there.
const MORE: usize = 256;
/// Stores that share one module.
const STORES: usize = 1_000;
const FUNCTIONS: u32 = 8;
const FUNCTION_LEN: u32 = 128;

/// The image of every module, but for the signature of its trampoline.
fn image(signature: u32) -> CodeImage {
    let mut image = CodeImage::builder(vec![0; (FUNCTION_LEN * (FUNCTIONS + 1)) as usize]);
    for index in 0..FUNCTIONS {
        let start = index * FUNCTION_LEN;
        let key = FuncKey::of_module(FuncKind::DEFINED, 0, index).expect("a small number");
        image.function(key, start..start + FUNCTION_LEN, "function").expect("memory");
        image.trap(start + 9, 1.into()).expect("memory");
    }
    let start = FUNCTIONS * FUNCTION_LEN;
    let key = FuncKey::of_module(FuncKind::WASM_TO_ARRAY, 0, 0).expect("a small number");
    image.function(key, start..start + FUNCTION_LEN, None).expect("memory");
    image.trampoline(SignatureKey::new(signature), key).expect("memory");
    image.finish().expect("all is well with it")
}

/// All that a scheme needs for its turns: modules made, in memory, and known to no store.
struct Prepared<S: Scheme> {
    scheme: S,
    publisher: Engine,
    /// Those that are there already.
    modules: Vec<S::Module>,
    /// Those that come.
    more: Vec<S::Module>,
}

/// The signature that only the last module has.
const LAST: SignatureKey = SignatureKey::new(1);

impl<S: Scheme> Prepared<S> {
    fn new(n: usize, more: usize, private_copies: bool) -> Self {
        let publisher = Engine::new(EngineConfig::new()).expect("memory");
        let scheme = S::new(private_copies);
        let load = |i| {
            let image = image(u32::from(i + 1 == n) * LAST.get());
            scheme.load(CodeMemory::publish(&publisher, image).expect("memory"))
        };
        let modules = (0..n).map(load).collect();
        let more = (n..n + more).map(load).collect();
        Self { scheme, publisher, modules, more }
    }

    /// A store that has all modules.
    fn store(&self) -> S::Store {
        let mut store = self.scheme.store();
        self.modules.iter().for_each(|module| S::register(&mut store, module));
        store
    }

    /// One turn of a case: nanoseconds per thing done.
    fn turn(&self, case: &str) -> f64 {
        match case {
            "register" => {
                let mut store = self.store();
                let nanos = nanos_per(self.more.len(), || {
                    self.more.iter().for_each(|module| S::register(&mut store, module));
                });
                drop(store);
                self.scheme.settle();
                nanos
            }
            "register_again" => {
                let mut store = self.store();
                nanos_per(self.modules.len(), || {
                    self.modules.iter().for_each(|module| S::register(&mut store, module));
                })
            }
            "drop_store" => {
                let store = self.store();
                nanos_per(self.modules.len(), || {
                    drop(store);
                    self.scheme.settle();
                })
            }
            // A code's life in the global map beside n others, with its mapping.
            "load" => {
                let images: Vec<_> = (0..MORE).map(|_| image(0)).collect();
                nanos_per(images.len(), || {
                    for image in images {
                        let memory = CodeMemory::publish(&self.publisher, image).expect("memory");
                        drop(self.scheme.load(memory));
                    }
                    self.scheme.settle();
                })
            }
            "stores" => {
                let module = &self.more[0];
                nanos_per(STORES, || {
                    let stores = (0..STORES).map(|_| {
                        let mut store = self.scheme.store();
                        S::register(&mut store, module);
                        store
                    });
                    drop(stores.collect::<Vec<_>>());
                    self.scheme.settle();
                })
            }
            "frame" => {
                let store = self.store();
                let pcs = self.pcs(&store);
                nanos_per(pcs.len(), || {
                    for &pc in &pcs {
                        assert!(black_box(S::function(&store, pc)).is_some());
                    }
                })
            }
            "trap" => {
                let store = self.store();
                let pcs = self.pcs(&store);
                nanos_per(pcs.len(), || {
                    for &pc in &pcs {
                        assert!(black_box(self.scheme.trap(pc)).is_some());
                    }
                })
            }
            "trampoline" => {
                let store = self.store();
                const TIMES: usize = 64;
                nanos_per(TIMES, || {
                    for _ in 0..TIMES {
                        assert!(S::trampoline(&store, black_box(LAST)).is_some());
                    }
                })
            }
            _ => unreachable!("no such case"),
        }
    }

    /// Addresses in functions of random modules.
    fn pcs(&self, store: &S::Store) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(1);
        let pc = |_| {
            let module = &self.modules[random.usize(..self.modules.len())];
            S::base(store, module) + random.usize(..(FUNCTIONS * FUNCTION_LEN) as usize)
        };
        (0..4096).map(pc).collect()
    }

    /// What the contenders must agree on, in an order that does not depend on addresses.
    fn answers(&self) -> Vec<(Option<FuncKey>, Option<bool>)> {
        let store = self.store();
        let answer = |(i, module): (usize, &S::Module)| {
            let pc = S::base(&store, module) + i * 7 % (FUNCTIONS * FUNCTION_LEN) as usize;
            (S::function(&store, pc), self.scheme.trap(pc))
        };
        assert!(S::trampoline(&store, LAST).is_some());
        assert_eq!(S::trampoline(&store, SignatureKey::new(2)), None);
        self.modules.iter().enumerate().map(answer).collect()
    }
}

fn nanos_per(things: usize, run: impl FnOnce()) -> f64 {
    let began = Instant::now();
    run();
    began.elapsed().as_nanos() as f64 / things as f64
}

/// The cases, and whether stores have private copies in them.
const CASES: [(&str, bool, &str); 10] = [
    ("register", false, "register"),
    ("register_private", true, "register"),
    ("register_again", false, "register_again"),
    ("load", false, "load"),
    ("stores", false, "stores"),
    ("stores_private", true, "stores"),
    ("drop_store_private", true, "drop_store"),
    ("frame", false, "frame"),
    ("trap", false, "trap"),
    ("trampoline", false, "trampoline"),
];

fn main() {
    let options = Options::from_command_line();
    let mode = options.mode;
    let mut report = Report::new("registry_cost", &options);
    let rounds = mode.pick(15, 5, 1);
    for n in mode.pick(&[10, 100, 1_000, 10_000][..], &[100, 10_000], &[10, 100]) {
        for private_copies in [false, true] {
            let cases: Vec<_> = CASES
                .iter()
                .filter(|(name, private, _)| *private == private_copies && options.wants_case(name))
                .collect();
            if cases.is_empty() || !options.wants("modules", *n) {
                continue;
            }
            let pcmap = Prepared::<Pcmap>::new(*n, MORE, private_copies);
            let rival = Prepared::<LockAndMaps>::new(*n, MORE, private_copies);
            if mode == Mode::Test {
                assert_eq!(pcmap.answers(), rival.answers());
            }
            if private_copies {
                let publications = || pcmap.scheme.engine.code_map().stats().publications;
                let store = pcmap.store();
                let before = publications();
                drop(store);
                let circumstances = format!(" n={n}");
                let dropping = publications() - before;
                report.figure("publications_per_drop_of_a_store", &circumstances, dropping);
            }
            for (name, _, case) in cases {
                let times = take_turns(rounds, 2, |contender| match contender {
                    0 => pcmap.turn(case),
                    _ => rival.turn(case),
                });
                let names = [Pcmap::NAME, LockAndMaps::NAME];
                let medians: Vec<_> =
                    names.into_iter().zip(times.into_iter().map(median)).collect();
                let setting = Setting {
                    case: name,
                    layout: "modules",
                    n: *n,
                    threads: 1,
                    writers: 1,
                    more: String::new(),
                };
                report.times(&setting, &medians);
                let memory = Memory::during(pcmap.scheme.garbage_bytes(), || pcmap.turn(case));
                memory.tell(&mut report, &setting, Pcmap::NAME);
                let memory = Memory::during(rival.scheme.garbage_bytes(), || rival.turn(case));
                memory.tell(&mut report, &setting, LockAndMaps::NAME);
            }
        }
    }
    report.save();
}
