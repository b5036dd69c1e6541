//! Any bytes as tables of a code image: read as they are, built and read again, damaged and read,
//! and given to a builder.
//!
//! The first byte picks what the others are. Tables are compared with a scan of the list that they
//! were built of; what a builder says, with every entry looked at beside every other
//! ([`image`](crate::image)).

use crate::image;
use crate::input::Input;
use pcmap::registry::{
    AddressMap, AddressMapRef, FuncKey, FunctionTable, FunctionTableRef, SourceOffset, TableError,
    TextOffset, TextRange, TrapCode, TrapTable, TrapTableRef,
};

/// Entries that are compared with a scan: an input is to be run in milliseconds.
const MOST: usize = 300;

/// What inputs did, for seeing that a corpus does something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Entries that were read from bytes as they are.
    pub(crate) read: usize,
    /// Tables that were built, and those that were refused.
    pub(crate) built: usize,
    pub(crate) refused: usize,
    /// Images that were built, and those that were refused.
    pub(crate) images: usize,
    pub(crate) refused_images: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.built += other.built;
        self.refused += other.refused;
        self.images += other.images;
        self.refused_images += other.refused_images;
    }
}

/// Runs an input; panics where a table is not what it should be.
pub(crate) fn run(input: &[u8]) -> Counts {
    let mut counts = Counts::default();
    let mut input = Input(input);
    match input.byte() % 7 {
        0 => {
            let traps = traps_in(input.0);
            counts.read += traps.len();
            counts.traps(&traps, &[]);
        }
        1 => {
            let functions = functions_in(input.0);
            counts.read += functions.len();
            counts.functions(&functions, &[]);
        }
        2 => {
            let addresses = addresses_in(input.0);
            counts.read += addresses.len();
            counts.addresses(&addresses, &[]);
        }
        3 => {
            let traps = list(&mut input, |input, at| (at, TrapCode::new(input.byte() as u8)));
            counts.traps(&traps, input.0);
        }
        4 => {
            let functions = list(&mut input, |input, at| {
                let end = at.get().saturating_add(input.byte() as u32);
                let range = TextRange::try_from(at.get()..end).expect("in order");
                (range, FuncKey::new(input.byte() as u32, at.get()))
            });
            counts.functions(&functions, input.0);
        }
        5 => {
            let addresses = list(&mut input, |input, at| (at, source(input)));
            counts.addresses(&addresses, input.0);
        }
        _ if image::build(&mut input) => counts.images += 1,
        _ => counts.refused_images += 1,
    }
    counts
}

/// A source close to others, far from them, or none.
pub(crate) fn source(input: &mut Input<'_>) -> Option<SourceOffset> {
    let source = match input.byte() {
        255 => return None,
        254 => u32::MAX,
        far @ 200.. => (far as u32) << 24 | input.byte() as u32,
        near => near as u32 * 4,
    };
    Some(SourceOffset::new(source))
}

/// Entries at ascending offsets, as a rule: a step is a byte, of which the largest go far, or back.
fn list<X>(
    input: &mut Input<'_>,
    mut entry: impl FnMut(&mut Input<'_>, TextOffset) -> X,
) -> Vec<X> {
    let mut at = 0_u32;
    let count = (input.byte() * 256 + input.byte()) % (MOST + 1);
    let mut entries = Vec::new();
    while entries.len() < count && !input.is_empty() {
        at = match input.byte() as u32 {
            step @ 0..=199 => at.saturating_add(step),
            step @ 200..=229 => at.saturating_add((step - 199) << 12),
            step @ 230..=250 => at.saturating_add((step - 229) << 27),
            step @ 251..=253 => at.saturating_sub(step - 250),
            254 => u32::MAX,
            _ => 0,
        };
        entries.push(entry(input, TextOffset::new(at)));
    }
    entries
}

/// The numbers that bytes hold at some places, for asking about them.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = TextOffset> {
    let words = bytes.windows(4).step_by(3).take(100);
    let words = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words.flat_map(|word| [word, word & 0xffff, word >> 16]).map(TextOffset::new)
}

fn traps_in(bytes: &[u8]) -> Vec<(TextOffset, TrapCode)> {
    let table = TrapTableRef::new(bytes);
    assert!(table.iter().count() <= bytes.len());
    let _ = (table.len(), table.is_empty());
    numbers(bytes).for_each(|at| _ = table.find(at));
    table.iter().take(MOST).collect()
}

fn functions_in(bytes: &[u8]) -> Vec<(TextRange, FuncKey)> {
    let table = FunctionTableRef::new(bytes);
    assert!(table.iter().count() <= bytes.len() / 16);
    for at in numbers(bytes) {
        // Whatever the bytes are, what is found contains the offset.
        if let Some(found) = table.find(at) {
            assert!(found.0.contains(at));
            assert_eq!(table.position(at).and_then(|number| table.get(number)), Some(found));
        }
        let _ = table.get(at.get() as usize);
    }
    table.iter().take(MOST).collect()
}

