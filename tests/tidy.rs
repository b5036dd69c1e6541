//! The source tree keeps the rules that no compiler checks; each rule is first shown to bite.
//!
//! Rules look at code without its comments, line by line, and report every offending line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's path from the root of the tree, and its text.
type Source = (String, String);

/// All files below `folder` whose names end with `ending`; none if there is no such folder.
fn files(folder: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(read(path));
            }
        }
    }
    found.sort();
    found
}

fn read(path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned();
    (name, text)
}

fn sources() -> Vec<Source> {
    let found = files("src", ".rs");
    assert!(found.len() >= 10, "the source tree is not where it should be");
    found
}

/// The text without its unit tests, which stand at the end.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or(text)
}

/// The lines of code with their numbers, comments cut off.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(number, line)| {
        let code = line.split("//").next().unwrap_or("").trim_end();
        (!code.trim().is_empty()).then_some((number + 1, code))
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands in `line` as a whole word (or path).
fn places(line: &str, word: &str) -> Vec<usize> {
    line.match_indices(word)
        .filter(|(at, _)| !line[..*at].ends_with(is_word))
        .filter(|(at, found)| !line[at + found.len()..].starts_with(is_word))
        .map(|(at, _)| at)
        .collect()
}

/// What follows each `prefix` in the code: the identifiers behind `edge::`, say.
fn names_behind(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (number, line) in code(text) {
        for (at, found) in line.match_indices(prefix) {
            if !line[..at].ends_with(is_word) {
                let name: String =
                    line[at + found.len()..].chars().take_while(|&c| is_word(c)).collect();
                names.push((number, name));
            }
        }
    }
    names
}

/// Lines that mention one of `words`.
fn mentions((name, text): &Source, words: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for (number, line) in code(text) {
        for word in words {
            if !places(line, word).is_empty() {
                offenders.push(format!("{name}:{number}: `{word}`: {}", line.trim()));
            }
        }
    }
    offenders
}

#[track_caller]
fn none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

// The machine is reached through one door.

const MACHINE: &[&str] =
    &["core::sync::atomic", "std::sync::atomic", "arc_swap", "crossbeam_epoch", "libc", "asm!"];

fn past_the_door(source: &Source) -> Vec<String> {
    let (name, _) = source;
    if name == "src/sync.rs" || name.starts_with("src/sys/") {
        return Vec::new();
    }
    mentions(source, MACHINE)
}

/// What the index stands on: the door to the machine, addresses, and memory that may not be there.
const GROUND: [&str; 3] = ["sync", "address_range", "memory"];

/// What the index takes from elsewhere than its ground, its own files, and what the language
/// brings along without atomics. (`thiserror` writes the text of an error; `abort` ends a count
/// that is about to wrap.)
fn foreign_to_the_index(source: &Source) -> Vec<String> {
    let (name, text) = source;
    let text = shipped(text);
    let mut offenders = mentions(source, &["Ordering", "std::sync", "core::sync", "std::thread"]);
    for (number, found) in names_behind(text, "crate::") {
        if !GROUND.contains(&found.as_str()) {
            offenders.push(format!("{name}:{number}: `crate::{found}`"));
        }
    }
    for (number, found) in names_behind(text, "std::") {
        if found != "alloc" && found != "process" {
            offenders.push(format!("{name}:{number}: `std::{found}`"));
        }
    }
    for (number, line) in code(text) {
        let Some(import) = line.trim().strip_prefix("use ") else { continue };
        let first: String = import.chars().take_while(|&c| is_word(c)).collect();
        let own = files_of_the_island().contains(&first);
        if !own && !["crate", "super", "self", "core", "std"].contains(&first.as_str()) {
            offenders.push(format!("{name}:{number}: `use {first}`"));
        }
    }
    offenders
}

fn files_of_the_island() -> BTreeSet<String> {
    let files = files("src/index", ".rs").into_iter().chain(files("src/memory", ".rs"));
    let stem = |name: String| Some(Path::new(&name).file_stem()?.to_str()?.to_owned());
    files.filter_map(|(name, _)| stem(name)).collect()
}

#[test]
fn the_machine_is_reached_through_sync() {
    let bad = |name: &str, text: &str| past_the_door(&(name.into(), text.into()));
    assert_eq!(bad("src/a.rs", "use core::sync::atomic::AtomicBool;").len(), 1);
    assert_eq!(bad("src/index/a.rs", "let x = 1;\nuse crossbeam_epoch::pin; // pins").len(), 1);
    assert_eq!(bad("src/a.rs", "// core::sync::atomic is not used").len(), 0);
    assert_eq!(bad("src/sync.rs", "use core::sync::atomic::AtomicBool;").len(), 0);
    let offenders: Vec<_> = sources().iter().flat_map(past_the_door).collect();
    none("only src/sync.rs and src/sys/ may name atomics and their crates", &offenders);
}

