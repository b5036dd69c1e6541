//! Who writes where, and beside whom.

use crate::layouts::Layout;
use crate::report::Setting;
use crate::writers::{Writer, beside_readers};

/// The circumstances of a case.
#[derive(Clone, Copy)]
pub(crate) struct Field<'f> {
    pub(crate) layout: &'f Layout,
    /// Each holds the layout.
    pub(crate) contenders: &'f [&'f dyn Writer],
    /// What readers ask for.
    pub(crate) probes: &'f [usize],
    pub(crate) readers: usize,
}

impl<'f> Field<'f> {
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> + 'f {
        self.contenders.iter().map(|contender| contender.name())
    }

    /// Does the work beside the readers; also how many lookups those made.
    pub(crate) fn beside_readers<R>(
        self,
        contender: &dyn Writer,
        work: impl FnOnce() -> R,
    ) -> (R, usize) {
        beside_readers(self.readers, contender, self.probes, work)
    }

    /// The words are `key=value`, each with a space before it.
    pub(crate) fn setting(self, case: &'static str, more: &str) -> Setting {
        Setting {
            case,
            layout: self.layout.name,
            n: self.layout.n(),
            threads: 1,
            writers: 1,
            more: format!(" readers={}{more}", self.readers),
        }
    }
}
