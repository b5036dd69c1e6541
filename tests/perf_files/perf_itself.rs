#![expect(unsafe_code, reason = "calls machine code")]
//! What `perf` makes of the files, where there is one that can record: a guest that is sampled comes
//! out with its name, by way of the map and by way of the dump.
//!
//! The process that is recorded is this program again, which loads code, calls it for a while, unloads
//! it, and does the same with other code that may come to lie at the same place: the dump tells the
//! two apart. Of the second code the map tells, which has a function with a name of one letter.

use crate::folder;
use crate::guests::images::{Layout, call};
use crate::skipped::skipped;
use pcmap::perf::{JitDump, PerfMap};
use pcmap::registry::{Engine, EngineCode, EngineConfig};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs};

/// Tells the process that is recorded where the dump goes.
const DUMP: &str = "PCMAP_PERF_FOLDER";

/// The guests that run, of the first code and the second.
const RUNNING: [&str; 2] = ["m0_sum_to_5", "f"];

#[test]
fn perf_knows_guests_by_their_names() {
    if let Some(folder) = env::var_os(DUMP) {
        return recorded(&PathBuf::from(folder));
    }
    let folder = folder("perf_itself");
    let samples = folder.join("samples");
    let record = |what: &Path| {
        let mut record = Command::new("perf");
        record.args(["record", "-q", "-e", "cpu-clock", "-k", "mono", "-o"]).arg(&samples);
        record.arg("--").arg(what);
        record
    };
    // Whether there is a `perf` that records is found out with another program.
    match record(Path::new("true")).output() {
        Err(error) => return skipped(&format!("perf reads the files: no perf ({error})")),
        Ok(output) if !output.status.success() => {
            let why = text(&output.stderr);
            return skipped(&format!("perf reads the files: it does not record here: {why}"));
        }
        Ok(_) => {}
    }
    let mut record = record(&env::current_exe().expect("this program"));
    record.args(["--exact", "--nocapture", "perf_itself::perf_knows_guests_by_their_names"]);
    let output = record.env(DUMP, &folder).output().expect("there is perf");
    let told = text(&output.stdout);
    let map = told.lines().find_map(|line| line.split_once("the map is "));
    let (_, map) = map.unwrap_or_else(|| panic!("{told}{}", text(&output.stderr)));
    let by_map = report(&samples);
    fs::remove_file(map).expect("the map");
    // The first code is not in the map.
    assert!(share(&by_map, RUNNING[1]) > 20.0, "{by_map}");
    assert_eq!(share(&report(&samples), RUNNING[1]), 0.0, "it was the map");
    let injected = folder.join("injected");
    let mut inject = Command::new("perf");
    inject.args(["inject", "--jit", "-i"]).arg(&samples).arg("-o").arg(&injected);
    let output = inject.output().expect("there is perf");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let by_dump = report(&injected);
    for name in RUNNING {
        assert!(share(&by_dump, name) > 20.0, "{name} in {by_dump}");
    }
    println!("{by_dump}");
}

/// What is recorded.
fn recorded(folder: &Path) {
    let (mut dump, _) = JitDump::create(folder).expect("a file");
    let engine = Engine::new(EngineConfig::new()).expect("memory");
    let mut path = PathBuf::new();
    for (mut layout, name) in [Layout::new(1, 6), Layout::new(2, 6)].into_iter().zip(RUNNING) {
        let function = layout.functions.iter_mut().rfind(|function| function.guest == "sum_to");
        let function = function.expect("it is laid out");
        name.clone_into(&mut function.name);
        let function = function.start;
        let code = EngineCode::load(&engine, layout.image()).expect("memory");
        let start = code.text_range().start.address();
        dump.load(start, code.text(), code.tables()).expect("written");
        if name == RUNNING[1] {
            let (mut map, map_path) = PerfMap::create(Path::new("/tmp")).expect("a file");
            map.add(start, code.tables()).expect("written");
            path = map_path;
        }
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

/// How much of the samples, in percent, a report gives to the functions of this name.
fn share(report: &str, name: &str) -> f64 {
    let shares = report.lines().filter_map(|line| {
        let (share, rest) = line.trim().split_once('%')?;
        let (_, found) = rest.split_once("[.] ")?;
        (found.trim() == name).then(|| share.parse::<f64>().expect("a number"))
    });
    shares.sum()
}
