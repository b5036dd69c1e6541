//! Guests, compiled ahead of time in several ways.

use std::fmt::Write;
use wasmtime::{Config, Engine, OptLevel};

/// A compiled guest.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The guest's name, and how it was compiled.
    pub name: String,
    /// Whether it is a component (otherwise it is a module).
    pub is_component: bool,
    /// What was compiled: a WebAssembly binary.
    pub wasm: Vec<u8>,
    /// What wasmtime made of it: an ELF file.
    pub elf: Vec<u8>,
}

const MODULES: [(&str, &str); 5] = [
    ("numbers", include_str!("../guests/numbers.wat")),
    ("memory", include_str!("../guests/memory.wat")),
    ("calls", include_str!("../guests/calls.wat")),
    ("strange names", include_str!("../guests/strange_names.wat")),
    ("empty", include_str!("../guests/empty.wat")),
];
const COMPONENT: &str = include_str!("../guests/component.wat");

/// How a guest may be compiled, by name.
type Way = (&'static str, fn(&mut Config));

const WAYS: [Way; 4] = [
    ("optimised", |_| {}),
    ("not optimised", |config| {
        config.cranelift_opt_level(OptLevel::None);
    }),
    ("checked, interruptible", |config| {
        config.signals_based_traps(false).consume_fuel(true).epoch_interruption(true);
    }),
    ("with native debug information", |config| {
        config.debug_info(true);
    }),
];

/// An engine that only compiles.
///
/// # Panics
///
/// If wasmtime does not take the configuration.
pub fn engine(configure: impl FnOnce(&mut Config)) -> Engine {
    let mut config = Config::new();
    configure(&mut config);
    Engine::new(&config).expect("a configuration that wasmtime takes")
}

/// Every guest, compiled in every way, and a large one.
///
/// # Panics
///
/// If a guest does not compile.
pub fn all() -> Vec<Artifact> {
    let mut artifacts = Vec::new();
    for (way, configure) in WAYS {
        let engine = engine(configure);
        for (name, text) in MODULES {
            artifacts.push(Artifact::module(&engine, &format!("{name}, {way}"), text));
        }
        artifacts.push(Artifact::component(&engine, &format!("component, {way}"), COMPONENT));
    }
    artifacts.push(Artifact::module(&engine(|_| {}), "large, optimised", &large(3000)));
    artifacts
}

impl Artifact {
    /// A module, from its text.
    ///
    /// # Panics
    ///
    /// If it does not compile.
    pub fn module(engine: &Engine, name: &str, text: &str) -> Self {
        let wasm = binary(text);
        let elf = engine.precompile_module(&wasm).expect("a module that compiles");
        Self { name: name.to_owned(), is_component: false, wasm, elf }
    }

    /// A component, from its text.
    ///
    /// # Panics
    ///
    /// If it does not compile.
    pub fn component(engine: &Engine, name: &str, text: &str) -> Self {
        let wasm = binary(text);
        let elf = engine.precompile_component(&wasm).expect("a component that compiles");
        Self { name: name.to_owned(), is_component: true, wasm, elf }
    }
}

fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("well-formed text")
}

/// A module of so many functions that its text fills several pages of 64 KiB and its tables many
/// blocks: each has traps of its own, and every seventh has none.
fn large(functions: u32) -> String {
    let mut text = String::from("(module (memory 1 8)\n");
    for number in 0..functions {
        let (offset, divisor) = (number * 48, number % 5 + 1);
        let body = if number % 7 == 0 {
            "(i64.extend_i32_u (local.get 0))".to_owned()
        } else {
            format!(
                "(i64.div_s (i64.load offset={offset} (local.get 0))
                   (i64.rem_u (local.get 1) (i64.load8_u offset={divisor} (local.get 0))))"
            )
        };
        writeln!(text, "(func $f{number} (param i32 i64) (result i64) {body})").expect("a string");
    }
    text.push(')');
    text
}
