//! What the crate's sources make public, read from their text.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts of all Rust files in a folder and those below.
pub(crate) fn sources(folder: PathBuf) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            texts.extend(sources(path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(read(path));
        }
    }
    texts
}

/// A word's first letters and digits.
pub(crate) fn name_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The type that a block of methods is of, from its first line.
fn type_of(header: &str) -> Option<&str> {
    let header = header.strip_prefix("unsafe ").unwrap_or(header);
    if let Some(name) = header.strip_prefix("pub unsafe trait ") {
        return Some(name_at(name));
    }
    let mut rest = header.strip_prefix("impl")?;
    let mut depth = 0;
    if rest.starts_with('<') {
        let end = rest.find(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            depth == 0
        });
        rest = &rest[end? + 1..];
    }
    let of_trait = rest.split_once(" for ").map(|(_, of)| of);
    Some(name_at(of_trait.unwrap_or(rest).trim_start()))
}

/// Public functions, as `Type::name` or `name`, up to where unit tests begin, with what their documentation says
/// in one line. (What is public can be reached from outside: a lint of the crate sees to that.)
pub(crate) fn functions(text: &str) -> Vec<(String, String)> {
    let (mut of, mut found, mut said) = (None, Vec::new(), String::new());
    for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        if !line.starts_with(' ') {
            of = type_of(line).or(of.filter(|_| !line.starts_with('}')));
        }
        if let Some(doc) = line.trim_start().strip_prefix("///") {
            said += doc;
            continue;
        }
        if line.trim_start().starts_with("#[") {
            continue;
        }
        let doc = std::mem::take(&mut said);
        let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
        let rest = rest.strip_prefix("const ").unwrap_or(rest);
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        if let Some(name) = rest.strip_prefix("fn ").map(name_at) {
            let is_method = line.starts_with(' ');
            let name = match of.filter(|_| is_method) {
                Some(of) => format!("{of}::{name}"),
                None => name.to_owned(),
            };
            found.push((name, doc));
        }
    }
    found
}
