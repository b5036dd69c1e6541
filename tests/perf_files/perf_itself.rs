#![expect(unsafe_code, reason = "calls machine code")]
//! What `perf` makes of the files, where there is one that can record: a guest that is sampled comes
//! out with its name, by way of the map and by way of the dump.
//!
//! The process that is recorded is this program again, which loads code, calls it for a while, unloads
//! it, and does the same with other code that may come to lie at the same place: the dump tells the
//! two apart.

use crate::folder;
use crate::guests::images::{Layout, call};
use pcmap::perf::{JitDump, PerfMap};
use pcmap::registry::{Engine, EngineCode, EngineConfig};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs};

/// Tells the process that is recorded where the dump goes.
const DUMP: &str = "PCMAP_PERF_FOLDER";

/// The guests that run, of the first code and the second.
const RUNNING: [&str; 2] = ["m0_sum_to_5", "m1_sum_to_11"];

#[test]
fn perf_knows_guests_by_their_names() {
    if let Some(folder) = env::var_os(DUMP) {
        return recorded(&PathBuf::from(folder));
    }
    let folder = folder("perf_itself");
    for old in fs::read_dir(&folder).expect("a folder").flatten() {
        let _ = fs::remove_file(old.path());
    }
    let samples = folder.join("samples");
    let mut record = Command::new("perf");
    record.args(["record", "-q", "-e", "cpu-clock", "-k", "mono", "-o"]).arg(&samples).arg("--");
    record.arg(env::current_exe().expect("this program"));
    record.args(["--exact", "--nocapture", "perf_itself::perf_knows_guests_by_their_names"]);
    let Ok(output) = record.env(DUMP, &folder).output() else {
        return println!("skipped: there is no perf");
    };
    let told = text(&output.stdout);
    let Some((_, map)) = told.lines().find_map(|line| line.split_once("the map is ")) else {
        return println!("skipped: perf does not record here: {}", text(&output.stderr));
    };
    let by_map = report(&samples);
    fs::remove_file(map).expect("the map");
    // The first code is gone from where the map, which was written for the second, says it was; but
    // that was not asked of a map.
    assert!(by_map.contains(RUNNING[1]), "{by_map}");

    assert!(!report(&samples).contains(RUNNING[1]), "it was the map");
    let injected = folder.join("injected");
    let mut inject = Command::new("perf");
    inject.args(["inject", "--jit", "-i"]).arg(&samples).arg("-o").arg(&injected);
    let output = inject.output().expect("there is perf");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let by_dump = report(&injected);
    for name in RUNNING {
        let line = by_dump.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {by_dump}"));
        let share = line.trim().split('%').next().and_then(|share| share.parse::<f64>().ok());
        assert!(share.is_some_and(|share| share > 20.0), "{line}");
    }
    println!("{by_dump}");
}

/// What is recorded.
fn recorded(folder: &Path) {
    let (mut dump, _) = JitDump::create(folder).expect("a file");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let mut path = PathBuf::new();
    for (layout, name) in [Layout::new(1, 6), Layout::new(2, 6)].into_iter().zip(RUNNING) {
        let code = EngineCode::load(&engine, layout.image()).expect("memory");
        let start = code.text_range().start.address();
        let (mut map, map_path) = PerfMap::create(Path::new("/tmp")).expect("a file");
        map.add(start, code.tables()).expect("written");
        dump.load(start, code.text(), code.tables()).expect("written");
        path = map_path;
        let function = layout.functions.iter().find(|function| function.name == name);
        let function = function.expect("it is laid out").start;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            // SAFETY: (`call`) 1. that guest, kept by `code`.
            unsafe { call(code.text()[function..].as_ptr(), 1_000_000, 0) };
        }
        drop(code);
        engine.code_map().synchronize();
    }
    dump.close().expect("written");
    println!("the map is {}", path.display());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The shares of all functions, with their names.
fn report(samples: &Path) -> String {
    let mut report = Command::new("perf");
    report.args(["report", "--stdio", "--sort", "dso,sym", "-i"]).arg(samples);
    let Output { stdout, stderr, status } = report.output().expect("there is perf");
    assert!(status.success(), "{}", text(&stderr));
    text(&stdout)
}
