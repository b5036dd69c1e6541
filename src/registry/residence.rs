#![expect(unsafe_code, reason = "an entry of the code map that knows its own block")]
//! Code in a code map: what a handler finds, and who keeps it there.
//!
//! The map's value owns all that an answer needs: the tables, and the mapping that the address is
//! in. So a handler that holds a hit holds both, and both go on an ordinary thread, when the map
//! destroys the value after its grace period.
//!
//! # Counted registrations
//!
//! The same mapping may be registered by several owners: two engines of one process, or one engine
//! twice. It is in the map once, and the entry counts its owners. The entry itself is where they
//! meet; there is no other table and no lock.
//!
//! ```text
//!              join: n -> n+1            leave: 1 -> 0             remove
//!   (absent) ------------------> open n ------------------> closed ----------> (absent)
//!        register, n = 1                                      any thread that wants
//!                                                             the place does this
//! ```
//!
//! - *Joining* looks the first address up. An open entry of the same mapping: the count goes up by
//!   a compare-and-swap, and never from 0. No entry: a new one is registered, with one owner.
//!   Somebody else's came first: look again.
//! - *Leaving* counts down. Who reaches 0 has closed the entry, for ever, and takes it out.
//! - A joiner that finds a closed entry does not wait for the one who closed it, which may be
//!   stopped at any instruction in between: it takes the entry out itself, and registers anew.
//!   Removal goes by the entry's identity (the address of its block, which nobody reuses while
//!   somebody who wants to remove it counts it): so the stopped thread, going on, finds nothing to
//!   remove, and does not touch the new entry.
//!
//! So joining and leaving are lock-free: a joiner goes round again only if another thread has
//! published something meanwhile. (In the midst of taking an entry out *without memory* there is a
//! moment at which lookups do not find it and it is still in the way. A joiner that meets that gets
//! the overlap as an error, as anybody would who registers there; it does not wait.)
//!
//! A joiner that succeeded is in the newest version of the map: the entry is taken out only after
//! the count was 0, and it was not when the joiner counted itself in, nor is it until it leaves.

use super::code_tables::{CodeTables, Function};
use super::keys::TrapCode;
use super::mapping::Mapping;
use super::process_code_map::CodeMapHandle;
use super::text_offset::TextOffset;
use crate::index::entry::{Entry, Item};
use crate::index::shared::{Block, Shared};
use crate::sys::claims::Claims;
use crate::{CodeMap, CodeRange, Refused};
use core::fmt;

/// The block that an entry of the map lies in.
type Place = Block<Entry<ResidentCode>>;

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
    claims: Claims<Place>,
}

/// One owner's part in the registration of a mapping; given up when dropped.
pub(crate) struct Claim {
    map: CodeMapHandle,
    /// There until the claim is given up.
    item: Option<Item<ResidentCode>>,
}

/// What is at the first address of a mapping that wants to be registered.
enum Standing {
    Absent,
    /// The mapping itself; this owner has been counted.
    Joined(Item<ResidentCode>),
    /// The mapping itself, whose last owner has left.
    Closed(Item<ResidentCode>),
    /// Another mapping, in this range.
    Taken(CodeRange),
}

impl Claim {
    /// Registers `mapping`, which answers from `tables`; or joins those who did already.
    ///
    /// Lock-free; without memory, or if another mapping is in the way, nothing has changed.
    pub(crate) fn join(
        map: &CodeMapHandle,
        mapping: &Shared<Mapping>,
        tables: &Shared<CodeTables>,
    ) -> Result<Self, Refused> {
        let range = CodeRange::from_start_len(mapping.start(), mapping.len())?;
        let claim = |item| Self { map: map.clone(), item: Some(item) };
        loop {
            let publications = map.get().index.sequence();
            match Standing::of(map.get(), range, mapping) {
                Standing::Joined(item) => return Ok(claim(item)),
                Standing::Taken(existing) => {
                    return Err(Refused::Overlap { requested: range, existing });
                }
                // Who closed it may be stopped: its work is done here, and it will find it done.
                Standing::Closed(item) => {
                    map.get().remove_items(&mut [item]);
                }
                Standing::Absent => {}
            }
            let resident = ResidentCode {
                tables: tables.clone(),
                mapping: mapping.clone(),
                claims: Claims::one(),
            };
            let item = Item::try_new(range, resident).map_err(|_| Refused::OutOfMemory)?;
            item.entry.value.claims.set_place(item.entry.as_raw());
            match map.get().register_item(item) {
                Ok(registration) => return Ok(claim(registration.into_item())),
                // Another thread was faster. With this mapping, perhaps: look again, where it is
                // found. (If nothing has been published, it is not: see the head of the file.)
                Err((Refused::Overlap { existing, .. }, _))
                    if existing == range && map.get().index.sequence() != publications => {}
                Err((reason, _)) => return Err(reason),
            }
        }
    }

