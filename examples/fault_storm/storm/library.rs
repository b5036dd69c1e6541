//! The guests as machine code: compiled once, copied into modules many times.
//!
//! A unit is a source file: its functions may call each other, so they are placed together. What
//! the compiler says about each function's traps is kept here untouched. It is the truth the run
//! is checked against; modules make their own tables from it.

use super::expectation::{self, Guest};
use super::machine::CODEGEN_TARGET;
use super::relocation::CallSite;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{self, TrapCode, UserFuncName};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use std::error::Error;

/// All units.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) units: Vec<Unit>,
}

/// The functions of one source file.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) functions: Vec<Function>,
}

#[derive(Debug)]
pub(crate) struct Function {
    /// Its name, and how to call it with a known outcome.
    pub(crate) guest: &'static Guest,
    pub(crate) code: Vec<u8>,
    pub(crate) calls: Vec<CallSite>,
    /// The compiler's list: offset from the function's start, and trap code.
    pub(crate) traps: Vec<(u32, TrapCode)>,
}

impl Library {
    /// Compiles every guest for this machine.
    ///
    /// # Errors
    ///
    /// A message, if a source or a model is wrong: they must fit together.
    pub(crate) fn compile() -> Result<Self, Box<dyn Error>> {
        let isa = host()?;
        let sources = [
            (include_str!("../../guests/loads.clif"), expectation::LOADS),
            (include_str!("../../guests/traps.clif"), expectation::TRAPS),
            (include_str!("../../guests/divisions.clif"), expectation::DIVISIONS),
            (include_str!("../../guests/arithmetic.clif"), expectation::ARITHMETIC),
            (include_str!("../../guests/calls.clif"), expectation::CALLS),
        ];
        let units = sources
            .iter()
            .map(|(source, guests)| Unit::compile(&isa, source, guests))
            .collect::<Result<_, _>>()?;
        Ok(Self { units })
    }

    pub(crate) fn functions(&self) -> impl Iterator<Item = &Function> {
        self.units.iter().flat_map(|unit| &unit.functions)
    }
}

impl Unit {
    fn compile(
        isa: &OwnedTargetIsa,
        source: &str,
        guests: &'static [Guest],
    ) -> Result<Self, Box<dyn Error>> {
        let functions = cranelift_reader::parse_functions(source)?
            .into_iter()
            .map(|function| Function::compile(isa, function, guests))
            .collect::<Result<_, _>>()?;
        let unit = Self { functions };
        for guest in guests {
            unit.find(guest.name)?;
        }
        for call in unit.functions.iter().flat_map(|function| &function.calls) {
            unit.find(call.callee())?;
        }
        Ok(unit)
    }

    /// # Errors
    ///
    /// A message, if the unit has no function of that name.
    fn find(&self, name: &str) -> Result<usize, String> {
        self.position(name).ok_or_else(|| format!("no function %{name}"))
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.functions.iter().position(|function| function.guest.name == name)
    }
}

impl Function {
    fn compile(
        isa: &OwnedTargetIsa,
        function: ir::Function,
        guests: &'static [Guest],
    ) -> Result<Self, Box<dyn Error>> {
        let name = match &function.name {
            UserFuncName::Testcase(name) => String::from_utf8_lossy(name.raw()).into_owned(),
            UserFuncName::User(name) => name.to_string(),
        };
        let guest = guests.iter().find(|guest| guest.name == name);
        let guest = guest.ok_or_else(|| format!("nobody knows what %{name} does"))?;
        let mut context = cranelift_codegen::Context::for_function(function);
        let compiled = context
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|error| format!("%{name}: {:?}", error.inner))?;
        let function = Self {
            guest,
            code: compiled.code_buffer().to_vec(),
            calls: compiled.buffer.relocs().iter().map(CallSite::of).collect::<Result<_, _>>()?,
            traps: compiled.buffer.traps().iter().map(|trap| (trap.offset, trap.code)).collect(),
        };
        function.check_codes_are_distinct()?;
        Ok(function)
    }

    /// A model predicts a trap by its code, so a code must name one place in the function.
    fn check_codes_are_distinct(&self) -> Result<(), String> {
        for (i, (_, code)) in self.traps.iter().enumerate() {
            if self.traps.iter().skip(i + 1).any(|(_, other)| other == code) {
                return Err(format!("%{} has trap {code} in two places", self.guest.name));
            }
        }
        Ok(())
    }

    /// Where the compiler put the trap.
    pub(crate) fn offset_of(&self, code: TrapCode) -> Option<u32> {
        self.traps.iter().find(|&&(_, known)| known == code).map(|&(offset, _)| offset)
    }
}

fn host() -> Result<OwnedTargetIsa, Box<dyn Error>> {
    let mut flags = settings::builder();
    flags.set("opt_level", "speed")?;
    Ok(isa::lookup_by_name(CODEGEN_TARGET)?.finish(settings::Flags::new(flags))?)
}
