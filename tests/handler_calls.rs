//! The crate's front page lists what a signal handler may call. Each public function whose documentation says that
//! it is signal-safe is in that list. The check is first shown to bite.

mod public_items;

use public_items::{functions, name_at, read, root, sources};

/// Whether documentation says of a function that handlers may call it.
fn is_signal_safe(doc: &str) -> bool {
    let doc = doc.to_lowercase().replace("**", "");
    let says = |word: &str| doc.contains(&format!("signal-safe{word}"));
    let denied = says(": no")
        || says(": as ")
        || doc.contains("not signal-safe")
        || doc.contains("none is signal-safe");
    !denied && doc.contains("signal-safe")
}

/// The front page's section, and the names that it has in backticks.
fn listed(page: &str) -> Vec<String> {
    let section =
        page.split("# What may be called in a signal handler").nth(1).expect("it is there");
    let lines: String =
        section.lines().skip(1).map_while(|line| line.strip_prefix("//!")).collect();
    lines.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What else the section has in backticks: features, a chapter, and traits.
const OTHER: [&str; 5] = ["registry", "trap", "signal_safety", "Debug", "Display"];

/// A function is listed by its own name, or with its type.
fn is_listed(list: &[String], function: &str) -> bool {
    let of = function.split("::").next().unwrap_or(function);
    list.iter().any(|name| name == function || name == of)
}

#[test]
fn the_front_page_lists_what_handlers_may_call() {
    let text = "
impl One {
    /// Constant time; signal-safe.
    pub fn safe(&self) {}
    /// **Signal-safe**: no.
    pub fn unsafe_in_handlers(&self) {}
    /// Not signal-safe.
    pub fn neither(&self) {}
}
/// **Signal-safe**: yes.
#[must_use]
pub fn free() {}
";
    let safe: Vec<_> = functions(text).into_iter().filter(|(_, doc)| is_signal_safe(doc)).collect();
    let names: Vec<_> = safe.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["One::safe", "free"]);
    let page = "//! # What may be called in a signal handler\n//!\n//! [`One`], `three`\nmod four;";
    let list = listed(page);
    assert_eq!(list, ["One", "three"]);
    assert!(is_listed(&list, "One::safe") && !is_listed(&list, "free"));

    let list = listed(&read("src/lib.rs"));
    let all: Vec<_> = sources(root().join("src")).iter().flat_map(|text| functions(text)).collect();
    let safe: Vec<_> = all.iter().filter(|(_, doc)| is_signal_safe(doc)).collect();
    println!(
        "{} of {} public functions are signal-safe; {} names",
        safe.len(),
        all.len(),
        list.len()
    );
    assert!(safe.len() > 30, "where are they?");
    let missing: Vec<_> = safe.iter().filter(|(name, _)| !is_listed(&list, name)).collect();
    assert!(missing.is_empty(), "not listed: {missing:?}");
    // And what is listed is there.
    let sources = sources(root().join("src")).join("\n");
    let exports: Vec<_> =
        sources.split("pub use ").skip(1).filter_map(|text| text.split(';').next()).collect();
    let is_word = |text: &str, word: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|it| it == word)
    };
    let is_there = |name: &&String| {
        let last = name.rsplit("::").next().unwrap_or(name);
        let is_function = sources.split("fn ").any(|text| name_at(text) == last);
        is_function
            || exports.iter().any(|text| is_word(text, last))
            || OTHER.contains(&name.as_str())
    };
    let gone: Vec<_> = list.iter().filter(|name| !is_there(name)).collect();
    assert!(gone.is_empty(), "there is no {gone:?}");
}