#[test]
fn the_index_imports_its_ground_only() {
    let bad = |text: &str| foreign_to_the_index(&("src/index/a.rs".into(), text.into())).len();
    assert_eq!(bad("use crate::stats::Stats;"), 1);
    assert_eq!(bad("let x = load(Ordering::Relaxed);"), 1);
    assert_eq!(bad("use std::collections::BTreeMap;"), 1);
    assert_eq!(bad("use libc::c_int;"), 1);
    assert_eq!(bad("    std::thread::sleep(x);"), 2);
    assert_eq!(bad("use core::ptr;\n#[cfg(test)]\nmod tests {\n    use std::rc::Rc;\n}"), 0);
    assert_eq!(bad("use crate::sync::edge; // Ordering [leave]: Release\nuse super::entry;"), 0);
    assert_eq!(bad("use std::alloc::Layout;\nuse tree::Tree;\nuse core::ptr;"), 0);
    let index = files("src/index", ".rs");
    assert!(index.len() >= 5, "the index is not where it should be");
    let root = index.iter().find(|(name, _)| name == "src/index/mod.rs");
    let (_, root) = root.expect("the index has a root");
    let is_test = |name: &str| {
        let name = name.trim_start_matches("src/index/").trim_end_matches(".rs");
        root.contains(&format!("#[cfg(test)]\nmod {name};"))
    };
    assert!(is_test("src/index/invariants.rs") && !is_test("src/index/tree.rs"));
    let index = index.iter().filter(|(name, _)| !is_test(name));
    let ground = files("src", ".rs")
        .into_iter()
        .filter(|(name, _)| name == "src/address_range.rs" || name.starts_with("src/memory/"));
    let ground: Vec<_> = ground.collect();
    let offenders: Vec<_> = index.chain(&ground).flat_map(foreign_to_the_index).collect();
    none("src/index imports its ground, its own files, and the plain part of core", &offenders);
}

// Edges: declared, used, and in the ledger.

/// The edges and fences of `src/edges.rs`, with their orderings.
fn declared(text: &str) -> BTreeMap<String, String> {
    let mut edges = BTreeMap::new();
    for (_, line) in code(text) {
        let Some((name, rest)) = line.split_once('=') else { continue };
        if let Some((ordering, _)) = rest.split_once(';') {
            edges.insert(name.trim().to_owned(), ordering.trim().to_owned());
        }
    }
    edges
}

fn edges() -> BTreeMap<String, String> {
    let edges = declared(&read(root().join("src/edges.rs")).1);
    assert!(edges.len() >= 10, "src/edges.rs is not written as it is read here: {edges:?}");
    edges
}

/// The files with orderings of their own, all of which the model package compiles.
fn modelled() -> Vec<Source> {
    let mut found = files("src/index", ".rs");
    found.extend(files("src/memory", ".rs"));
    found.push(read(root().join("src/registry/claim.rs")));
    found
}

/// Edges that nobody asks for, and askings for edges that there are not.
fn edges_astray(declared: &BTreeMap<String, String>, index: &[Source]) -> Vec<String> {
    let mut unused: BTreeSet<_> = declared.keys().cloned().collect();
    let mut offenders = Vec::new();
    for (name, text) in index {
        for (number, edge) in names_behind(text, "edge::") {
            unused.remove(&edge);
            if !declared.contains_key(&edge) {
                offenders.push(format!("{name}:{number}: no edge `{edge}` in src/edges.rs"));
            }
        }
    }
    offenders.extend(unused.iter().map(|edge| format!("src/edges.rs: `{edge}` is used nowhere")));
    offenders
}

