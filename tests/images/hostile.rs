//! Files whose tables share bytes, so that what they describe is far longer than they are.

/// An ELF file of 64 bits, little-endian, being put together.
struct Writer {
    bytes: Vec<u8>,
    headers: Vec<[u64; 8]>,
    names: Vec<u8>,
}

/// Types of sections.
const CODE: u64 = 1;
const SYMBOLS: u64 = 2;
const STRINGS: u64 = 3;
const RELOCATIONS: u64 = 4;

/// Bytes of a header of a section, and of a symbol.
const HEADER: usize = 64;
const SYMBOL: usize = 24;

impl Writer {
    fn new() -> Self {
        let mut writer = Self { bytes: vec![0; 64], headers: Vec::new(), names: vec![0] };
        writer.section("", 0, 0..0, [0; 3]);
        writer
    }

    fn append(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend(bytes);
        start..self.bytes.len()
    }

    /// A section of these bytes of the file; gives its number. Last: address, link, info.
    fn section(
        &mut self,
        name: &str,
        kind: u64,
        bytes: std::ops::Range<usize>,
        [address, link, info]: [u64; 3],
    ) -> u64 {
        let offset = self.names.len();
        self.names.extend(name.as_bytes());
        self.names.push(0);
        self.headers.push([
            offset as u64 | kind << 32,
            if kind == CODE { 6 } else { 0 },
            address,
            bytes.start as u64,
            bytes.len() as u64,
            link | info << 32,
            1,
            if kind == SYMBOLS { SYMBOL as u64 } else { 0 },
        ]);
        self.headers.len() as u64 - 1
    }

    /// Symbols of functions: name, start, size. All in this section.
    fn symbols(
        &mut self,
        section: u64,
        strings: u64,
        symbols: impl Iterator<Item = (usize, usize, usize)>,
    ) {
        let mut table = vec![0; SYMBOL];
        for (name, start, size) in symbols {
            table.extend((name as u32).to_le_bytes());
            table.extend([0x12, 0]);
            table.extend((section as u16).to_le_bytes());
            table.extend((start as u64).to_le_bytes());
            table.extend((size as u64).to_le_bytes());
        }
        let bytes = self.append(&table);
        self.section(".symtab", SYMBOLS, bytes, [0, strings, 1]);
    }

    /// The file: linked or an object file, and by its header of wasmtime. The names of sections may be
    /// elsewhere than where this has put them.
    fn finish(mut self, is_linked: bool, names: Option<std::ops::Range<usize>>) -> Vec<u8> {
        let names = names.unwrap_or_else(|| {
            let names = [&self.names[..], b".shstrtab\0"].concat();
            self.append(&names)
        });
        let last = self.section(".shstrtab", STRINGS, names, [0; 3]);
        let start = self.bytes.len();
        let count = self.headers.len();
        self.headers[0][4] = count as u64;
        self.headers[0][5] = last;
        let words = self.headers.iter().flatten().flat_map(|word| word.to_le_bytes());
        self.bytes.extend(words);
        self.bytes[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 200]);
        let kind: u16 = if is_linked { 3 } else { 1 };
        self.bytes[16..18].copy_from_slice(&kind.to_le_bytes());
        self.bytes[18..20].copy_from_slice(&62_u16.to_le_bytes());
        self.bytes[20] = 1;
        self.bytes[40..48].copy_from_slice(&(start as u64).to_le_bytes());
        self.bytes[52..54].copy_from_slice(&64_u16.to_le_bytes());
        self.bytes[58..60].copy_from_slice(&(HEADER as u16).to_le_bytes());
        // The counts are in the first header: there may be more than 16 bits tell.
        self.bytes[62..64].copy_from_slice(&u16::MAX.to_le_bytes());
        self.bytes
    }
}

