//! The models of reclamation by eras (`spin/`), explored by spin, where that is installed.
//!
//! Each configuration is explored whole and must hold. Each weakening takes one rule of the protocol
//! away and must be caught, which shows that the assertions can fail. `spin/README.md` explains both.

mod skipped;

use skipped::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

struct Run {
    model: &'static str,
    /// `-D` flags of the model.
    flags: &'static [&'static str],
    holds: bool,
}

const fn holds(model: &'static str, flags: &'static [&'static str]) -> Run {
    Run { model, flags, holds: true }
}

const fn caught(model: &'static str, flags: &'static [&'static str]) -> Run {
    Run { model, flags, holds: false }
}

const RUNS: &[Run] = &[
    holds("eras", &[]),
    holds("eras", &["FALLBACK", "ERAS=2"]),
    holds("eras", &["READERS=2", "ERAS=2", "EPOCHS=1"]),
    holds("eras", &["WRITERS=2", "ERAS=2", "EPOCHS=1"]),
    holds("eras", &["RECLAIMERS=2", "ERAS=2", "EPOCHS=1"]),
    holds("eras", &["RECLAIMERS=2", "ERAS=2", "SPLIT", "LOST"]),
    caught("eras", &["NO_SECOND_LOOK"]),
    caught("eras", &["LOOK_AT_OBJECT"]),
    caught("eras", &["GRACE_2"]),
    caught("eras", &["OLDER_NOT_ASKED"]),
    caught("eras", &["EARLY_TAG"]),
    caught("eras", &["REUSE_UNDRAINED"]),
    caught("eras", &["NO_EPOCH_LOOK", "RECLAIMERS=2", "EPOCHS=2"]),
    caught("eras", &["EARLY_DRAIN", "RECLAIMERS=2", "ERAS=2", "EPOCHS=1"]),
    caught("eras", &["NO_STATE_LOOK", "RECLAIMERS=2", "EPOCHS=2"]),
    caught("eras", &["NO_ERA_LOOK", "RECLAIMERS=2", "SPLIT"]),
    caught("eras", &["PARK_AND_GO", "RECLAIMERS=2", "ERAS=2", "SPLIT", "LOST"]),
    holds("bound", &[]),
    holds("bound", &["READERS=2", "K=1", "TH=1", "SLACK=3"]),
    caught("bound", &["BOUND=7"]),
    caught("bound", &["NO_ERAS"]),
    caught("bound", &["ONLY_DUE"]),
    caught("bound", &["NOT_BORN"]),
    caught("bound", &["NOT_MARKED", "READERS=2", "K=1", "TH=1", "SLACK=3"]),
];

/// What a program prints; `None`: it is not installed.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let words = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&words).into_owned())
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("spin").join(name);
    fs::create_dir_all(&folder).expect("a place for temporary files");
    folder
}

/// Explores one configuration: whether an assertion failed, and how many states there are.
fn explore(run: &Run) -> (bool, u64) {
    let title = [&[run.model], run.flags].concat().join("-").replace('=', "");
    let folder = folder(&title);
    let name = format!("{}.pml", run.model);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("spin").join(&name);
    fs::copy(model, folder.join(&name)).expect("a place for temporary files");
    let flags = run.flags.iter().map(|flag| format!("-D{flag}"));
    let words = output(Command::new("spin").args(flags).args(["-a", &name]).current_dir(&folder));
    let words = words.expect("installed");
    assert!(folder.join("pan.c").exists(), "{title}: {words}");
    // A failure is found faster than the C compiler optimises.
    let optimise = if run.holds { "-O1" } else { "-O0" };
    // The last process first: the failures lie nearer.
    let options =
        [optimise, "-w", "-DSAFETY", "-DP_REVERSE", "-DMEMLIM=1800", "-o", "pan", "pan.c"];
    let words =
        output(Command::new("cc").args(options).current_dir(&folder)).expect("a C compiler");
    assert!(folder.join("pan").exists(), "{title}: {words}");
    let words = output(Command::new("./pan").args(["-m2000000", "-w24"]).current_dir(&folder));
    let words = words.expect("just compiled");
    fs::remove_dir_all(&folder).expect("no file is in use");
    let whole = !["out of memory", "max search depth", "Search not completed"]
        .iter()
        .any(|trouble| words.contains(trouble));
    let failed = words.contains("assertion violated");
    assert!(whole || failed, "{title}: {words}");
    assert!(failed || words.contains("errors: 0"), "{title}: {words}");
    let states = words.lines().find(|line| line.contains("states, stored"));
    let states = states.and_then(|line| line.split_whitespace().next()?.parse().ok());
    (failed, states.unwrap_or_else(|| panic!("{title}: {words}")))
}

#[test]
fn the_protocol_holds_and_each_weakening_is_caught() {
    let Some(version) = output(Command::new("spin").arg("-V")) else {
        return skipped("the model of eras: spin is not installed (see spin/README.md)");
    };
    let begin = Instant::now();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let explore_some = || {
        while let Some(run) = RUNS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let start = Instant::now();
            let (failed, states) = explore(run);
            let verdict = if failed { "caught" } else { "holds" };
            let line = format!("{} {}: {verdict}", run.model, run.flags.join(" "));
            println!("{line}, {states} states, {:.1?}", start.elapsed());
            if failed == run.holds {
                wrong.lock().expect("no panic").push(line);
            }
        }
    };
    // Two at a time: each has up to 0.5 GB.
    thread::scope(|scope| {
        scope.spawn(explore_some);
        explore_some();
    });
    println!("{}: {} runs, {:.1?}", version.trim(), RUNS.len(), begin.elapsed());
    let wrong = wrong.into_inner().expect("no panic");
    assert!(wrong.is_empty(), "not as expected:\n  {}", wrong.join("\n  "));
}

#[test]
fn each_weakening_of_a_model_is_run_and_has_a_line_in_the_readme() {
    let readme = include_str!("../spin/README.md");
    let eras = ("eras", include_str!("../spin/eras.pml"));
    let bound = ("bound", include_str!("../spin/bound.pml"));
    for (model, text) in [eras, bound] {
        let list = text.split("to be caught:").nth(1).and_then(|rest| rest.split("*/").next());
        let list = list.expect("a list of weakenings");
        for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
            let runs = |run: &&Run| run.model == model && !run.holds && run.flags.contains(&name);
            assert!(RUNS.iter().any(|run| runs(&run)), "{name} is never run");
            assert!(readme.contains(&format!("`{name}`")), "{name} is not in spin/README.md");
        }
    }
}