#[test]
fn every_edge_is_used_and_exists() {
    let some =
        declared("// leave = Acquire;\nedges! {\n leave = Release; // pairs\n}\nscan = Acquire;");
    assert_eq!(some.get("leave").map(String::as_str), Some("Release"));
    assert_eq!(some.len(), 2);
    let index = |text: &str| [("src/index/a.rs".to_owned(), text.to_owned())];
    let used = "x.store(1, edge::leave()); // edge::other\nedge::scan()";
    assert_eq!(edges_astray(&some, &index(used)).len(), 0);
    assert_eq!(edges_astray(&some, &index("edge::leave() edge::scan() edge::nothing()")).len(), 1);
    assert_eq!(edges_astray(&some, &index("edge::scan();")).len(), 1);

    let modelled = modelled();
    none("edges are declared once and used", &edges_astray(&edges(), &modelled));
    let outside: Vec<_> =
        sources().into_iter().filter(|source| !modelled.contains(source)).collect();
    let used: Vec<_> = outside.iter().flat_map(|(_, text)| names_behind(text, "edge::")).collect();
    assert!(used.is_empty(), "edges belong to what the models compile: {used:?}");
}

/// The comment before a use names the edge, so that the argument is found where it is needed:
/// edges explained nowhere.
fn unexplained(declared: &BTreeMap<String, String>, index: &[Source]) -> Vec<String> {
    let said: String = index.iter().map(|(_, text)| text.as_str()).collect();
    // These need no argument beyond their declaration: a failed exchange is repeated, counters
    // order nothing, and what is `below` in a stack is seen by way of [put].
    let plain = ["lost", "statistic", "claim_domain", "below"];
    let explained = |edge: &&String| {
        plain.contains(&edge.as_str())
            || said.contains(&format!("Ordering [{edge}]"))
            || said.contains(&format!("[{edge}]"))
    };
    declared.keys().filter(|edge| !explained(edge)).map(|edge| format!("`{edge}`")).collect()
}

#[test]
fn every_edge_is_explained_where_it_is_used() {
    let index = [("a".to_owned(), "// Ordering [leave]: Release; pairs with [scan].".to_owned())];
    assert_eq!(unexplained(&declared("leave = Release;\nscan = Acquire;"), &index).len(), 0);
    assert_eq!(unexplained(&declared("leave = Release;\nenter = Acquire;"), &index).len(), 1);
    none("a comment explains each edge", &unexplained(&edges(), &modelled()));
}

/// A row of the ledger: edge, ordering, and the last column.
struct Row {
    edge: String,
    ordering: String,
    model: String,
}

fn rows(ledger: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in ledger.lines() {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [first, ordering, .., model] = cells.as_slice() else { continue };
        let edge = first.strip_prefix('`').and_then(|edge| edge.strip_suffix('`'));
        if let (true, Some(edge)) = (line.starts_with("| `"), edge) {
            rows.push(Row {
                edge: edge.to_owned(),
                ordering: ordering.trim_matches('`').to_owned(),
                model: (*model).to_owned(),
            });
        }
    }
    rows
}

/// Words in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Where the ledger and the edges disagree; `models` are the names of the model tests.
fn ledger_errors(
    edges: &BTreeMap<String, String>,
    ledger: &str,
    models: &BTreeSet<String>,
) -> Vec<String> {
    let mut missing: BTreeSet<_> = edges.keys().cloned().collect();
    let mut offenders = Vec::new();
    for Row { edge, ordering, model } in rows(ledger) {
        let first = missing.remove(&edge);
        match edges.get(&edge) {
            None => offenders.push(format!("`{edge}` has a row, and is not in src/edges.rs")),
            Some(_) if !first => offenders.push(format!("`{edge}` has two rows")),
            Some(declared) if *declared != ordering => offenders.push(format!(
                "`{edge}` is {declared} in src/edges.rs and {ordering} in the ledger"
            )),
            Some(_) => {}
        }
        let named = quoted(&model).any(|name| models.contains(name));
        let reason = model.strip_prefix("none:").is_some_and(|reason| reason.trim().len() >= 10);
        if !named && !reason {
            offenders.push(format!(
                "`{edge}`: `{model}` names no model test, and is not `none:` with a reason"
            ));
        }
        for name in quoted(&model).filter(|name| name.chars().all(is_word)) {
            if !models.contains(name) && !edges.contains_key(name) {
                offenders.push(format!("`{edge}`: there is no model test `{name}`"));
            }
        }
    }
    offenders.extend(missing.iter().map(|edge| format!("`{edge}` has no row")));
    offenders
}

/// The names of functions: model tests may stand in the middle of a macro.
fn functions(text: &str) -> impl Iterator<Item = String> {
    names_behind(text, "fn ").into_iter().map(|(_, name)| name)
}

