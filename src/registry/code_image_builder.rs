//! Building a code image: things are taken in any order, sorted, and checked against each other.
//!
//! What is refused is handed back whole, in a sorted order.

use super::address_map::AddressMap;
use super::code_image::CodeImage;
use super::code_tables::{BreakpointSite, CodeTables, NamePlace};
use super::function_table::FunctionTable;
use super::image_error::ImageError;
use super::keys::{FuncKey, SignatureKey, TrapCode};
use super::little_endian::widen;
use super::table_error::TableError;
use super::text_offset::{SourceOffset, TextOffset, TextRange, TextRangeError};
use super::trap_table::TrapTable;
use core::fmt;

/// Builds a [`CodeImage`]; from [`CodeImage::builder`].
///
/// Places are given as `u32` or `usize` (or as `TextOffset` and `TextRange`), and what is added may
/// come in any order. A method that fails has added nothing. None is signal-safe.
///
/// ```
/// use pcmap::registry::{CodeImage, FuncKey, ImageError};
///
/// let mut builder = CodeImage::builder(vec![0x90; 0x20]);
/// builder
///     .function(FuncKey::new(0, 0), 0..0x10_u32, "a")?
///     .function(FuncKey::new(0, 1), 0xf..0x20_u32, "b")?;
/// let refused = builder.finish().unwrap_err();
/// assert!(matches!(refused.reason, ImageError::FunctionsOverlap { .. }));
/// let _again = refused.builder;
/// # Ok::<(), ImageError>(())
/// ```
#[derive(Clone)]
#[must_use = "an image is made by `finish`"]
pub struct CodeImageBuilder {
    text: Vec<u8>,
    text_align: u32,
    functions: Vec<GivenFunction>,
    names: String,
    traps: Vec<(TextOffset, TrapCode)>,
    addresses: Vec<(TextOffset, Option<SourceOffset>)>,
    trampolines: Vec<(SignatureKey, FuncKey)>,
    sites: Vec<BreakpointSite>,
    has_unparsed_debug_info: bool,
}

#[derive(Clone, Copy)]
struct GivenFunction {
    range: TextRange,
    key: FuncKey,
    name: NamePlace,
}

/// [`CodeImageBuilder::finish`] refused; the builder comes back with all that it was given.
#[non_exhaustive]
pub struct RefusedImage {
    /// Why.
    pub reason: ImageError,
    /// The builder.
    pub builder: CodeImageBuilder,
}

impl CodeImageBuilder {
    pub(super) fn new(text: Vec<u8>) -> Self {
        Self {
            text,
            text_align: 1,
            functions: Vec::new(),
            names: String::new(),
            traps: Vec::new(),
            addresses: Vec::new(),
            trampolines: Vec::new(),
            sites: Vec::new(),
            has_unparsed_debug_info: false,
        }
    }

    /// What the text must be aligned to where it is mapped: a power of two, in bytes. It is 1 if
    /// nothing is said.
    ///
    /// # Errors
    ///
    /// [`ImageError::Alignment`] if it is not a power of two.
    pub fn text_align(&mut self, align: u32) -> Result<&mut Self, ImageError> {
        if !align.is_power_of_two() {
            return Err(ImageError::Alignment { align: align.into() });
        }
        self.text_align = align;
        Ok(self)
    }

