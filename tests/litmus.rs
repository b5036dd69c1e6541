//! The protocol's litmus tests (`litmus/`), put to herd7, where that is installed.
//!
//! Each file says what outcome it asks about, whether that may come about (`Expect`), and what
//! becomes of it when one of its edges is weakened (`Weakened`): this weakens them, one at a time, and
//! so shows that the test can fail. `litmus/README.md` explains the files.

mod skipped;

use skipped::skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// An instruction set, or the language, with the memory model that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Machine {
    AArch64,
    C11,
    X86,
}

impl Machine {
    const ALL: [Self; 3] = [Self::AArch64, Self::C11, Self::X86];

    fn folder(self) -> PathBuf {
        let name = match self {
            Self::AArch64 => "aarch64",
            Self::C11 => "c11",
            Self::X86 => "x86_64",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("litmus").join(name)
    }

    fn model(self) -> &'static str {
        match self {
            Self::AArch64 => "aarch64.cat",
            Self::C11 => "rc11.cat",
            Self::X86 => "x86tso-mixed.cat",
        }
    }

    /// An instruction, or a line, without what it orders.
    fn weaken(self, code: &str) -> String {
        let rules: &[(&str, &str)] = match self {
            Self::AArch64 => &[
                ("DMB ISHLD", "NOP"),
                ("DMB ISH", "NOP"),
                ("LDAR ", "LDR "),
                ("STLXR ", "STXR "),
                ("LDADDAL ", "LDADD "),
                ("LDADDL ", "LDADD "),
                ("CASL ", "CAS "),
                ("CASA ", "CAS "),
                ("SWPA ", "SWP "),
            ],
            Self::C11 => &[
                ("atomic_thread_fence(memory_order_seq_cst);", ""),
                ("atomic_thread_fence(memory_order_acquire);", ""),
                ("memory_order_acq_rel", "memory_order_relaxed"),
                ("memory_order_acquire", "memory_order_relaxed"),
                ("memory_order_release", "memory_order_relaxed"),
            ],
            Self::X86 => &[("mfence", "nop"), ("lock ", "")],
        };
        let rule = rules.iter().find(|(strong, _)| code.contains(strong));
        let (strong, weak) = rule.unwrap_or_else(|| panic!("nothing to weaken in `{code}`"));
        code.replacen(strong, weak, 1)
    }
}

/// What herd7 says of the outcome that a test asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Never,
    Sometimes,
    /// Some execution has a data race, so that anything may come about (C11 only).
    Race,
}

impl Outcome {
    fn named(name: &str) -> Self {
        match name {
            "never" => Self::Never,
            "sometimes" => Self::Sometimes,
            "race" => Self::Race,
            _ => panic!("`{name}` is no outcome"),
        }
    }
}

struct Litmus {
    machine: Machine,
    name: String,
    text: String,
    expect: Outcome,
    /// Edges of `src/edges.rs`, and what becomes of the outcome without each.
    weakened: BTreeMap<String, Outcome>,
    /// A test that differs in more than an edge, and whose outcome is allowed.
    twin: Option<String>,
}

impl Litmus {
    fn read(machine: Machine, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a readable file");
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
        let weakened = value("Weakened=").unwrap_or_default().split_whitespace().map(|word| {
            let (edge, outcome) = word.split_once(':').expect("edge:outcome");
            (edge.to_owned(), Outcome::named(outcome))
        });
        let weakened = weakened.collect();
        let expect = Outcome::named(value("Expect=").expect("what is expected"));
        assert_eq!(text.split_whitespace().nth(1), Some(&*name), "the file is named as the test");
        let twin = value("Twin=").map(str::to_owned);
        Self { machine, name, expect, weakened, twin, text }
    }

    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for machine in Machine::ALL {
            let folder = fs::read_dir(machine.folder()).expect("a folder of litmus tests");
            for file in folder {
                let path = file.expect("a readable folder").path();
                all.push(Self::read(machine, &path));
            }
        }
        all.sort_by(|a, b| (a.machine, &a.name).cmp(&(b.machine, &b.name)));
        all
    }

    /// The same test without what `edge` orders.
    fn without(&self, edge: &str) -> String {
        let mark = format!("[{edge}]");
        let mut found = false;
        let separators = if self.machine == Machine::C11 { &['\n'][..] } else { &['\n', '|', ';'] };
        let cells = self.text.split_inclusive(separators).map(|cell| {
            if !cell.contains(&mark) {
                return cell.to_owned();
            }
            found = true;
            self.machine.weaken(cell)
        });
        let text = cells.collect();
        assert!(found, "{}: nothing is marked {mark}", self.name);
        text
    }
}

