//! The ledger of edges, put to the test: each row of `docs/ORDERINGS.md` names a model, and that
//! model must fail when just this edge is made `Relaxed`, or this fence left out.
//!
//! Each runs in a process of its own: a weakened model may well crash.

use crate::model::WEAKENED;
use crate::sync::edge;
use std::process::Command;
use std::sync::atomic::Ordering;

const LEDGER: &str = include_str!("../../docs/ORDERINGS.md");

/// The model that the ledger names for an edge; `None` if it says that there is none, and why.
fn model_of(edge: &str) -> Option<&'static str> {
    let start = format!("| `{edge}` |");
    let row = LEDGER.lines().find(|row| row.starts_with(&start));
    let cells = row.unwrap_or_else(|| panic!("`{edge}` is not in the ledger")).split('|');
    let model = cells.map(str::trim).rfind(|cell| !cell.is_empty()).expect("cells");
    model.strip_prefix('`').and_then(|model| model.split('`').next())
}

fn edges() -> impl Iterator<Item = (&'static str, Ordering)> {
    edge::EDGES.iter().chain(edge::REGISTRY_EDGES).copied()
}

fn fences() -> impl Iterator<Item = &'static str> {
    edge::FENCES.iter().chain(edge::FENCES_BEHIND_EXCHANGE).copied()
}

/// Runs one model in another process, with one edge weakened or none; its outcome and its words.
fn run(model: &str, edge: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("this test's own file"));
    command.arg(model).arg("--nocapture").env("RUST_BACKTRACE", "0").env_remove(WEAKENED);
    command.envs(edge.map(|edge| (WEAKENED, edge)));
    let output = command.output().expect("the test binary runs");
    let words = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn each_edge_weakened_is_caught_by_the_model_in_its_row() {
    let edges = edges().filter(|(_, ordering)| *ordering != Ordering::Relaxed);
    let edges = edges.map(|(edge, _)| edge).chain(fences());
    let (mut caught, mut uncaught, mut wrong) = (0, Vec::new(), Vec::new());
    for edge in edges {
        let Some(model) = model_of(edge) else {
            uncaught.push(edge);
            continue;
        };
        let (passed, words) = run(model, Some(edge));
        assert!(words.contains("running 1 test"), "`{model}` is not one test:\n{words}");
        let why = words.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
        println!("{edge}: {model}: {}", why.unwrap_or("not caught"));
        match passed {
            false => caught += 1,
            true => wrong.push(edge),
        }
    }
    println!(
        "{caught} edges weakened and caught; not caught by a model, with reasons: {uncaught:?}"
    );
    assert!(wrong.is_empty(), "weakened, and the model in their row still passes: {wrong:?}");
    assert!(caught > 20, "most edges have a model");
}

/// A model with every edge as it is passes in such a process: it is the weakening that is caught.
#[test]
fn nothing_weakened_nothing_caught() {
    let (passed, words) = run("parking_against_draining", None);
    assert!(passed && words.contains("running 1 test"), "{words}");
}

/// Relaxed edges, and those that no model catches, have a reason in the ledger.
#[test]
fn each_edge_without_a_model_has_a_reason() {
    let edges = edges().map(|(edge, _)| edge).chain(fences());
    for edge in edges.filter(|edge| model_of(edge).is_none()) {
        let start = format!("| `{edge}` |");
        let row = LEDGER.lines().find(|row| row.starts_with(&start)).expect("has a row");
        assert!(row.contains("| none: "), "{row}");
    }
}
