//! What is printed, and saved when asked for: a row for people, and lines for programs.
//!
//! - `time`: one contender's nanoseconds;
//! - `ratio`: pcmap's time divided by a rival's, below 1 where pcmap is faster;
//! - `figure`: a number that is not one contender's time against another's.

use super::options::Options;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The contender that all others are compared with.
pub(crate) const SUBJECT: &str = "pcmap";

/// What was measured, and in which circumstances.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) case: &'static str,
    pub(crate) layout: &'static str,
    pub(crate) n: usize,
    pub(crate) threads: usize,
    pub(crate) writers: usize,
    /// Further `key=value` words, each with a space before it.
    pub(crate) more: String,
}

/// Collects the lines of one bench.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    folder: Option<PathBuf>,
    lines: String,
}

impl Report {
    pub(crate) fn new(bench: &'static str, options: &Options) -> Self {
        let mut report = Self { bench, folder: options.save.clone(), lines: String::new() };
        report.note(&format!(
            "# bench={bench} mode={:?} contenders={:?} os={} arch={} processors={} processor={:?} \
             load={}",
            options.mode,
            options.contenders,
            std::env::consts::OS,
            std::env::consts::ARCH,
            std::thread::available_parallelism().map_or(1, usize::from),
            processor().unwrap_or_default(),
            load().unwrap_or_default(),
        ));
        report
    }

    /// A line that no program reads: a notice of what was skipped, say.
    pub(crate) fn note(&mut self, note: &str) {
        println!("{note}");
        self.lines += note;
        self.lines += "\n";
    }

    /// The contenders' times, in nanoseconds, with their ratios if the subject is among them.
    pub(crate) fn times(&mut self, setting: &Setting, times: &[(&str, f64)]) {
        let Setting { case, layout, n, threads, writers, more } = setting;
        let subject = times.iter().find(|(name, _)| *name == SUBJECT).map(|(_, time)| *time);
        let circumstances =
            format!("layout={layout} n={n} threads={threads} writers={writers}{more}");
        let mut row = format!("{case} {circumstances}:");
        for (name, time) in times {
            row += &format!("  {name} {time:.1} ns");
        }
        println!("{row}");
        for (name, time) in times {
            self.note(&format!(
                "time bench={} case={case} contender={name} {circumstances} ns={time:.1}",
                self.bench
            ));
        }
        for (name, time) in times.iter().filter(|(name, _)| *name != SUBJECT) {
            if let Some(subject) = subject {
                self.ratio(setting, SUBJECT, name, subject / time);
            }
        }
    }

    /// One contender's time divided by another's.
    fn ratio(&mut self, setting: &Setting, subject: &str, baseline: &str, value: f64) {
        let Setting { case, layout, n, threads, writers, more } = setting;
        self.note(&format!(
            "ratio bench={} case={case} subject={subject} baseline={baseline} layout={layout} n={n} \
             threads={threads} writers={writers}{more} value={value:.3}",
            self.bench
        ));
    }

    /// A number that is not compared; the circumstances are `key=value` words, each with a space before
    /// it.
    pub(crate) fn figure(&mut self, name: &str, circumstances: &str, value: impl Display) {
        let bench = self.bench;
        self.note(&format!("figure bench={bench} name={name}{circumstances} value={value}"));
    }

    /// Writes the file, if one was asked for.
    pub(crate) fn save(self) {
        let Some(folder) = &self.folder else { return };
        let file = folder.join(self.bench).with_extension("txt");
        match write(folder, &file, &self.lines) {
            Ok(()) => println!("saved {}", file.display()),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                std::process::exit(1);
            }
        }
    }
}

fn write(folder: &Path, file: &Path, lines: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(file, lines)
}

/// The processor's name, where the system tells.
fn processor() -> Option<String> {
    let told = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = told.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How many threads were busy in the last minute, where the system tells: figures of several threads
/// mean little if others kept the processors busy.
fn load() -> Option<String> {
    let told = fs::read_to_string("/proc/loadavg").ok()?;
    Some(told.split_whitespace().next()?.to_owned())
}