#[test]
fn the_ledger_has_every_edge() {
    let some = declared("leave = Release;\nscan = Acquire;");
    let models = BTreeSet::from(["a_reader_leaves".to_owned()]);
    let check = |leave: &str, scan: &str| {
        let head =
            "| edge | ordering | kind | where | partner | model |\n|---|---|---|---|---|---|";
        ledger_errors(&some, &format!("{head}\n{leave}\n{scan}\n"), &models).len()
    };
    let leave = "| `leave` | Release | store | f | `scan` | `a_reader_leaves` |";
    let scan = "| `scan` | Acquire | load | f | `leave` | none: loom keeps such loads in order |";
    assert_eq!(check(leave, scan), 0);
    assert_eq!(check(leave, ""), 1, "a row is missing");
    assert_eq!(check(leave, leave), 2, "one row twice, another missing");
    assert_eq!(check(leave, &scan.replace("Acquire", "Relaxed")), 1, "another ordering");
    assert_eq!(check(leave, &scan.replace("none: loom keeps such loads in order", "none:")), 1);
    assert_eq!(check(&leave.replace("a_reader_leaves", "gone"), scan), 2, "no such model");
    let extra = format!("{scan}\n{}", scan.replace("`scan`", "`stray`"));
    assert_eq!(check(leave, &extra), 1, "a row without an edge");

    let (_, ledger) = read(root().join("docs/ORDERINGS.md"));
    let models = files("loom-tests/tests", ".rs");
    let models: BTreeSet<_> = models.iter().flat_map(|(_, text)| functions(text)).collect();
    none("docs/ORDERINGS.md tells of every edge", &ledger_errors(&edges(), &ledger, &models));
}

// Nothing waits, and nothing is lazy or per thread.

const WAITING: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "Once",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "LazyCell",
    "Barrier",
    "spin_loop",
    "yield_now",
    "thread::park",
    "thread_local!",
    "default_collector",
];

#[test]
fn nothing_waits_or_is_lazy() {
    let bad = |text: &str| mentions(&("src/a.rs".into(), text.into()), WAITING).len();
    assert_eq!(bad("static X: Mutex<u8> = Mutex::new(0);"), 1);
    assert_eq!(bad("std::hint::spin_loop();\nthread_local! { }"), 2);
    assert_eq!(bad("// no Mutex here\nlet parked = spin_looped;"), 0);
    let sources = sources();
    // Three places know something per thread, its number, whether it is destroying values already, and
    // whether it is prepared for guests: plain numbers and pointers, without initialisation or
    // destructor, and not on a handler's path.
    let per_thread = |offender: &String| {
        let known =
            ["src/sys/destroying.rs:", "src/sys/thread.rs:", "src/sys/signals/own_thread.rs:"];
        let known = known.iter().any(|file| offender.starts_with(file));
        !(known && offender.contains("`thread_local!`"))
    };
    let offenders = sources.iter().flat_map(|source| mentions(source, WAITING));
    let offenders: Vec<_> = offenders.filter(per_thread).collect();
    none("no locks, no spinning, no lazy or per-thread state", &offenders);
    // `synchronize` and `wait` sleep between two looks, by way of `crate::sync`; nobody else may.
    assert_eq!(
        mentions(&("src/a.rs".into(), "pause(length);\nlibc::poll(x);".into()), SLEEPS).len(),
        2
    );
    let doors = ["src/code_map.rs", "src/sys/clock.rs", "src/sync.rs"];
    let others = sources.iter().filter(|(name, _)| !doors.contains(&name.as_str()));
    let offenders: Vec<_> = others.flat_map(|source| mentions(source, SLEEPS)).collect();
    none("only `wait_for` sleeps", &offenders);
    let (_, map) = sources.iter().find(|(name, _)| name == "src/code_map.rs").expect("the map");
    assert_eq!(code(map).map(|(_, line)| places(line, "pause").len()).sum::<usize>(), 2);
}

/// What sleeps, or waits for another thread, by the names that the crate and the C library have for it.
const SLEEPS: &[&str] = &[
    "pause",
    "sleep",
    "usleep",
    "nanosleep",
    "clock_nanosleep",
    "sched_yield",
    "poll",
    "ppoll",
    "select",
    "pselect",
    "FUTEX_WAIT",
    "sigsuspend",
    "sigtimedwait",
    "sem_wait",
    "pthread_mutex_lock",
    "pthread_join",
];

/// Functions of the index with a loop that looks at what others change, each with the reason why it ends.
const LOOKS_AGAIN: &[(&str, &str)] = &[
    (
        "enter_anew",
        "only if an object was added meanwhile: at most eleven times in the life of a map",
    ),
    ("follow", "only if another thread decided, or the process was forked meanwhile"),
];

