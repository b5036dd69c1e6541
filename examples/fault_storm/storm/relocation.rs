//! Calls between the functions of a unit, resolved in the text of a module.

use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::ExternalName;

/// A call of a function in the same unit.
#[derive(Clone, Debug)]
pub(crate) struct CallSite {
    /// What to patch, from the start of the calling function.
    offset: usize,
    addend: i64,
    kind: Kind,
    callee: String,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Four bytes, relative to themselves.
    X86Relative,
    /// The low 26 bits of an instruction, in units of four bytes.
    Arm64Branch,
}

impl CallSite {
    /// # Errors
    ///
    /// A message, if the compiler wants anything but a direct call.
    pub(crate) fn of(relocation: &cranelift_codegen::FinalizedMachReloc) -> Result<Self, String> {
        let kind = match relocation.kind {
            Reloc::X86CallPCRel4 => Kind::X86Relative,
            Reloc::Arm64Call => Kind::Arm64Branch,
            other => return Err(format!("a relocation {other} is not a direct call")),
        };
        let FinalizedRelocTarget::ExternalName(ExternalName::TestCase(name)) = &relocation.target
        else {
            return Err("a call whose target is not a guest".to_owned());
        };
        Ok(Self {
            offset: relocation.offset as usize,
            addend: relocation.addend,
            kind,
            callee: String::from_utf8_lossy(name.raw()).into_owned(),
        })
    }

    /// The name of the function called.
    pub(crate) fn callee(&self) -> &str {
        &self.callee
    }

    /// Makes the call, in the function that starts at `caller`, one of the function at `callee`:
    /// both are offsets into `text`.
    pub(crate) fn resolve(&self, text: &mut [u8], caller: usize, callee: usize) {
        let at = caller + self.offset;
        let distance = callee as i64 + self.addend - at as i64;
        let word: &mut [u8; 4] = (&mut text[at..at + 4]).try_into().expect("four bytes");
        *word = match self.kind {
            Kind::X86Relative => (distance as i32).to_le_bytes(),
            Kind::Arm64Branch => {
                const TARGET: u32 = (1 << 26) - 1;
                let branch = u32::from_le_bytes(*word) & !TARGET;
                (branch | ((distance >> 2) as u32 & TARGET)).to_le_bytes()
            }
        };
    }
}
