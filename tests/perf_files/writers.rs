#![expect(unsafe_code, reason = "limits the size of files, in children")]
//! Who writes to the files: one process, all of its JITs, and each of them whole records only.

use crate::{Bytes, child, folder, loaded};
use child::{Ending, in_child};
use pcmap::perf::{JitDump, PerfError, PerfMap};
use std::fs::{self, File, FileTimes};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The sizes of the whole records of a dump, behind its header: nothing but those is in it.
fn records(dump: &Path) -> Vec<usize> {
    let bytes = fs::read(dump).expect("a file");
    let mut bytes = Bytes(&bytes[40..]);
    let mut sizes = Vec::new();
    while !bytes.0.is_empty() {
        assert_eq!(bytes.word(), 0, "a load");
        let size = bytes.word() as usize;
        bytes.take(size - 8);
        sizes.push(size);
    }
    sizes
}

fn is_of_another_process(error: &PerfError) -> bool {
    matches!(error, PerfError::OtherProcess { process } if *process != std::process::id())
}

#[test]
fn a_child_makes_files_of_its_own() {
    let folder = folder("forked");
    let (code, named) = loaded();
    let start = code.text_range().start.address();
    let (mut map, map_path) = PerfMap::create(&folder).expect("a file");
    let (mut dump, dump_path) = JitDump::create(&folder).expect("a file");
    let mut add = || {
        map.add(start, code.tables())?;
        dump.load(start, code.text(), code.tables())
    };
    add().expect("written");
    let files = || (fs::read(&map_path).expect("bytes"), fs::read(&dump_path).expect("bytes"));
    let before = files();
    let ending = in_child(|| {
        assert!(is_of_another_process(&add().expect_err("a child")));
        let (mut own, own_path) = JitDump::create(&folder).expect("a file");
        assert_ne!(own_path, dump_path);
        own.load(start, code.text(), code.tables()).expect("written");
        assert_eq!(records(&own_path).len(), named.len());
        let (mut own, own_path) = PerfMap::create(&folder).expect("a file");
        own.add(start, code.tables()).expect("written");
        assert_eq!(fs::read_to_string(own_path).expect("text").lines().count(), named.len());
    });
    assert_eq!(ending, Ending::Status(0));
    assert!(files() == before, "the child wrote nothing to them");
    add().expect("written");
    assert_eq!(records(&dump_path).len(), 2 * named.len());
    let ending = in_child(|| {
        assert!(is_of_another_process(&dump.close().expect_err("a child")));
    });
    assert_eq!(ending, Ending::Status(0));
}

/// Another JIT writes its lines at places of its own, as V8 does.
#[test]
fn the_jits_of_a_process_share_the_map() {
    let folder = folder("shared_map");
    let path = folder.join(format!("perf-{}.map", std::process::id()));
    let (code, named) = loaded();
    let start = code.text_range().start.address();
    let mut other = File::create(&path).expect("a file");
    let mut maps = Vec::new();
    let mut others_lines = 0;
    for round in 0..3 {
        writeln!(other, "{round} 1 of the other").expect("written");
        others_lines += 1;
        let (map, found) = PerfMap::create(&folder).expect("a file");
        assert_eq!(found, path);
        maps.push(map);
        for map in &mut maps {
            map.add(start, code.tables()).expect("written");
            writeln!(other, "{round} 1 of the other").expect("written");
            others_lines += 1;
        }
    }
    let read = fs::read_to_string(&path).expect("text");
    let (theirs, ours): (Vec<_>, Vec<_>) =
        read.lines().partition(|line| line.ends_with(" 1 of the other"));
    assert_eq!((theirs.len(), ours.len()), (others_lines, 6 * named.len()));
    for line in ours {
        assert!(named.iter().any(|(at, len, name)| line == format!("{at:x} {len:x} {name}")));
    }
}

#[test]
fn a_dump_has_one_writer() {
    let folder = folder("one_writer");
    let (dump, path) = JitDump::create(&folder).expect("a file");
    assert_eq!(JitDump::create(&folder).expect_err("two").kind(), ErrorKind::AlreadyExists);
    dump.close().expect("written");
    assert_eq!(fs::read(path).expect("bytes").len(), 40 + 16, "as it was");
}

#[test]
fn what_an_earlier_process_left() {
    let folder = folder("left");
    let process = std::process::id();
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(1_000_000));
    for name in [format!("perf-{process}.map"), format!("jit-{process}.dump")] {
        let mut file = File::create(folder.join(name)).expect("a file");
        file.write_all(b"10 10 of another process").expect("written");
        file.set_times(old).expect("a time");
    }
    let (_map, path) = PerfMap::create(&folder).expect("a file");
    assert_eq!(fs::read(path).expect("bytes").len(), 0);
    let (_dump, path) = JitDump::create(&folder).expect("a file");
    assert_eq!(records(&path).len(), 0);
}

