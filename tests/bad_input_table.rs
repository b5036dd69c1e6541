//! `docs/BAD_INPUT.md` against the crate: every public function, error and variant of an error is in
//! it, and every test that it names is where it says. Each check is first shown to bite.

mod public_items;

use public_items::{functions, name_at, read, root, sources};
use std::collections::BTreeSet;
use std::fs;

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Public errors: types by name, and variants as `Type::Variant`.
fn errors(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    let mut derived = false;
    while let Some(line) = lines.next() {
        derived |= line.contains("thiserror::Error");
        if let Some(name) = line.strip_prefix("impl").filter(|_| line.contains("error::Error for "))
        {
            let name = name.rsplit(' ').nth(1).map(name_at).unwrap_or_default();
            if text.contains(&format!("pub struct {name}")) {
                found.push(name.to_owned());
            }
        }
        let Some(rest) = line.strip_prefix("pub ").filter(|_| derived) else { continue };
        derived = false;
        if let Some(name) = rest.strip_prefix("struct ").map(name_at) {
            found.push(name.to_owned());
        } else if let Some(name) = rest.strip_prefix("enum ").map(name_at) {
            // Variants stand alone at the first indentation.
            let body = lines.by_ref().take_while(|line| !line.starts_with('}'));
            let variants = body.filter_map(|line| line.strip_prefix("    "));
            let variants = variants.map(name_at).filter(|name| !name.is_empty());
            found.extend(variants.map(|variant| format!("{name}::{variant}")));
        }
    }
    found
}

/// What a document does not have in backticks.
fn missing<'w>(document: &str, wanted: &'w [String]) -> Vec<&'w str> {
    let there: BTreeSet<_> = quoted(document).collect();
    wanted.iter().map(String::as_str).filter(|name| !there.contains(name)).collect()
}

/// Rows that name no test, or one that there is not. A row names tests in its last column: a file, and
/// then tests in it; or says that it was read.
fn rows_without_test(document: &str, read: impl Fn(&str) -> Option<String>) -> Vec<&str> {
    let rows =
        document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| call"));
    let is_bad = |row: &&str| {
        let columns: Vec<_> = row.trim_end().trim_end_matches('|').split('|').collect();
        let Some(last) = columns.get(4).filter(|_| columns.len() == 5) else { return true };
        let mut words = quoted(last);
        let Some(file) = words.next() else { return last.trim() != "by reading" };
        let names: Vec<_> = words.collect();
        read(file)
            .is_none_or(|text| names.is_empty() || !names.iter().all(|name| has_test(&text, name)))
    };
    rows.filter(is_bad).collect()
}

/// Whether a file has a test of this name: a function with the attribute before it, or a scenario of a
/// harness of its own.
fn has_test(text: &str, name: &str) -> bool {
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return text.contains(&format!("Scenario {{ name: \"{name}\""))
            || text.contains(&format!("scenario(\"{name}\""));
    };
    let lines = before.trim_end().lines().rev();
    let attributes = |line: &&str| line.trim_start().starts_with("#[") || line.trim().is_empty();
    lines.take_while(attributes).any(|line| line.trim() == "#[test]")
}

const DOCUMENT: &str = "docs/BAD_INPUT.md";

#[test]
fn every_public_function_is_in_it() {
    let text = "
pub(crate) fn hidden() {}
impl<T: Into<X>> Thing<T> {
    /// About it.
    pub const fn one(self) {}
    fn two() {}
}
pub unsafe fn three() {}
impl<'a> Iterator for Other<'a> {
    pub fn four() {}
}
#[cfg(test)]
pub fn five() {}
";
    let names =
        |text: &str| -> Vec<_> { functions(text).into_iter().map(|(name, _)| name).collect() };
    assert_eq!(names(text), ["Thing::one", "three", "Other::four"]);
    assert_eq!(missing("of `three` and `Other::four`", &names(text)), ["Thing::one"]);

    let all: Vec<_> = sources(root().join("src")).iter().flat_map(|text| names(text)).collect();
    assert!(all.len() > 200, "{} functions: where are the others?", all.len());
    let missing = missing(&read(DOCUMENT), &all).join("\n");
    assert!(missing.is_empty(), "{DOCUMENT} does not have\n{missing}");
    println!("{} public functions", all.len());
}

#[test]
fn every_error_is_in_it() {
    let text = "
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// About it.
    #[error(\"first\")]
    First,
    /// And this.
    Second {
        /// A field.
        field: u8,
    },
    Third(#[from] u8),
}
pub enum Other {
    Fourth,
}
pub struct Refused<T> {}
impl<T> core::error::Error for Refused<T> {}
";
    assert_eq!(errors(text), ["Why::First", "Why::Second", "Why::Third", "Refused"]);

    let all: Vec<_> = sources(root().join("src")).iter().flat_map(|text| errors(text)).collect();
    assert!(all.len() > 60, "{} errors: where are the others?", all.len());
    let missing = missing(&read(DOCUMENT), &all).join("\n");
    assert!(missing.is_empty(), "{DOCUMENT} does not have\n{missing}");
    println!("{} errors and variants", all.len());
}

#[test]
fn every_test_is_where_it_says() {
    let file = |path: &str| {
        let text = "#[test]\n#[cfg(x)]\nfn one() {}\nfn two() {}\nScenario { name: \"three\" }";
        (path == "a.rs").then(|| text.to_owned())
    };
    let bad =
        |last: &str| !rows_without_test(&format!("| `f` | x | y | {last} |"), file).is_empty();
    assert!(!bad("`a.rs`: `one`") && !bad("`a.rs`: `one`, `three`") && !bad("by reading"));
    assert!(bad("`a.rs`: `two`") && bad("`a.rs`: `one`, `four`") && bad("`b.rs`: `one`"));
    assert!(bad("`a.rs`") && bad("") && bad("somewhere"));
    assert_eq!(rows_without_test("| `f` | x | `a.rs`: `one` |", file).len(), 1, "a column too few");

    let document = read(DOCUMENT);
    let bad = rows_without_test(&document, |path| fs::read_to_string(root().join(path)).ok());
    assert!(bad.is_empty(), "no such test:\n{}", bad.join("\n"));
    let rows = document.lines().filter(|line| line.starts_with("| ")).count();
    let read = document.matches("| by reading |").count();
    println!("{rows} rows, {read} of them without a test");
    assert!(rows > 100 && read < rows / 20, "{rows} rows, {read} without a test");
}