/// Loops that do nothing between two looks; and loops that look at what other threads change, where neither a
/// comment says that they are "lock-free" or "wait-free" nor the list above has them. (A walk along a
/// list, `while let`, ends with the list.)
fn spins((name, text): &Source) -> Vec<String> {
    const ABOVE: usize = 10;
    const LOOKS: &[&str] = &[".load(", ".compare_exchange", ".swap(", ".objects()", ".word()"];
    let looks = |line: &str| LOOKS.iter().any(|look| line.contains(look));
    let lines: Vec<_> = shipped(text).lines().collect();
    let mut offenders = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let head = line.split("//").next().unwrap_or("").trim();
        let repeats = ["loop", "while"].iter().any(|word| !places(head, word).is_empty());
        if !repeats || !head.ends_with(['{', '}']) {
            continue;
        }
        let depth = |line: &str| line.len() - line.trim_start().len();
        let inside = |other: &&&str| other.trim().is_empty() || depth(other) > depth(line);
        let body: Vec<_> = lines[at + 1..].iter().take_while(inside).copied().collect();
        let does_something = |line: &&str| !matches!(line.trim().get(..2), None | Some("//"));
        let is_endless = head.starts_with("loop") || looks(head);
        let is_bare = is_endless && !body.iter().any(does_something);
        let is_walk = head.contains("while let") && !looks(head);
        let has_look = !is_walk && body.iter().copied().chain([head]).any(looks);
        let above = &lines[at.saturating_sub(ABOVE)..at];
        let is_argued = above.iter().chain(&body).any(|line| {
            let line = line.to_lowercase();
            line.contains("//") && (line.contains("lock-free") || line.contains("wait-free"))
        });
        let function = lines[..at].iter().rev().find_map(|line| line.split_once("fn "));
        let function: Option<String> =
            function.map(|(_, name)| name.chars().take_while(|&c| is_word(c)).collect());
        let is_known = LOOKS_AGAIN.iter().any(|(known, _)| function.as_deref() == Some(known));
        if is_bare || has_look && !is_argued && !is_known {
            offenders.push(format!("{name}:{}: {head}", at + 1));
        }
    }
    offenders
}

#[test]
fn no_loop_spins() {
    let bad = |text: &str| spins(&("src/a.rs".into(), text.into())).len();
    assert_eq!(bad("    while !flag.load(x) {}"), 1);
    assert_eq!(bad("    loop {\n        // nothing\n    }"), 1);
    assert_eq!(
        bad("    loop {\n        if flag.load(x) {\n            break;\n        }\n    }"),
        1
    );
    assert_eq!(bad("    // Lock-free.\n    loop {\n        a.compare_exchange(x);\n    }"), 0);
    assert_eq!(bad("    while let Some(next) = list.pop() {\n        f(next);\n    }"), 0);
    let offenders: Vec<_> = sources().iter().flat_map(spins).collect();
    none("a loop that looks at what others change says why it ends", &offenders);
}

// Unsafe code has reasons; files can be read in a sitting.

/// Files with `unsafe` in their code that do not say why, or say it in no words.
fn unexplained_unsafe((name, text): &Source) -> Option<String> {
    // Not the word as a part of a name with hyphens, in a string.
    let opens =
        |line: &str| places(line, "unsafe").iter().any(|at| !line[at + 6..].starts_with('-'));
    let unsafe_line = code(text).find(|(_, line)| opens(line))?;
    let flat: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = flat.split("expect(").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix("unsafe_code")?.trim_start_matches([',', ' ']);
        rest.strip_prefix("reason = \"")?.split('"').next()
    });
    let explained = reason.into_iter().any(|reason| reason.len() >= 5);
    let (number, line) = unsafe_line;
    (!explained).then(|| format!("{name}:{number}: {}", line.trim()))
}

fn too_long((name, text): &Source, most: usize) -> Option<String> {
    let lines = text.lines().count();
    (lines > most).then(|| format!("{name} has {lines} lines, more than {most}"))
}

