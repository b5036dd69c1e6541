//! Functions compiled by Cranelift for this machine, with what the compiler says about them.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::UserFuncName;
use cranelift_codegen::{Context, isa, settings};

/// A compiled function. All offsets are from its start.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) code: Vec<u8>,
    pub(crate) align: u32,
    /// Offsets and codes.
    pub(crate) traps: Vec<(u32, u8)>,
    /// Start, end, and source: ascending, without overlap.
    pub(crate) sources: Vec<(u32, u32, u32)>,
}

/// Functions that tell where they come from.
const LOCATED: &str = "
function %located(i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64):
@0010    v2 = iadd v0, v1
@0014    v3 = udiv v2, v1
         v4 = bxor v3, v0
@0009    v5 = load.i64 heap_oob v4
@0020    trapz v5, user7
@0024    return v5
}

function %located_elsewhere(i64) -> i64 system_v {
block0(v0: i64):
@f000    v1 = load.i64 user3 v0
@f001    v2 = load.i64 user4 v1
@0001    return v2
}";

/// All guests of the examples, and some more.
pub(crate) fn all() -> Vec<Compiled> {
    let sources = [
        include_str!("../../examples/guests/loads.clif"),
        include_str!("../../examples/guests/traps.clif"),
        include_str!("../../examples/guests/divisions.clif"),
        include_str!("../../examples/guests/arithmetic.clif"),
        include_str!("../../examples/guests/calls.clif"),
        LOCATED,
    ];
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let flags = settings::Flags::new(settings::builder());
    let isa = isa::lookup_by_name(&target).map(|isa| isa.finish(flags));
    let isa = isa.expect("this machine").expect("its settings");
    let functions = sources.into_iter().flat_map(|source| {
        cranelift_reader::parse_functions(source).expect("well-formed functions")
    });
    let compiled = functions.map(|function| {
        let name = match &function.name {
            UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()).into_owned(),
            UserFuncName::User(name) => name.to_string(),
        };
        let mut context = Context::for_function(function);
        let code = context.compile(&*isa, &mut ControlPlane::default());
        let code = code.unwrap_or_else(|error| panic!("%{name}: {:?}", error.inner));
        let traps = code.buffer.traps().iter();
        let located = code.buffer.get_srclocs_sorted().iter();
        let located = located.filter(|place| !place.loc.is_default() && place.start < place.end);
        Compiled {
            name,
            code: code.code_buffer().to_vec(),
            align: code.buffer.alignment,
            traps: traps.map(|trap| (trap.offset, trap.code.as_raw().get())).collect(),
            sources: located.map(|place| (place.start, place.end, place.loc.bits())).collect(),
        }
    });
    compiled.collect()
}