    /// Adds a function: `range` are text offsets, half-open.
    ///
    /// # Errors
    ///
    /// [`ImageError::InvalidRange`] if the numbers are no range of text,
    /// [`ImageError::TooMany`] if all names together are too long, [`ImageError::OutOfMemory`].
    pub fn function<'n, R>(
        &mut self,
        key: FuncKey,
        range: R,
        name: impl Into<Option<&'n str>>,
    ) -> Result<&mut Self, ImageError>
    where
        R: TryInto<TextRange>,
        R::Error: Into<TextRangeError>,
    {
        let range = range.try_into().map_err(Into::into)?;
        room(&mut self.functions)?;
        let name = match name.into() {
            Some(name) => {
                let start = count(self.names.len())?;
                let end = count(self.names.len().saturating_add(name.len()))?;
                self.names.try_reserve(name.len()).map_err(|_| ImageError::OutOfMemory)?;
                self.names.push_str(name);
                Some((start, end))
            }
            None => None,
        };
        self.functions.push(GivenFunction { range, key, name });
        Ok(self)
    }

    /// Takes memory for so many functions with names of so many bytes together, and no more.
    #[cfg(feature = "elf")]
    pub(super) fn reserve_functions(
        &mut self,
        functions: usize,
        name_bytes: usize,
    ) -> Result<(), ImageError> {
        exact_room(&mut self.functions, functions)?;
        self.names.try_reserve_exact(name_bytes).map_err(|_| ImageError::OutOfMemory)
    }

    /// Takes memory for so many traps, and no more.
    #[cfg(feature = "elf")]
    pub(super) fn reserve_traps(&mut self, traps: usize) -> Result<(), ImageError> {
        exact_room(&mut self.traps, traps)
    }

    /// Takes memory for so many entries of the address map, and no more.
    #[cfg(feature = "elf")]
    pub(super) fn reserve_addresses(&mut self, addresses: usize) -> Result<(), ImageError> {
        exact_room(&mut self.addresses, addresses)
    }

    /// Adds a trap: the instruction at this text offset, should it fault, does so for this reason.
    ///
    /// # Errors
    ///
    /// [`ImageError::InvalidRange`] if the number is no text offset, [`ImageError::OutOfMemory`].
    pub fn trap<O>(&mut self, offset: O, code: TrapCode) -> Result<&mut Self, ImageError>
    where
        O: TryInto<TextOffset>,
        O::Error: Into<TextRangeError>,
    {
        let offset = offset.try_into().map_err(Into::into)?;
        room(&mut self.traps)?;
        self.traps.push((offset, code));
        Ok(self)
    }

    /// Adds an entry of the address map: the text from this offset up to the next entry's was
    /// compiled from this source, or from none.
    ///
    /// # Errors
    ///
    /// [`ImageError::InvalidRange`] if the number is no text offset, [`ImageError::OutOfMemory`].
    pub fn address<O>(
        &mut self,
        offset: O,
        source: impl Into<Option<SourceOffset>>,
    ) -> Result<&mut Self, ImageError>
    where
        O: TryInto<TextOffset>,
        O::Error: Into<TextRangeError>,
    {
        let offset = offset.try_into().map_err(Into::into)?;
        room(&mut self.addresses)?;
        self.addresses.push((offset, source.into()));
        Ok(self)
    }

    /// Adds a trampoline: the function for calls with this signature.
    ///
    /// # Errors
    ///
    /// [`ImageError::OutOfMemory`].
    pub fn trampoline(
        &mut self,
        signature: SignatureKey,
        function: FuncKey,
    ) -> Result<&mut Self, ImageError> {
        room(&mut self.trampolines)?;
        self.trampolines.push((signature, function));
        Ok(self)
    }

    /// Adds a place where a breakpoint may be set: `range` are the text offsets that may be written
    /// over, half-open, from the start of an instruction.
    ///
    /// # Errors
    ///
    /// [`ImageError::InvalidRange`] if the numbers are no range of text,
    /// [`ImageError::OutOfMemory`].
    pub fn breakpoint_site<R>(
        &mut self,
        range: R,
        source: impl Into<Option<SourceOffset>>,
    ) -> Result<&mut Self, ImageError>
    where
        R: TryInto<TextRange>,
        R::Error: Into<TextRangeError>,
    {
        let range = range.try_into().map_err(Into::into)?;
        room(&mut self.sites)?;
        self.sites.push(BreakpointSite { range, source: source.into() });
        Ok(self)
    }

    /// Says whether there is debug information that is not in the image. It is not, if nothing is
    /// said.
    pub fn unparsed_debug_info(&mut self, there_is: bool) -> &mut Self {
        self.has_unparsed_debug_info = there_is;
        self
    }

    /// The image, if all of it fits together.
    ///
    /// **Cost**: that of sorting what was given. **Progress**: as the allocator.
    ///
    /// # Errors
    ///
    /// What does not fit, by name (one of them, if there are several), and the builder.
    #[expect(clippy::result_large_err, reason = "what was given comes back, and without memory")]
    pub fn finish(mut self) -> Result<CodeImage, RefusedImage> {
        match self.check_and_build() {
            Ok(tables) => Ok(CodeImage { text: self.text, text_align: self.text_align, tables }),
            Err(reason) => Err(RefusedImage { reason, builder: self }),
        }
    }

    fn check_and_build(&mut self) -> Result<CodeTables, ImageError> {
        let len = self.text.len() as u64;
        let text_len = u32::try_from(len).map_err(|_| ImageError::TextTooLong { len })?;
        self.check_functions(text_len)?;
        let functions = self.function_table()?;
        let by_key = self.by_key()?;
        self.check_traps(text_len)?;
        self.check_addresses(text_len)?;
        self.check_sites(&functions)?;
        Ok(CodeTables {
            text_len,
            traps: TrapTable::build(&self.traps).map_err(of_table)?,
            addresses: AddressMap::build(&self.addresses).map_err(of_table)?,
            trampolines: self.trampoline_numbers(&by_key)?,
            name_places: collected(self.functions.iter().map(|function| function.name))?,
            sites: collected(self.sites.iter().copied())?,
            functions,
            by_key,
            has_unparsed_debug_info: self.has_unparsed_debug_info,
            // Last, for it cannot fail: the builder would lack it.
            names: core::mem::take(&mut self.names),
        })
    }

    fn check_functions(&mut self, text_len: u32) -> Result<(), ImageError> {
        self.functions.sort_unstable_by_key(|function| (function.range, function.key));
        for &GivenFunction { range, key, .. } in &self.functions {
            if range.is_empty() {
                return Err(ImageError::FunctionEmpty { key, at: range.start() });
            }
            if range.end().get() > text_len {
                return Err(ImageError::FunctionOutside { key, range, text_len });
            }
        }
        // Sorted and not empty: if any two overlap, two neighbours do.
        for pair in self.functions.windows(2) {
            let [first, second] = [pair[0], pair[1]];
            if first.range.overlaps(second.range) {
                return Err(ImageError::FunctionsOverlap {
                    first: first.key,
                    first_range: first.range,
                    second: second.key,
                    second_range: second.range,
                });
            }
        }
        Ok(())
    }

    fn function_table(&self) -> Result<FunctionTable, ImageError> {
        let given = self.functions.iter().map(|function| (function.range, function.key));
        FunctionTable::build(&collected(given)?).map_err(of_table)
    }

    /// The numbers of the functions, sorted by key.
    fn by_key(&self) -> Result<Vec<u32>, ImageError> {
        let mut by_key = collected(0..count(self.functions.len())?)?;
        by_key.sort_unstable_by_key(|&number| self.functions[widen(number)].key);
        for pair in by_key.windows(2) {
            let [first, second] = [pair[0], pair[1]].map(|number| self.functions[widen(number)]);
            if first.key == second.key {
                return Err(ImageError::DuplicateFunction {
                    key: first.key,
                    first: first.range,
                    second: second.range,
                });
            }
        }
        Ok(by_key)
    }

    fn check_traps(&mut self, text_len: u32) -> Result<(), ImageError> {
        self.traps.sort_unstable();
        if let Some(&(at, _)) = self.traps.last().filter(|(at, _)| at.get() >= text_len) {
            return Err(ImageError::TrapOutside { at, text_len });
        }
        for pair in self.traps.windows(2) {
            let [(at, first), (next, second)] = [pair[0], pair[1]];
            if at == next {
                return Err(ImageError::DuplicateTrap { at, first, second });
            }
        }
        Ok(())
    }

    fn check_addresses(&mut self, text_len: u32) -> Result<(), ImageError> {
        self.addresses.sort_unstable();
        if let Some(&(at, _)) = self.addresses.last().filter(|(at, _)| at.get() >= text_len) {
            return Err(ImageError::AddressOutside { at, text_len });
        }
        match self.addresses.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(ImageError::DuplicateAddress { at: pair[0].0 }),
            None => Ok(()),
        }
    }

    /// Signatures, sorted, with the numbers of their functions.
    fn trampoline_numbers(
        &mut self,
        by_key: &[u32],
    ) -> Result<Vec<(SignatureKey, u32)>, ImageError> {
        self.trampolines.sort_unstable();
        for pair in self.trampolines.windows(2) {
            let [(signature, first), (next, second)] = [pair[0], pair[1]];
            if signature == next {
                return Err(ImageError::DuplicateTrampoline { signature, first, second });
            }
        }
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(self.trampolines.len()).map_err(|_| ImageError::OutOfMemory)?;
        for &(signature, key) in &self.trampolines {
            let key_of = |&number: &u32| self.functions[widen(number)].key;
            match by_key.binary_search_by_key(&key, key_of) {
                Ok(found) => numbers.push((signature, by_key[found])),
                Err(_) => return Err(ImageError::UnknownTrampoline { signature, key }),
            }
        }
        Ok(numbers)
    }

    fn check_sites(&mut self, functions: &FunctionTable) -> Result<(), ImageError> {
        self.sites.sort_unstable();
        for &BreakpointSite { range, .. } in &self.sites {
            let around = functions.find(range.start());
            if range.is_empty() || around.is_none_or(|(around, _)| around.end() < range.end()) {
                return Err(ImageError::SiteOutside { range });
            }
        }
        match self.sites.windows(2).find(|pair| pair[0].range.overlaps(pair[1].range)) {
            Some(pair) => {
                Err(ImageError::SitesOverlap { first: pair[0].range, second: pair[1].range })
            }
            None => Ok(()),
        }
    }
}