#[test]
fn unsafe_code_has_a_reason() {
    let bad = |text: &str| unexplained_unsafe(&("a.rs".into(), text.into())).is_some();
    assert!(bad("fn f() { unsafe { g() } }"));
    assert!(bad("#![expect(unsafe_code, reason = \"\")]\nunsafe impl Send for X {}"));
    assert!(bad("#![expect(dead_code, reason = \"for later, for later\")]\nunsafe { g() }"));
    assert!(!bad("#![expect(unsafe_code, reason = \"follows raw pointers\")]\nunsafe { g() }"));
    assert!(!bad(
        "#![expect(\n    unsafe_code,\n    reason = \"raw pointers\"\n)]\nunsafe { g() }"
    ));
    assert!(!bad("let name = \"unsafe-intrinsics\";"));
    assert!(bad("let name = \"unsafe-intrinsics\"; unsafe { g() }"));
    assert!(!bad("// unsafe in words only\nlet unsafely = 1;"));
    let everything = ["src", "tests", "benches", "examples", "loom-tests/src", "loom-tests/tests"];
    let all = everything.iter().flat_map(|folder| files(folder, ".rs"));
    // These talk about it, in strings.
    let talk = ["tests/tidy.rs", "tests/bad_input_table.rs", "tests/public_items/mod.rs"];
    let all = all.filter(|(name, _)| !talk.contains(&name.as_str()));
    let offenders: Vec<_> = all.filter_map(|source| unexplained_unsafe(&source)).collect();
    none("files that open unsafe code say why", &offenders);
}

#[test]
fn files_can_be_read_in_a_sitting() {
    let lines = |count: usize| ("a.rs".to_owned(), "x\n".repeat(count));
    assert!(too_long(&lines(501), 500).is_some() && too_long(&lines(500), 500).is_none());
    let index = files("src/index", ".rs");
    let offenders: Vec<_> = index.iter().filter_map(|source| too_long(source, 500)).collect();
    none("files of the index have at most 500 lines", &offenders);
}

// Documents refer to what there is.

/// Links to files that do not exist, and files in backticks that do not.
fn dead_links((name, text): &Source, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut offenders = Vec::new();
    let mut check = |shown: &str, target: &str| {
        let path = target.split('#').next().unwrap_or("");
        let beside = if folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") };
        if !path.is_empty() && !exists(&beside) && !exists(path) {
            offenders.push(format!("{name}: {shown}"));
        }
    };
    for link in text.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or("");
        // Links to items are rustdoc's to check.
        if !target.contains("::") && !target.contains("://") {
            check(&format!("({target})"), target);
        }
    }
    for (i, word) in text.split('`').enumerate() {
        let is_path = word.contains('/') && word.ends_with(".md");
        if i % 2 == 1 && is_path && !word.contains(|c: char| c.is_whitespace() || c == '*') {
            check(&format!("`{word}`"), word);
        }
    }
    offenders
}

/// Documents that nothing leads to.
fn unreachable(documents: &[Source], readme: &str) -> Vec<String> {
    let mut offenders = Vec::new();
    for (name, _) in documents {
        let file = name.rsplit('/').next().unwrap_or(name);
        let others = documents.iter().filter(|(other, _)| other != name);
        let mut texts = others.map(|(_, text)| text.as_str()).chain([readme]);
        if !texts.any(|text| text.contains(file)) {
            offenders.push(name.clone());
        }
    }
    offenders
}

#[test]
fn documents_refer_to_what_there_is() {
    let exists = |path: &str| ["docs/DESIGN.md", "src/sync.rs"].contains(&path);
    let dead = |name: &str, text: &str| dead_links(&(name.into(), text.into()), exists).len();
    assert_eq!(dead("README.md", "see [the design](docs/DESIGN.md#top) and [x](https://a.b/c)"), 0);
    assert_eq!(dead("src/sync.rs", "see [`x`](crate::x) and [y](../docs/GONE.md)"), 1);
    assert_eq!(dead("docs/DESIGN.md", "see [the design](DESIGN.md) and [sync](../src/gone.rs)"), 1);
    assert_eq!(dead("README.md", "see [the design](docs/GONE.md) and `docs/LOST.md`"), 2);
    let documents =
        [("docs/A.md".to_owned(), String::new()), ("docs/B.md".to_owned(), "A.md".into())];
    assert_eq!(unreachable(&documents, "nothing"), ["docs/B.md"]);
    assert_eq!(unreachable(&documents, "docs/B.md").len(), 0);

    let readme = read(root().join("README.md"));
    let documents = files("docs", ".md");
    let exists = |path: &str| root().join(path).exists();
    let mut texts = documents.clone();
    texts.push(readme.clone());
    texts.extend(sources());
    let offenders: Vec<_> = texts.iter().flat_map(|source| dead_links(source, exists)).collect();
    none("links lead to files that exist", &offenders);
    none(
        "every document is reached from README.md or another",
        &unreachable(&documents, &readme.1),
    );
}
