//! Parts of the bench that run in a process of their own, whose memory nothing else has used.

use super::options::Mode;
use super::report::Report;
use std::env;
use std::process::{Command, Stdio};

/// Tells a process which part it is to measure.
const VARIABLE: &str = "PCMAP_BENCH_PART";

/// The cases with such parts.
const CASES: [&str; 3] = ["backlog", "stopped_reader", "fill"];

/// A case with some number of threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) case: &'static str,
    pub(crate) threads: usize,
}

impl Part {
    /// `None`: this process is nobody's part, but the whole.
    pub(crate) fn of_this_process() -> Option<Self> {
        let told = env::var(VARIABLE).ok()?;
        let (case, threads) = told.split_once('/')?;
        let case = CASES.into_iter().find(|known| *known == case)?;
        Some(Self { case, threads: threads.parse().ok()? })
    }

    /// Measures the part; its lines become the report's. Also gives them back.
    pub(crate) fn measure(self, report: &mut Report, mode: Mode) -> Vec<String> {
        let program = env::current_exe().expect("this program has a path");
        let output = Command::new(program)
            .args(mode.pick(None, Some("--quick"), Some("--test")))
            .env(VARIABLE, format!("{}/{}", self.case, self.threads))
            .stderr(Stdio::inherit())
            .output()
            .expect("this program can be started again");
        assert!(output.status.success(), "{self:?}: {}", output.status);
        let told = String::from_utf8(output.stdout).expect("text");
        // The first line tells of the machine, as this report's does.
        let lines: Vec<_> =
            told.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        lines.iter().for_each(|line| report.note(line));
        lines
    }
}
