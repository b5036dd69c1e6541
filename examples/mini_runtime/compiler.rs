//! A compiler's back end: functions in Cranelift's text format to a code image.
//!
//! Several modules may go into one image, as those of a component do. Each function begins with an
//! instruction that does nothing: the place for a breakpoint, which can be gone on from.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, UserFuncName};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_reader::parse_functions;
use pcmap::registry::{CodeImage, FuncKey, FuncKind, SignatureKey, SourceOffset, TrapCode};
use std::error::Error;

#[cfg(target_arch = "x86_64")]
const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The instruction that does nothing.
#[cfg(target_arch = "x86_64")]
const NOP: &[u8] = &[0x90];
#[cfg(target_arch = "aarch64")]
const NOP: &[u8] = &0xd503_201f_u32.to_le_bytes();

const ALIGNMENT: usize = 16;

/// The signature of every function: three numbers to one.
pub(crate) const SIGNATURE: SignatureKey = SignatureKey::new(0);

/// The way in from the host, which has its numbers in memory: a trampoline for [`SIGNATURE`].
const TRAMPOLINE: &str = "
function %enter(i64, i64) system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64):
    v2 = load.i64 v1
    v3 = load.i64 v1+8
    v4 = load.i64 v1+16
    v5 = call_indirect sig0, v0(v2, v3, v4)
    store.i64 v5, v1
    return
}
";

/// Compiles modules into one image: each source is a module, by its position.
pub(crate) fn compile(modules: &[&str]) -> Result<CodeImage, Box<dyn Error>> {
    let isa = host()?;
    let mut text = Vec::new();
    let mut placed = Vec::new();
    for (module, source) in modules.iter().enumerate() {
        for (index, function) in parse_functions(source)?.into_iter().enumerate() {
            let key = FuncKey::of_module(FuncKind::DEFINED, module as u32, index as u32);
            let key = key.ok_or("too many modules")?;
            placed.push(Placed::compile(&isa, function, key, &mut text)?);
        }
    }
    let enter = parse_functions(TRAMPOLINE)?.pop().ok_or("no trampoline")?;
    let key = FuncKey::of_module(FuncKind::WASM_TO_ARRAY, 0, 0).ok_or("no such kind")?;
    placed.push(Placed::compile(&isa, enter, key, &mut text)?);

    let mut image = CodeImage::builder(text);
    image.text_align(ALIGNMENT as u32)?;
    for Placed { key, name, start, end, traps, sources } in &placed {
        image.function(*key, *start..*end, &**name)?;
        for &(offset, code) in traps {
            image.trap(offset, code)?;
        }
        for &(offset, source) in sources {
            image.address(offset, source)?;
        }
        if key.kind() == FuncKind::DEFINED {
            image.breakpoint_site(*start..*start + NOP.len(), None)?;
        } else {
            image.trampoline(SIGNATURE, *key)?;
        }
    }
    Ok(image.finish()?)
}

fn host() -> Result<OwnedTargetIsa, Box<dyn Error>> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed")?;
    // So that a stack can be walked without unwind tables.
    flags.set("preserve_frame_pointers", "true")?;
    // So that a long frame does not jump over the page that ends a stack.
    flags.set("enable_probestack", "true")?;
    flags.set("probestack_strategy", "inline")?;
    Ok(isa::lookup_by_name(TARGET)?.finish(settings::Flags::new(flags))?)
}

/// A compiled function in its place: all offsets are from the start of the text.
struct Placed {
    key: FuncKey,
    name: String,
    start: usize,
    end: usize,
    traps: Vec<(usize, TrapCode)>,
    sources: Vec<(usize, Option<SourceOffset>)>,
}

impl Placed {
    /// Compiles a function, and appends it to the text: its code is aligned, and the instruction
    /// that does nothing stands right before that.
    fn compile(
        isa: &OwnedTargetIsa,
        function: ir::Function,
        key: FuncKey,
        text: &mut Vec<u8>,
    ) -> Result<Self, Box<dyn Error>> {
        let name = match &function.name {
            UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()).into_owned(),
            UserFuncName::User(name) => name.to_string(),
        };
        let mut context = cranelift_codegen::Context::for_function(function);
        let compiled = context
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|error| format!("%{name}: {:?}", error.inner))?;
        if !compiled.buffer.relocs().is_empty() {
            return Err(format!("%{name} refers to something by its address").into());
        }
        let body = (text.len() + NOP.len()).next_multiple_of(ALIGNMENT);
        let start = body - NOP.len();
        text.resize(start, 0);
        text.extend(NOP);
        text.extend(compiled.code_buffer());
        let at = |offset: u32| body + offset as usize;
        let traps = compiled.buffer.traps().iter();
        let traps = traps.map(|trap| (at(trap.offset), TrapCode::new(trap.code.as_raw().get())));
        // From each range's start on it is that source, and from its end on none: unless the next
        // range starts there.
        let mut sources: Vec<(usize, Option<SourceOffset>)> = Vec::new();
        for range in compiled.buffer.get_srclocs_sorted() {
            let source = (!range.loc.is_default()).then(|| SourceOffset::new(range.loc.bits()));
            sources.retain(|&(known, _)| known != at(range.start));
            sources.push((at(range.start), source));
            sources.push((at(range.end), None));
        }
        let end = text.len();
        sources.retain(|&(offset, _)| offset < end);
        Ok(Self { key, name, start, end, traps: traps.collect(), sources })
    }
}