/// Files of about `len` bytes, with names.
pub(crate) fn files(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let half = len / 2;
    let many = half / SYMBOL;
    // Of two in a chain of the same text, each takes what the other has not.
    let named = |name: &dyn Fn(usize) -> usize, start: &dyn Fn(usize) -> usize, end: Option<u8>| {
        let mut file = Writer::new();
        let text = file.append(&vec![0xc3; many]);
        let text = file.section(".text", CODE, text, [0; 3]);
        let mut strings = vec![b'a'; half];
        strings.extend(end);
        let strings = file.append(&strings);
        let strings = file.section(".strtab", STRINGS, strings, [0; 3]);
        file.symbols(text, strings, (0..many).map(|i| (name(i), start(i), 1)));
        file.finish(true, None)
    };
    let one_each = |i| i;
    let mut files = vec![
        ("each function has the same long name", named(&|_| 0, &one_each, Some(0))),
        ("names end together", named(&|i| i, &one_each, Some(0))),
        ("one function has all names", named(&|i| i, &|_| 0, Some(0))),
        ("one function has one long name many times", named(&|_| 0, &|_| 0, Some(0))),
        ("names that do not end", named(&|_| 0, &one_each, None)),
        (
            "short names, each of them in the table once",
            named(&|i| half - i % 20, &one_each, Some(0)),
        ),
    ];

    let mut file = Writer::new();
    let names = file.append(&[&vec![b'.'; half][..], &[0]].concat());
    for _ in 0..half / HEADER {
        file.section("", STRINGS, 0..0, [0; 3]);
    }
    file.headers.iter_mut().for_each(|header| header[0] &= !0xffff_ffff);
    files.push(("each section has the same long name", file.finish(true, Some(names))));

    for is_linked in [true, false] {
        let mut file = Writer::new();
        let text = file.append(&vec![0xc3; half]);
        for i in 0..half / HEADER {
            let code = file.section(".text", CODE, text.clone(), [i as u64, 0, 0]);
            file.section(".rela", RELOCATIONS, text.clone(), [0, 0, code]);
        }
        files.push(("sections of the same bytes", file.finish(is_linked, None)));
    }

    // Tables of an artifact with as many entries as can be.
    for what in [".wasmtime.traps", ".wasmtime.addrmap"] {
        let mut file = Writer::new();
        let text = file.append(&vec![0xc3; half]);
        let text = file.section(".text", CODE, text, [0; 3]);
        let strings = file.append(b"wasm[0]::function[0]\0");
        let strings = file.section(".strtab", STRINGS, strings, [0; 3]);
        file.symbols(text, strings, [(0, 0, half)].into_iter());
        let table = packed(half * 9 / 10, what == ".wasmtime.traps");
        let table = file.append(&table);
        file.section(what, CODE + 6, table, [0; 3]);
        files.push(("a table of as many entries as bytes", file.finish(true, None)));
    }

    // One table is both.
    let mut file = Writer::new();
    let text = file.append(&[0xc3]);
    let text = file.section(".text", CODE, text, [0; 3]);
    let strings = file.append(&[0]);
    let strings = file.section(".strtab", STRINGS, strings, [0; 3]);
    file.symbols(text, strings, [(0, 0, 1)].into_iter());
    let table = file.append(&packed(len, true));
    for name in [".wasmtime.traps", ".wasmtime.addrmap"] {
        file.section(name, CODE + 6, table.clone(), [0; 3]);
    }
    files.push(("a table that is two", file.finish(true, None)));

    // Trampolines, each with a key of its own.
    let mut file = Writer::new();
    let text = file.append(&vec![0xc3; many]);
    let text = file.section(".text", CODE, text, [0; 3]);
    let mut strings = Vec::new();
    let mut places = Vec::new();
    for i in 0..half / (SYMBOL + 45) {
        places.push((strings.len(), i, 1));
        strings.extend(format!("signatures[{i}]::wasm_to_array_trampoline\0").into_bytes());
    }
    let strings = file.append(&strings);
    let strings = file.section(".strtab", STRINGS, strings, [0; 3]);
    file.symbols(text, strings, places.into_iter());
    files.push(("trampolines", file.finish(true, None)));

    // As small as functions can be.
    let mut file = Writer::new();
    let symbols = len / (SYMBOL + 1);
    let text = file.append(&vec![0xc3; symbols]);
    let text = file.section(".text", CODE, text, [0; 3]);
    let strings = file.append(&[0]);
    let strings = file.section(".strtab", STRINGS, strings, [0; 3]);
    file.symbols(text, strings, (0..symbols).map(|i| (0, i, 1)));
    files.push(("functions of a byte", file.finish(true, None)));
    files
}

/// A table of an artifact, of entries a byte apart, in as few bytes as can be.
fn packed(entries: usize, have_codes: bool) -> Vec<u8> {
    let blocks = entries.div_ceil(128);
    let mut table = (entries as u32).to_le_bytes().to_vec();
    table.extend((blocks as u32).to_le_bytes());
    let mut bodies = Vec::new();
    for block in 0..blocks {
        table.extend((block as u32 * 128).to_le_bytes());
        table.extend((bodies.len() as u32).to_le_bytes());
        bodies.extend(have_codes.then_some(1));
        let count = (entries - block * 128).min(128);
        // Distances are doubled; of sources 1 says that there is none.
        let without = u8::from(!have_codes);
        bodies.extend((0..count).map(|i| if i == 0 { without } else { 2 + without }));
    }
    table.extend(bodies);
    table
}
