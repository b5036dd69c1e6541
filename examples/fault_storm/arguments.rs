//! The command line.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
Faults in generated code, on many threads, while the code comes and goes; every fault must be
attributed to the right module, function, offset and trap code.

Usage: fault_storm [--seconds N] [--threads N]

Options:
  --seconds N   how long to storm, 1 to 86400 (default: 5)
  --threads N   guest threads, 1 to 1024 (default: one per core, at least 2)
  --help        this text

The last line on standard output is made of key=value words. The exit status is 0 if at least one
fault happened, none was misattributed or missed, and no garbage is left; 1 if not; 2 if the
command line is not understood.";

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Help,
    Storm(Settings),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) duration: Duration,
    pub(crate) threads: usize,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// A message that names what is wrong.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut arguments = arguments;
    let mut settings = Settings { duration: Duration::from_secs(5), threads: default_threads() };
    while let Some(argument) = arguments.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut number = |most: usize| -> Result<usize, String> {
            let value = attached.clone().or_else(|| arguments.next());
            let value = value.ok_or_else(|| format!("{name} needs a number"))?;
            match value.parse() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(format!("{name} takes a number from 1 to {most}, not {value:?}")),
            }
        };
        match name {
            "--seconds" => settings.duration = Duration::from_secs(number(86_400)? as u64),
            "--threads" => settings.threads = number(1024)?,
            "--help" | "-h" if attached.is_none() => return Ok(Request::Help),
            _ => return Err(format!("unknown argument {argument:?}")),
        }
    }
    Ok(Request::Storm(settings))
}

fn default_threads() -> usize {
    available_parallelism().map_or(2, NonZeroUsize::get).max(2)
}
