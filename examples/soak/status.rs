//! How it goes, while it goes: one line that changes, on a terminal; else a line for each sample.

use crate::samples::Sample;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::error::Error;
use std::fmt;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Status {
    /// Draws nothing, if standard error is not a terminal.
    bar: ProgressBar,
    /// Standard output is not a terminal, so somebody keeps it.
    is_kept: bool,
}

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) sample: Sample,
    pub(crate) faults: u64,
    pub(crate) registrations: u64,
    pub(crate) children: u64,
    pub(crate) errors: u64,
}

impl Status {
    /// # Errors
    ///
    /// If the line's template is wrong.
    pub(crate) fn new(duration: Duration) -> Result<Self, Box<dyn Error>> {
        let target = ProgressDrawTarget::stderr();
        let bar = ProgressBar::with_draw_target(Some(duration.as_millis() as u64), target);
        bar.set_style(ProgressStyle::with_template("{elapsed_precise} [{bar:16}] {msg}")?);
        Ok(Self { bar, is_kept: !stdout().is_terminal() })
    }

    pub(crate) fn show(&self, shown: &Shown) {
        let Shown { sample, faults, registrations, children, errors } = shown;
        self.bar.set_position(sample.at.as_millis() as u64);
        self.bar.set_message(format!(
            "{} MiB, {} versions of garbage; {faults} faults, {registrations} modules, {children} \
             children; {errors} errors",
            sample.resident_kib / 1024,
            sample.garbage
        ));
        if self.is_kept {
            println!("{shown}");
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sample, faults, registrations, children, errors } = self;
        write!(
            f,
            "sample s={:.2} resident_kib={} garbage={} garbage_bytes={} entries={} faults={faults} \
             registrations={registrations} children={children} errors={errors}",
            sample.at.as_secs_f64(),
            sample.resident_kib,
            sample.garbage,
            sample.garbage_bytes,
            sample.entries
        )
    }
}
