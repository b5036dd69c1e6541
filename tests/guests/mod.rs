//! Real machine code for tests: functions compiled by Cranelift for this machine, and images made
//! of them.

pub(crate) mod images;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::UserFuncName;
use cranelift_codegen::isa;
use cranelift_codegen::settings::{self, Configurable};
use std::sync::LazyLock;

const TARGET: &str = if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

/// Functions of different lengths; each takes and returns two numbers' worth of arithmetic, so that
/// a call shows which one ran. `%call_two` is the way in from outside: a trampoline.
const SOURCE: &str = "
function %add(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = iadd v0, v1
    return v2
}
function %multiply(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = imul v0, v1
    return v2
}
function %divide(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = sdiv v0, v1
    return v2
}
function %greater(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = icmp sgt v0, v1
    brif v2, block1, block2
block1:
    return v0
block2:
    return v1
}
function %checked(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    v2 = icmp eq v0, v1
    trapnz v2, user7
    v3 = isub v0, v1
    return v3
}
function %sum_to(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
    jump block1(v0, v1)
block1(v2: i64, v3: i64):
    v4 = iadd v3, v2
    v6 = iconst.i64 -1
    v5 = iadd v2, v6
    brif v5, block1(v5, v4), block2
block2:
    return v4
}
function %call_two(i64, i64) system_v {
    sig0 = (i64, i64) -> i64 system_v
block0(v0: i64, v1: i64):
    v2 = load.i64 v1
    v3 = load.i64 v1+8
    v4 = call_indirect sig0, v0(v2, v3)
    store.i64 v4, v1
    return
}
";

/// A compiled function.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) code: Vec<u8>,
    /// The compiler's list: offset from the function's start, and trap code.
    pub(crate) traps: Vec<(u32, u8)>,
}

/// What `%name(a, b)` returns, according to its source.
pub(crate) fn expected(name: &str, a: i64, b: i64) -> i64 {
    match name {
        "add" => a + b,
        "multiply" => a * b,
        "divide" => a / b,
        "greater" => a.max(b),
        "checked" => a - b,
        "sum_to" => b + (1..=a).sum::<i64>(),
        _ => unreachable!("no such guest"),
    }
}

/// All functions but the trampoline, and the trampoline.
pub(crate) fn guests() -> (&'static [Guest], &'static Guest) {
    static GUESTS: LazyLock<Vec<Guest>> = LazyLock::new(compile);
    let (trampoline, functions) = GUESTS.split_last().expect("there are functions");
    (functions, trampoline)
}

fn compile() -> Vec<Guest> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed").expect("a setting");
    // Every function then begins with an instruction that a test can step over: it saves the frame
    // pointer.
    flags.set("preserve_frame_pointers", "true").expect("a setting");
    let isa = isa::lookup_by_name(TARGET).expect("built in");
    let isa = isa.finish(settings::Flags::new(flags)).expect("supported");
    let functions = cranelift_reader::parse_functions(SOURCE).expect("the source is right");
    let compile = |function: cranelift_codegen::ir::Function| {
        let name = match &function.name {
            UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()).into_owned(),
            UserFuncName::User(name) => name.to_string(),
        };
        let mut context = cranelift_codegen::Context::for_function(function);
        let compiled = context.compile(&*isa, &mut ControlPlane::default()).expect("it compiles");
        assert!(compiled.buffer.relocs().is_empty(), "%{name} can be put anywhere");
        let traps = compiled.buffer.traps().iter();
        Guest {
            name,
            code: compiled.code_buffer().to_vec(),
            traps: traps.map(|trap| (trap.offset, trap.code.as_raw().get())).collect(),
        }
    };
    functions.into_iter().map(compile).collect()
}