fn addresses_in(bytes: &[u8]) -> Vec<(TextOffset, Option<SourceOffset>)> {
    let table = AddressMapRef::new(bytes);
    // Blocks may share bytes, but each is in the index.
    assert!(table.iter().count() <= bytes.len() / 8 * 64);
    for at in numbers(bytes) {
        assert!(table.entry(at).is_none_or(|(found, _)| found <= at));
    }
    table.iter().take(MOST).collect()
}

/// Writes over bytes of a table, as an input tells: where (two bytes), and what.
fn damage(table: &[u8], how: &[u8]) -> Option<Vec<u8>> {
    let changes = how.chunks_exact(3).take(20);
    if table.is_empty() || changes.len() == 0 {
        return None;
    }
    let mut damaged = table.to_vec();
    for change in changes {
        let at = usize::from(change[0]) * 256 + usize::from(change[1]);
        damaged[at % table.len()] = change[2];
        if at % 16 == 15 {
            damaged.truncate(at % table.len() + 1);
            damaged.resize(table.len(), 0xff);
        }
    }
    Some(damaged)
}

/// The places of entries, and those beside them.
fn beside(places: impl Iterator<Item = TextOffset>) -> impl Iterator<Item = TextOffset> {
    places.flat_map(|at| {
        let at = at.get();
        [at.saturating_sub(1), at, at.saturating_add(1), at ^ 0x1_0000].map(TextOffset::new)
    })
}

impl Counts {
    /// Whether a table was to be built: not, if an entry does not lie behind the one before it.
    fn is_built<T>(&mut self, table: &Result<T, TableError>, wrong: Option<TextOffset>) -> bool {
        match table {
            Ok(_) => assert_eq!(wrong, None, "it was built"),
            Err(error) => {
                let offset = wrong.unwrap_or_else(|| panic!("it was refused: {error}"));
                assert_eq!(*error, TableError::NotAscending { offset });
            }
        }
        self.built += usize::from(table.is_ok());
        self.refused += usize::from(table.is_err());
        table.is_ok()
    }

    fn traps(&mut self, traps: &[(TextOffset, TrapCode)], how: &[u8]) {
        let wrong = traps.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| pair[1].0);
        let table = TrapTable::build(traps);
        if !self.is_built(&table, wrong) {
            return;
        }
        let table = table.expect("it is built");
        assert!(table.view().iter().eq(traps.iter().copied()));
        assert_eq!(table.view().len(), traps.len());
        for at in beside(traps.iter().map(|&(at, _)| at)) {
            let scan = traps.iter().find(|&&(known, _)| known == at).map(|&(_, code)| code);
            assert_eq!(table.find(at), scan, "{at}");
        }
        damage(table.as_bytes(), how).into_iter().for_each(|bytes| _ = traps_in(&bytes));
    }

    fn functions(&mut self, functions: &[(TextRange, FuncKey)], how: &[u8]) {
        let mut end = TextOffset::new(0);
        let mut wrong = None;
        for (range, _) in functions {
            if wrong.is_none() && (range.start() < end || range.is_empty()) {
                wrong = Some(range.start());
            }
            end = range.end();
        }
        let table = FunctionTable::build(functions);
        if !self.is_built(&table, wrong) {
            return;
        }
        let table = table.expect("it is built");
        assert!(table.view().iter().eq(functions.iter().copied()));
        assert_eq!(table.view().len(), functions.len());
        for at in beside(functions.iter().flat_map(|(range, _)| [range.start(), range.end()])) {
            let scan = functions.iter().position(|(range, _)| range.contains(at));
            assert_eq!(table.view().position(at), scan, "{at}");
            assert_eq!(table.find(at), scan.map(|number| functions[number]), "{at}");
        }
        damage(table.as_bytes(), how).into_iter().for_each(|bytes| _ = functions_in(&bytes));
    }

    fn addresses(&mut self, entries: &[(TextOffset, Option<SourceOffset>)], how: &[u8]) {
        let wrong = entries.windows(2).find(|pair| pair[0].0 >= pair[1].0).map(|pair| pair[1].0);
        let table = AddressMap::build(entries);
        if !self.is_built(&table, wrong) {
            return;
        }
        let table = table.expect("it is built");
        assert!(table.view().iter().eq(entries.iter().copied()));
        assert_eq!(table.view().len(), entries.len());
        for at in beside(entries.iter().map(|&(at, _)| at)) {
            let scan = entries.iter().rfind(|&&(known, _)| known <= at).copied();
            assert_eq!(table.view().entry(at), scan, "{at}");
            assert_eq!(table.find(at), scan.and_then(|(_, source)| source), "{at}");
        }
        damage(table.as_bytes(), how).into_iter().for_each(|bytes| _ = addresses_in(&bytes));
    }
}
