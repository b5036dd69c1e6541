//! The lines that benchmarks saved.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// One contender's time.
#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) bench: String,
    pub(crate) case: String,
    pub(crate) contender: String,
    pub(crate) layout: String,
    pub(crate) n: usize,
    pub(crate) threads: usize,
    pub(crate) writers: usize,
    /// Only where writes are measured.
    pub(crate) readers: Option<usize>,
    pub(crate) nanos: f64,
}

/// All times in the folder's text files.
///
/// # Errors
///
/// What the system says, or the line that is not understood.
pub(crate) fn read(folder: &Path) -> Result<Vec<Measurement>, Box<dyn Error>> {
    let mut measurements = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for line in fs::read_to_string(&path)?.lines() {
            if let Some(words) = line.strip_prefix("time ") {
                let parsed = parse(words);
                measurements.push(parsed.ok_or_else(|| format!("{}: {line:?}", path.display()))?);
            }
        }
    }
    Ok(measurements)
}

fn parse(words: &str) -> Option<Measurement> {
    let words: BTreeMap<&str, &str> =
        words.split_whitespace().map(|word| word.split_once('=')).collect::<Option<_>>()?;
    let text = |key| words.get(key).map(|&word| word.to_owned());
    let number = |key| words.get(key)?.parse().ok();
    Some(Measurement {
        bench: text("bench")?,
        case: text("case")?,
        contender: text("contender")?,
        layout: text("layout")?,
        n: number("n")?,
        threads: number("threads")?,
        writers: number("writers")?,
        readers: number("readers"),
        nanos: words.get("ns")?.parse().ok()?,
    })
}
