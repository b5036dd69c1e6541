//! Code in a code map: what a handler finds.
//!
//! The map's value owns all that an answer needs: the tables, and the mapping that the address is
//! in. So a handler that holds a hit holds both, and both go on an ordinary thread, when the map
//! destroys the value after its grace period. The same mapping may be registered by several owners;
//! how that is counted is told in `claim.rs`.

use super::claim::{Claim, Counted, Owners};
use super::code_tables::{CodeTables, Function};
use super::keys::TrapCode;
use super::mapping::Mapping;
use super::process_code_map::CodeMapHandle;
use super::text_offset::TextOffset;
use crate::memory::Shared;
use crate::{CodeRange, Refused};
use core::fmt;

/// Code in a code map: the value that a lookup gives to a handler.
///
/// It answers from the tables of the image that the code was made of, also where the range is that
/// of a store's private copy. [`Hit::offset`](crate::Hit::offset) is the offset into the text.
///
/// ```
/// use pcmap::registry;
///
/// # let pc = 0x1000;
/// // In a signal handler:
/// let trap = registry::process_code_map().lookup(pc, |hit| hit.value().trap_at(hit.offset()));
/// assert!(trap.is_none(), "no code is there");
/// ```
pub struct ResidentCode {
    tables: Shared<CodeTables>,
    /// Kept mapped; its bytes are for the one who owns the code.
    mapping: Shared<Mapping>,
    owners: Owners<Self>,
}

/// One owner's part in the registration of a mapping.
pub(crate) type CodeClaim = Claim<ResidentCode, CodeMapHandle>;

impl Counted for ResidentCode {
    fn owners(&self) -> &Owners<Self> {
        &self.owners
    }
}

impl CodeClaim {
    /// Registers `mapping`, which answers from `tables`; or joins those who did already.
    ///
    /// Lock-free; without memory, or if another mapping is in the way, nothing has changed.
    pub(crate) fn on(
        map: &CodeMapHandle,
        mapping: &Shared<Mapping>,
        tables: &Shared<CodeTables>,
    ) -> Result<Self, Refused> {
        let range = CodeRange::from_start_len(mapping.start(), mapping.len())?;
        let is_same = |code: &ResidentCode| code.mapping.as_raw() == mapping.as_raw();
        let make = || ResidentCode {
            tables: tables.clone(),
            mapping: mapping.clone(),
            owners: Owners::one(),
        };
        Self::join(map.clone(), range, is_same, make)
    }
}

impl ResidentCode {
    /// What the instruction at `offset` traps with, if it may trap: `offset` is in bytes from the
    /// start of the text.
    ///
    /// **Cost**: O(log traps). **Progress**: wait-free. **Errors, panics**: none. **Signal-safe**:
    /// yes.
    pub fn trap_at(&self, offset: usize) -> Option<TrapCode> {
        self.tables.trap_at(TextOffset::try_from(offset).ok()?)
    }

    /// The function that `offset` is in, of any kind: `offset` is in bytes from the start of the
    /// text.
    ///
    /// **Cost**: O(log functions). **Progress**: wait-free. **Errors, panics**: none.
    /// **Signal-safe**: yes.
    pub fn function_at(&self, offset: usize) -> Option<Function<'_>> {
        self.tables.function_at(TextOffset::try_from(offset).ok()?)
    }

    /// Whether a breakpoint may have been set at `offset`, in bytes from the start of the text.
    ///
    /// **Cost**: O(log sites). **Progress**: wait-free. **Errors, panics**: none. **Signal-safe**:
    /// yes.
    pub fn is_breakpoint_site(&self, offset: usize) -> bool {
        TextOffset::try_from(offset).is_ok_and(|offset| self.tables.is_breakpoint_site(offset))
    }

    /// All tables of the image that the code was made of.
    ///
    /// Constant time; signal-safe (what the tables' methods are, they say themselves).
    pub fn tables(&self) -> &CodeTables {
        &self.tables
    }

    /// How many owners keep the code registered at the moment; 0 while the last one takes it out.
    ///
    /// Constant time; signal-safe.
    pub fn owners(&self) -> usize {
        self.owners.count()
    }
}

impl fmt::Debug for ResidentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResidentCode").field("owners", &self.owners()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeMap;
    use crate::registry::CodeImage;
    use crate::registry::code_allocator::AllocatorHandle;
    use crate::registry::mapping::Draft;
    use std::sync::Arc;

    struct Bench {
        map: CodeMapHandle,
        mapping: Shared<Mapping>,
        tables: Shared<CodeTables>,
    }

    impl Bench {
        fn new() -> Self {
            let draft = Draft::allocate(64, 16, &AllocatorHandle::System).expect("memory");
            let mapping = draft.publish().expect("memory");
            let image = CodeImage::builder(vec![0; 64]).finish().expect("a text, and no more");
            let memory = "memory";
            Self {
                map: CodeMapHandle::Own(Arc::new(CodeMap::new())),
                mapping: Shared::try_new(mapping).expect(memory),
                tables: Shared::try_new(image.into_parts().1).expect(memory),
            }
        }

        fn join(&self) -> CodeClaim {
            CodeClaim::on(&self.map, &self.mapping, &self.tables).expect("memory")
        }

        /// How many owners a lookup finds.
        fn owners(&self) -> Option<usize> {
            self.map.get().lookup(self.mapping.start(), |hit| hit.value().owners())
        }
    }

    /// The last owner stops when it has left and has taken nothing out. Nobody waits for it, and when it
    /// goes on it does no harm.
    #[test]
    fn a_last_owner_that_stops_stops_nobody() {
        let bench = Bench::new();
        let stopped = bench.join().leave_and_stop().expect("the last owner");
        assert_eq!(bench.owners(), Some(0), "found until it is taken out");
        let publications = || bench.map.get().stats().publications;
        let before = publications();
        let one = bench.join();
        assert_eq!((bench.owners(), publications()), (Some(1), before + 1));
        let other = bench.join();
        assert_eq!((bench.owners(), publications()), (Some(2), before + 1));
        drop(bench.map.get().remove([stopped]));
        assert_eq!((bench.owners(), publications()), (Some(2), before + 1), "it is no more there");
        drop(one);
        // Once more, with a last owner that stops for good.
        core::mem::forget(other.leave_and_stop().expect("the last owner"));
        let one = bench.join();
        assert_eq!(bench.owners(), Some(1));
        drop(one);
        assert_eq!((bench.owners(), bench.map.get().stats().entries), (None, 0));
    }

    /// Many that leave at once, and stop, and go on in any order.
    #[test]
    fn those_who_stopped_go_on_in_any_order() {
        let bench = Bench::new();
        let stopped: Vec<_> =
            (0..20).map(|_| bench.join().leave_and_stop().expect("the last owner")).collect();
        let kept = bench.join();
        for item in stopped.into_iter().rev() {
            drop(bench.map.get().remove([item]));
            assert_eq!(bench.owners(), Some(1));
        }
        drop(kept);
        assert_eq!(bench.map.get().stats().entries, 0);
    }
}
