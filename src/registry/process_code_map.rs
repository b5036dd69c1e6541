//! The process's code map; and which map an engine registers in.
//!
//! This is the one place with a map of the whole process. Everything else takes a map from its
//! engine, so that a test can have a thousand of them.

use super::residence::ResidentCode;
use crate::CodeMap;
use std::sync::Arc;

static PROCESS: CodeMap<ResidentCode> = CodeMap::new();

/// The map that engines register their code in unless they were given their own: where a signal
/// handler looks.
///
/// ```
/// let map = pcmap::registry::process_code_map();
/// assert!(map.lookup(0x1000, |code| code.offset()).is_none());
/// ```
///
/// Constant time; signal-safe.
pub fn process_code_map() -> &'static CodeMap<ResidentCode> {
    &PROCESS
}

/// The process's map, or one of the program's own.
#[derive(Clone, Debug, Default)]
pub(crate) enum CodeMapHandle {
    #[default]
    Process,
    Own(Arc<CodeMap<ResidentCode>>),
}

impl CodeMapHandle {
    pub(crate) fn get(&self) -> &CodeMap<ResidentCode> {
        match self {
            Self::Process => &PROCESS,
            Self::Own(map) => map,
        }
    }
}

impl AsRef<CodeMap<ResidentCode>> for CodeMapHandle {
    fn as_ref(&self) -> &CodeMap<ResidentCode> {
        self.get()
    }
}