fn room<X>(vector: &mut Vec<X>) -> Result<(), ImageError> {
    vector.try_reserve(1).map_err(|_| ImageError::OutOfMemory)
}

#[cfg(feature = "elf")]
fn exact_room<X>(vector: &mut Vec<X>, additional: usize) -> Result<(), ImageError> {
    vector.try_reserve_exact(additional).map_err(|_| ImageError::OutOfMemory)
}

fn count(number: usize) -> Result<u32, ImageError> {
    u32::try_from(number).map_err(|_| ImageError::TooMany)
}

fn collected<X>(items: impl ExactSizeIterator<Item = X>) -> Result<Vec<X>, ImageError> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(items.len()).map_err(|_| ImageError::OutOfMemory)?;
    vector.extend(items);
    Ok(vector)
}

/// What a table says of entries that were sorted and checked here.
fn of_table(error: TableError) -> ImageError {
    match error {
        TableError::OutOfMemory => ImageError::OutOfMemory,
        TableError::TooMany => ImageError::TooMany,
        // Not after the checks.
        TableError::NotAscending { offset } => ImageError::DuplicateAddress { at: offset },
    }
}

impl From<RefusedImage> for ImageError {
    fn from(refused: RefusedImage) -> Self {
        refused.reason
    }
}

impl fmt::Debug for CodeImageBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeImageBuilder")
            .field("text", &self.text.len())
            .field("functions", &self.functions.len())
            .field("traps", &self.traps.len())
            .field("addresses", &self.addresses.len())
            .field("trampolines", &self.trampolines.len())
            .field("breakpoint_sites", &self.sites.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for RefusedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Debug for RefusedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusedImage").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl core::error::Error for RefusedImage {}