/// No file of this process grows beyond `most` bytes from here on.
fn limit(most: u64) {
    // SAFETY: ignores a signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the answer.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) }, 0);
    limit.rlim_cur = most.min(limit.rlim_max);
    // SAFETY: a limit below the highest.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
}

/// A disk that is full at any byte: whole records are there, and later it is told what is not.
#[test]
fn files_that_cannot_grow() {
    let (code, named) = loaded();
    let (start, count) = (code.text_range().start.address(), named.len());
    let folder = folder("full");
    let ending = in_child(|| {
        let (mut dump, dump_path) = JitDump::create(&folder).expect("a file");
        let (mut map, map_path) = PerfMap::create(&folder).expect("a file");
        dump.load(start, code.text(), code.tables()).expect("written");
        map.add(start, code.tables()).expect("written");
        let (whole, lines) = (records(&dump_path), fs::read_to_string(&map_path).expect("text"));
        let full = fs::metadata(&dump_path).expect("a file").len();
        fs::remove_file(&dump_path).expect("a file");
        for most in 0..40 {
            limit(most);
            JitDump::create(&folder).expect_err("no room for a header");
            assert!(!dump_path.exists());
        }
        for most in 40..full {
            limit(most);
            let (mut dump, _) = JitDump::create(&folder).expect("a file");
            let error = dump.load(start, code.text(), code.tables()).expect_err("no room");
            assert!(matches!(error, PerfError::System(_)), "{error}");
            let found = records(&dump_path);
            assert!(whole.starts_with(&found));
            let next: usize = whole[..found.len() + 1].iter().sum();
            assert!(40 + next as u64 > most, "there was no room for one more");
            limit(u64::MAX);
            let missing = (count - found.len()) as u64;
            let error = dump.load(start, code.text(), code.tables()).expect_err("not all is there");
            assert!(matches!(error, PerfError::Missing { functions } if functions == missing));
            assert_eq!(records(&dump_path), [&found[..], &whole].concat());
            let error = dump.close().expect_err("not all is there");
            assert!(matches!(error, PerfError::Missing { functions } if functions == missing));
            fs::remove_file(&dump_path).expect("a file");
        }
        for most in 0..lines.len() {
            fs::remove_file(&map_path).expect("a file");
            limit(most as u64);
            let (mut map, _) = PerfMap::create(&folder).expect("a file");
            let error = map.add(start, code.tables()).expect_err("no room");
            assert!(matches!(error, PerfError::System(_)), "{error}");
            let found = fs::read_to_string(&map_path).expect("text");
            let end = lines[..most].rfind('\n').map_or(0, |end| end + 1);
            assert_eq!(found, lines[..end]);
            limit(u64::MAX);
            let missing = (count - found.lines().count()) as u64;
            let error = map.add(start, code.tables()).expect_err("not all is there");
            assert!(matches!(error, PerfError::Missing { functions } if functions == missing));
            assert_eq!(fs::read_to_string(&map_path).expect("text"), found + &lines);
        }
    });
    assert_eq!(ending, Ending::Status(0));
}

/// A writer of one's own that takes a part of a line.
#[test]
fn a_torn_line_is_ended() {
    struct Full<'l>(&'l mut Vec<u8>, usize);
    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let taken = bytes.len().min(self.1);
            self.0.extend(&bytes[..taken]);
            self.1 = if taken < bytes.len() { usize::MAX } else { self.1 };
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (code, named) = loaded();
    let start = code.text_range().start.address();
    let mut written = Vec::new();
    let mut map = PerfMap::new(Full(&mut written, 0));
    map.add(start, code.tables()).expect_err("full");
    let error = map.add(start, code.tables()).expect_err("not all is there");
    assert!(matches!(error, PerfError::Missing { functions } if functions == named.len() as u64));
    assert_eq!(written.split(|&byte| byte == b'\n').count(), named.len() + 1);
}

/// `perf` leaves out names of under three bytes, and reads a line to its end.
#[test]
fn names_that_perf_can_read() {
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey};
    let names = ["f", "fg", "fgh", "", "line\nbreak", "zero\0byte", " leading"];
    let mut image = CodeImage::builder(vec![0xc3; names.len()]);
    for (index, name) in (0..).zip(names) {
        image.function(FuncKey::new(0, index), index..index + 1, name).expect("taken");
    }
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let code = EngineCode::load(&engine, image.finish().expect("sound")).expect("memory");
    let mut lines = Vec::new();
    PerfMap::new(&mut lines).add(0x1000, code.tables()).expect("written");
    let lines = String::from_utf8(lines).expect("text");
    let found: Vec<_> = lines.lines().map(|line| line.splitn(3, ' ').nth(2)).collect();
    let unnamed = format!("function {}", FuncKey::new(0, 3));
    let expected = ["f  ", "fg ", "fgh", &unnamed, "line?break", "zero?byte", " leading"];
    assert_eq!(found, expected.map(Some));
}
