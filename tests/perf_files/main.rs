//! The files for `perf`: read back as their formats say, and by `perf` itself.
#![cfg(target_os = "linux")]

#[path = "../handler_path/child.rs"]
mod child;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../guests/mod.rs"]
mod guests;
mod perf_itself;
#[path = "../skipped/mod.rs"]
mod skipped;
mod writers;

use guests::images::Layout;
use pcmap::perf::{JitDump, PerfError, PerfMap};
use pcmap::registry::{Engine, EngineCode, EngineConfig, FuncKey, FuncKind};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// What a function is called in the files.
type Named = (usize, usize, String);

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Two modules, in memory, and their functions as the compiler placed them.
fn loaded() -> (EngineCode, Vec<Named>) {
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let layout = Layout::with_signatures(2, 7, &[5]);
    let code = EngineCode::load(&engine, layout.image()).expect("memory");
    let start = code.text_range().start.address();
    let functions = layout.functions.iter();
    let mut named: Vec<_> =
        functions.map(|it| (start + it.start, it.end - it.start, it.name.clone())).collect();
    // The trampoline has no name.
    let (_, range) = layout.trampolines[0];
    let key = FuncKey::of_kind(FuncKind::ARRAY_TO_WASM, 0);
    let at = start + range.start().get() as usize;
    named.push((at, range.len() as usize, format!("function {key}")));
    (code, named)
}

#[test]
fn a_map_of_functions() {
    let (code, named) = loaded();
    let (mut map, path) = PerfMap::create(&folder("perf_map")).expect("a file");
    assert!(path.ends_with(format!("perf-{}.map", std::process::id())));
    map.add(code.text_range().start.address(), code.tables()).expect("written");
    let read = fs::read_to_string(&path).expect("text");
    let number = |word: &str| usize::from_str_radix(word, 16).expect("a hexadecimal number");
    let lines = read.lines().map(|line| {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().expect("three words");
        (number(word()), number(word()), word().to_owned())
    });
    assert_eq!(lines.collect::<Vec<_>>(), named);
}

/// What somebody else has put there under the name of a file is replaced, and nothing that it leads to is
/// written.
#[test]
fn a_link_in_the_place_of_a_file() {
    let (folder, process) = (folder("links"), std::process::id());
    let (map, dump) =
        (folder.join(format!("perf-{process}.map")), folder.join(format!("jit-{process}.dump")));
    let precious = folder.join("precious");
    fs::write(&precious, "precious").expect("a file");
    for link in [&map, &dump] {
        let _ = fs::remove_file(link);
        std::os::unix::fs::symlink(&precious, link).expect("a link");
    }
    let (code, named) = loaded();
    let start = code.text_range().start.address();
    PerfMap::create(&folder).expect("a file").0.add(start, code.tables()).expect("written");
    JitDump::create(&folder).expect("a file").0.close().expect("written");
    assert_eq!(fs::read_to_string(&precious).expect("text"), "precious");
    assert_eq!(fs::read_to_string(&map).expect("text").lines().count(), named.len());
    assert_eq!(fs::read(&dump).expect("bytes").len(), 40 + 16);
}

/// Reads numbers from bytes.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn word(&mut self) -> u32 {
        u32::from_ne_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn long(&mut self) -> u64 {
        u64::from_ne_bytes(self.take(8).try_into().expect("eight bytes"))
    }
}

#[test]
fn a_dump_of_code() {
    let (code, named) = loaded();
    let start = code.text_range().start.address();
    let (mut dump, path) = JitDump::create(&folder("jit_dump")).expect("a file");
    let maps = fs::read_to_string("/proc/self/maps").expect("text");
    let path_text = path.to_str().expect("text");
    let marker = maps.lines().find(|line| line.ends_with(path_text)).expect("it is mapped");
    assert!(marker.contains(" r-xp "), "{marker}");
    dump.load(start, code.text(), code.tables()).expect("written");
    dump.close().expect("written");

    let bytes = fs::read(&path).expect("bytes");
    let mut bytes = Bytes(&bytes);
    let header: Vec<_> = (0..6).map(|_| bytes.word()).collect();
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    assert_eq!(header, [0x4a69_5444, 1, 40, machine, 0, std::process::id()]);
    let (mut time, flags) = (bytes.long(), bytes.long());
    assert_eq!(flags, 0);
    let mut found = Vec::new();
    loop {
        let (kind, size, later) = (bytes.word(), bytes.word() as usize, bytes.long());
        assert!(later >= time, "time goes on");
        time = later;
        let mut record = Bytes(bytes.take(size - 16));
        if kind == 3 {
            assert!(record.0.is_empty() && bytes.0.is_empty(), "it is the last");
            break;
        }
        assert_eq!((kind, record.word()), (0, std::process::id()));
        record.word();
        let (vma, at, len) = (record.long(), record.long() as usize, record.long() as usize);
        assert_eq!((vma as usize, record.long() as usize), (at, found.len()));
        let name = record.0.split(|&byte| byte == 0).next().expect("a name");
        record.take(name.len() + 1);
        assert_eq!(record.0, &code.text()[at - start..at - start + len]);
        found.push((at, len, String::from_utf8_lossy(name).into_owned()));
    }
    assert_eq!(found, named);
}

#[test]
fn what_cannot_be_written() {
    let (code, _) = loaded();
    let start = code.text_range().start.address();
    let missing = folder("missing").join("nobody made this");
    assert_eq!(PerfMap::create(&missing).expect_err("no folder").kind(), ErrorKind::NotFound);
    assert_eq!(JitDump::create(&missing).expect_err("no folder").kind(), ErrorKind::NotFound);

    // Tables of another text, which is longer. Nothing is written of it.
    let (mut dump, path) = JitDump::create(&folder("another_text")).expect("a file");
    let text = &code.text()[..code.text().len() - 10];
    let error = dump.load(start, text, code.tables()).expect_err("too short");
    assert!(matches!(error, PerfError::AnotherText { text_len, .. } if text_len == text.len()));
    assert_eq!(fs::read(path).expect("bytes").len(), 40);

    // A place of ten bytes for more than that.
    let mut place = [0; 10];
    let error = PerfMap::new(&mut place[..]).add(start, code.tables()).expect_err("full");
    assert!(matches!(error, PerfError::System(error) if error.kind() == ErrorKind::WriteZero));
}