    /// Gives the claim up. If it was the last one, the entry comes back, closed and still in the
    /// map: for whoever takes several out at once.
    pub(crate) fn release(mut self) -> Option<Item<ResidentCode>> {
        self.leave()
    }

    fn leave(&mut self) -> Option<Item<ResidentCode>> {
        self.item.take().filter(|item| item.entry.value.claims.leave())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(item) = self.leave() {
            self.map.get().remove_items(&mut [item]);
        }
    }
}

impl Standing {
    fn of(map: &CodeMap<ResidentCode>, range: CodeRange, mapping: &Shared<Mapping>) -> Self {
        let reader = map.enter();
        let Some(hit) = reader.lookup(range.start()) else { return Self::Absent };
        let resident = hit.value();
        if resident.mapping.as_raw() != mapping.as_raw() {
            return Self::Taken(hit.range());
        }
        // SAFETY: (`Shared::share_raw`) 1. noted by `join` before the entry was published, so it is
        // the block that `resident` is in; the version that shows it counts it as long as `reader`
        // lives.
        let entry = unsafe { Shared::share_raw(resident.claims.place()) };
        let item = Item { range: hit.range(), entry };
        if resident.claims.join() { Self::Joined(item) } else { Self::Closed(item) }
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
        self.claims.owners()
    }
}

impl fmt::Debug for ResidentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResidentCode").field("owners", &self.owners()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.item.as_ref().map(|item| item.range);
        f.debug_struct("Claim").field("range", &range).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

        fn join(&self) -> Claim {
            Claim::join(&self.map, &self.mapping, &self.tables).expect("memory")
        }

        /// How many owners a lookup finds.
        fn owners(&self) -> Option<usize> {
            self.map.get().lookup(self.mapping.start(), |hit| hit.value().owners())
        }
    }

    /// The last owner stops when it has left and has taken nothing out: before its write, or with a
    /// write that another one completes. Nobody waits for it, and when it goes on it does no harm.
    #[test]
    fn a_last_owner_that_stops_stops_nobody() {
        let bench = Bench::new();
        let stopped = bench.join().release().expect("the last owner");
        assert_eq!(bench.owners(), Some(0), "found until it is taken out");
        let publications = || bench.map.get().stats().publications;
        let before = publications();
        let one = bench.join();
        assert_eq!((bench.owners(), publications()), (Some(1), before + 2));
        let other = bench.join();
        assert_eq!((bench.owners(), publications()), (Some(2), before + 2));
        bench.map.get().remove_items(&mut [stopped]);
        assert_eq!((bench.owners(), publications()), (Some(2), before + 2), "it is no more there");
        drop(one);
        // Once more, with a last owner that stops for good.
        core::mem::forget(other.release().expect("the last owner"));
        let one = bench.join();
        assert_eq!(bench.owners(), Some(1));
        drop(one);
        assert_eq!((bench.owners(), bench.map.get().stats().entries), (None, 0));
    }

    /// A thread that takes an entry out without memory, and stops when lookups do not find it any
    /// more and it is still in the way: that is an error, and nobody waits.
    #[test]
    fn an_entry_that_is_hidden_and_in_the_way_is_an_error() {
        let bench = Bench::new();
        // Somewhere else something is buried already, so that lookups ask for tombstones.
        let other = Bench { map: bench.map.clone(), ..Bench::new() };
        bench.map.get().index.bury(&[other.join().release().expect("the last owner")]);
        drop(other.join());
        let stopped = bench.join().release().expect("the last owner");
        stopped.entry.bury();
        assert_eq!(bench.owners(), None);
        let refused = Claim::join(&bench.map, &bench.mapping, &bench.tables);
        assert!(matches!(refused, Err(Refused::Overlap { .. })));
        // It goes on.
        bench.map.get().index.bury(&[stopped]);
        drop(bench.join());
        assert_eq!(bench.map.get().stats().entries, 0);
    }

    /// Many that leave at once, and stop, and go on in any order.
    #[test]
    fn those_who_stopped_go_on_in_any_order() {
        let bench = Bench::new();
        let stopped: Vec<_> =
            (0..20).map(|_| bench.join().release().expect("the last owner")).collect();
        let kept = bench.join();
        for item in stopped.into_iter().rev() {
            bench.map.get().remove_items(&mut [item]);
            assert_eq!(bench.owners(), Some(1));
        }
        drop(kept);
        assert_eq!(bench.map.get().stats().entries, 0);
    }
}
