//! The command line, which all benches share.

use std::path::PathBuf;

const USAGE: &str = "\
Usage: cargo bench [--bench NAME] -- [--quick | --test] [filters] [--save FOLDER]

Modes (by default: many rounds, several minutes a bench):
  --quick          fewer and shorter rounds; all ratio lines in less than a minute a bench
  --test           everything once and small, with the answers checked; no figure means anything

Filters, each of which may be repeated:
  --case NAME      such as warm_dependent, cold, pair, unregister, p99, backlog
  --layout NAME    even, clustered, functions, process
  --n NUMBER       ranges in the map
  --contender NAME one alone, as under a profiler: pcmap, rwlock_btreemap …

  --save FOLDER    also writes all lines to FOLDER/<bench>.txt, for the example `bench_charts`
  --help           this text";

/// How thorough to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Full,
    Quick,
    Test,
}

impl Mode {
    /// One of three, by mode.
    pub(crate) fn pick<T>(self, full: T, quick: T, test: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
            Self::Test => test,
        }
    }
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) save: Option<PathBuf>,
    cases: Vec<String>,
    layouts: Vec<String>,
    sizes: Vec<usize>,
    /// Those that are measured; all, if none is named.
    pub(crate) contenders: Vec<String>,
}

impl Options {
    /// Reads the command line; ends the program if there is nothing to measure.
    pub(crate) fn from_command_line() -> Self {
        match Self::parse(std::env::args().skip(1)) {
            Ok(Some(options)) => options,
            Ok(None) => {
                println!("{USAGE}");
                std::process::exit(0)
            }
            Err(message) => {
                eprintln!("{message}\n\n{USAGE}");
                std::process::exit(2)
            }
        }
    }

    /// `None`: help was asked for.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut cases, mut layouts, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut mode, mut save, mut contenders) = (Mode::Full, None, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--quick" => mode = Mode::Quick,
                "--test" => mode = Mode::Test,
                "--case" => cases.push(value()?),
                "--layout" => layouts.push(value()?),
                "--n" => {
                    let number = value()?.replace([',', '_'], "");
                    sizes.push(number.parse().map_err(|_| format!("not a number: {number:?}"))?);
                }
                "--contender" => contenders.push(value()?),
                "--save" => save = Some(PathBuf::from(value()?)),
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(Some(Self { mode, save, cases, layouts, sizes, contenders }))
    }

    /// Whether no filter excludes the case.
    pub(crate) fn wants_case(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }

    /// Whether no filter excludes the layout, nor the number of ranges.
    pub(crate) fn wants(&self, layout: &str, n: usize) -> bool {
        (self.layouts.is_empty() || self.layouts.iter().any(|wanted| wanted == layout))
            && (self.sizes.is_empty() || self.sizes.contains(&n))
    }
}
