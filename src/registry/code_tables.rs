//! What is known about an image's text, without the text: what a registry keeps beside a mapping.

use super::address_map::AddressMap;
use super::function_table::FunctionTable;
use super::image_error::ImageError;
use super::keys::{FuncKey, SignatureKey, TrapCode};
use super::little_endian::widen;
use super::text_offset::{SourceOffset, TextOffset, TextRange};
use super::trap_table::TrapTable;
use core::fmt;

/// The tables of a [`CodeImage`](super::CodeImage): functions, traps, source offsets, trampolines, breakpoint sites.
///
/// All places are text offsets, so the tables serve every mapping of the text. All methods: no
/// allocation, no errors, no panics; those that look up one offset are **signal-safe**.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeTables {
    pub(super) text_len: u32,
    pub(super) functions: FunctionTable,
    /// By function as the table numbers them: where the name lies in `names`.
    pub(super) name_places: Vec<NamePlace>,
    pub(super) names: String,
    /// Numbers of functions, sorted by key.
    pub(super) by_key: Vec<u32>,
    pub(super) traps: TrapTable,
    pub(super) addresses: AddressMap,
    /// Signatures, sorted, and numbers of functions.
    pub(super) trampolines: Vec<(SignatureKey, u32)>,
    /// Sorted, without overlap.
    pub(super) sites: Vec<BreakpointSite>,
    pub(super) has_unparsed_debug_info: bool,
}

/// Bytes of the names; none for a function without a name.
pub(super) type NamePlace = Option<(u32, u32)>;

/// A function of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Function<'a> {
    /// Its key, unique in the image.
    pub key: FuncKey,
    /// Where its code is: half-open, not empty.
    pub range: TextRange,
    /// What it is called, if that is known.
    pub name: Option<&'a str>,
}

/// A place where a breakpoint may be set: the bytes of an instruction that may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BreakpointSite {
    /// The bytes: from the start of an instruction, at least as many as a breakpoint needs on the
    /// architecture. Half-open, not empty, inside one function.
    pub range: TextRange,
    /// Which place in the source this is, if that is known. Several sites may have the same.
    pub source: Option<SourceOffset>,
}

impl CodeTables {
    /// The length of the text in bytes.
    #[inline]
    pub fn text_len(&self) -> u32 {
        self.text_len
    }

    /// The code of the trap at exactly this offset: [`TrapTable::find`]. Signal-safe.
    #[inline]
    pub fn trap_at(&self, offset: TextOffset) -> Option<TrapCode> {
        self.traps.find(offset)
    }

    /// The function that contains this offset, logarithmic in their number. Signal-safe.
    #[inline]
    pub fn function_at(&self, offset: TextOffset) -> Option<Function<'_>> {
        self.function_numbered(self.functions.view().position(offset)?)
    }

    /// The source of the text at this offset: [`AddressMap::find`], which knows nothing of where
    /// functions end. Signal-safe.
    pub fn source_at(&self, offset: TextOffset) -> Option<SourceOffset> {
        self.addresses.find(offset)
    }

    /// The function with this key, logarithmic in the number of functions. Signal-safe.
    pub fn function(&self, key: FuncKey) -> Option<Function<'_>> {
        let found = self.by_key.binary_search_by_key(&Some(key), |&number| self.key_of(number));
        self.function_numbered(widen(*self.by_key.get(found.ok()?)?))
    }

    /// All functions, by where they start.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> + Clone {
        (0..self.functions.view().len()).map_while(|number| self.function_numbered(number))
    }

    /// The functions of one namespace, by key: those that a module defines, say. Logarithmic in
    /// the number of functions, and constant time per function.
    pub fn functions_in(&self, namespace: u32) -> impl Iterator<Item = Function<'_>> + Clone {
        let before =
            |&number: &u32| self.key_of(number).is_some_and(|key| key.namespace() < namespace);
        let rest = self.by_key.get(self.by_key.partition_point(before)..).unwrap_or_default();
        rest.iter()
            .map_while(|&number| self.function_numbered(widen(number)))
            .take_while(move |function| function.key.namespace() == namespace)
    }

    /// The trampoline for a signature, logarithmic in their number. Signal-safe.
    pub fn trampoline(&self, signature: SignatureKey) -> Option<Function<'_>> {
        let found = self.trampolines.binary_search_by_key(&signature, |&(known, _)| known).ok()?;
        self.function_numbered(widen(self.trampolines.get(found)?.1))
    }

    /// All trampolines, by signature.
    pub fn trampolines(&self) -> impl Iterator<Item = (SignatureKey, Function<'_>)> + Clone {
        self.trampolines.iter().map_while(|&(signature, number)| {
            Some((signature, self.function_numbered(widen(number))?))
        })
    }

    /// See [`CodeImage::renumber_signatures`](super::CodeImage::renumber_signatures).
    pub(super) fn renumber_signatures(
        &mut self,
        mut engine_wide: impl FnMut(SignatureKey) -> SignatureKey,
    ) -> Result<(), ImageError> {
        let mut renumbered = Vec::new();
        let enough = renumbered.try_reserve_exact(self.trampolines.len());
        enough.map_err(|_| ImageError::OutOfMemory)?;
        let given = self.trampolines.iter();
        renumbered.extend(given.map(|&(signature, number)| (engine_wide(signature), number)));
        renumbered.sort_unstable();
        for pair in renumbered.windows(2) {
            let [(signature, first), (next, second)] = [pair[0], pair[1]];
            // Each has a key: they are numbers of functions.
            if signature == next
                && let (Some(first), Some(second)) = (self.key_of(first), self.key_of(second))
            {
                return Err(ImageError::DuplicateTrampoline { signature, first, second });
            }
        }
        self.trampolines = renumbered;
        Ok(())
    }

    /// Where breakpoints may be set, ascending, without overlap.
    pub fn breakpoint_sites(&self) -> &[BreakpointSite] {
        &self.sites
    }

    /// Whether there is debug information that nobody has read, as far as the compiler said.
    pub fn has_unparsed_debug_info(&self) -> bool {
        self.has_unparsed_debug_info
    }

    /// Whether a breakpoint site starts at exactly this offset, logarithmic in their number.
    /// Signal-safe.
    pub fn is_breakpoint_site(&self, offset: TextOffset) -> bool {
        self.sites.binary_search_by_key(&offset, |site| site.range.start()).is_ok()
    }

    /// The traps as a table of bytes.
    pub fn trap_table(&self) -> &TrapTable {
        &self.traps
    }

    /// The functions as a table of bytes.
    pub fn function_table(&self) -> &FunctionTable {
        &self.functions
    }

    /// The source offsets as a table of bytes.
    pub fn address_map(&self) -> &AddressMap {
        &self.addresses
    }

    fn key_of(&self, number: u32) -> Option<FuncKey> {
        self.functions.view().get(widen(number)).map(|(_, key)| key)
    }

    fn function_numbered(&self, number: usize) -> Option<Function<'_>> {
        let (range, key) = self.functions.view().get(number)?;
        let name = self.name_places.get(number).copied().flatten();
        let name = name.and_then(|(start, end)| self.names.get(widen(start)..widen(end)));
        Some(Function { key, range, name })
    }
}

impl fmt::Debug for CodeTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeTables")
            .field("text_len", &self.text_len)
            .field("functions", &self.functions.view().len())
            .field("traps", &self.traps.view().len())
            .field("addresses", &self.addresses.view().len())
            .field("trampolines", &self.trampolines.len())
            .field("breakpoint_sites", &self.sites.len())
            .finish_non_exhaustive()
    }
}