/// Runs herd7; `None`: it is not installed.
fn herd(arguments: &[&str]) -> Option<String> {
    let output = Command::new("herd7").args(arguments).output().ok()?;
    let words = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&words).into_owned())
}

/// What herd7 says of a test's text.
fn ask(machine: Machine, title: &str, text: &str) -> Outcome {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{machine:?}-{title}.litmus"));
    fs::write(&path, text).expect("a place for temporary files");
    let words = herd(&["-model", machine.model(), &path.to_string_lossy()]).expect("installed");
    let observation = words.lines().find(|line| line.starts_with("Observation "));
    let observation = observation.unwrap_or_else(|| panic!("{}: {words}", path.display()));
    let numbers: Vec<u64> = observation.rsplit(' ').take(2).flat_map(str::parse).collect();
    assert!(numbers.iter().sum::<u64>() > 0, "{}: no execution: {words}", path.display());
    if words.lines().any(|line| line == "Flag *undef*") {
        return Outcome::Race;
    }
    let never = observation.contains(" Never ");
    if never { Outcome::Never } else { Outcome::Sometimes }
}

#[test]
fn each_outcome_is_as_expected_and_each_edge_matters() {
    let Some(version) = herd(&["-version"]) else {
        return skipped("the litmus tests: herd7 is not installed (see litmus/README.md)");
    };
    let begin = Instant::now();
    let (mut asked, mut caught, mut wrong) = (0, 0, Vec::new());
    for litmus in Litmus::all() {
        let Litmus { machine, name, expect, weakened, text, .. } = &litmus;
        let mut check = |title: &str, text: &str, expect: Outcome| {
            let outcome = ask(*machine, title, text);
            asked += 1;
            println!("{machine:?} {title}: {outcome:?}");
            if outcome != expect {
                wrong.push(format!("{machine:?} {title}: {outcome:?}, expected {expect:?}"));
            }
        };
        check(name, text, *expect);
        for (edge, outcome) in weakened {
            check(&format!("{name}-without-{edge}"), &litmus.without(edge), *outcome);
            caught += usize::from(*outcome != Outcome::Never);
        }
        // With `-C target-feature=+rcpc` the compiler takes a weaker load for Acquire.
        if *machine == Machine::AArch64 && text.contains("LDAR ") {
            check(&format!("{name}-with-ldapr"), &text.replace("LDAR ", "LDAPR "), *expect);
        }
    }
    println!(
        "herd7 {}: {asked} questions, {caught} of them weakened edges that are caught, {:?}",
        version.lines().next().unwrap_or_default(),
        begin.elapsed()
    );
    assert!(wrong.is_empty(), "not as expected:\n  {}", wrong.join("\n  "));
}

/// The edges of `src/edges.rs` that order something.
fn edges() -> BTreeSet<String> {
    let lines = include_str!("../src/edges.rs").lines().map(str::trim);
    let edges = lines.filter_map(|line| line.split_once(';')?.0.split_once(" = "));
    edges.filter(|(_, ordering)| *ordering != "Relaxed").map(|(edge, _)| edge.to_owned()).collect()
}

#[test]
fn each_edge_is_caught_by_a_litmus_test() {
    let mut left = edges();
    assert!(left.len() > 30, "{left:?}");
    for litmus in Litmus::all() {
        for (edge, outcome) in &litmus.weakened {
            // Also without herd7: the mark is there, and there is something to weaken.
            assert_ne!(litmus.without(edge), litmus.text);
            if *outcome != Outcome::Never {
                left.remove(edge);
            }
        }
    }
    assert!(left.is_empty(), "no litmus test fails without these: {left:?}");
}

#[test]
fn each_forbidden_outcome_has_a_twin_that_is_allowed_and_a_line_in_the_readme() {
    let all = Litmus::all();
    let readme = include_str!("../litmus/README.md");
    for Litmus { machine, name, expect, twin, .. } in &all {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in litmus/README.md");
        if *expect != Outcome::Never {
            continue;
        }
        // On some machine: what the machine does not reorder, nothing can weaken there.
        let same = all.iter().filter(|other| other.name == *name);
        let bites = same.flat_map(|other| other.weakened.values()).any(|&o| o != Outcome::Never);
        let is_twin =
            |other: &Litmus| other.machine == *machine && Some(&other.name) == twin.as_ref();
        let has_twin = all.iter().any(|other| is_twin(other) && other.expect != Outcome::Never);
        assert!(bites || has_twin, "{machine:?} {name}: cannot fail");
    }
}
