//! The command line.

use std::time::Duration;

pub(crate) const USAGE: &str = "\
Everything at once, for hours: traps on many threads, modules and stores that come and go, batches,
views that are kept, forked children, timers whose handlers look up; all of it checked, and memory and
garbage watched.

Usage: soak [--seconds N | --minutes N] [--guests N]

Options:
  --seconds N   how long, 1 to 604800 (default: 60)
  --minutes N   the same, in minutes
  --guests N    threads that run guests, 1 to 64 (default: 2; six more do other things)
  --help        this text

On a terminal one line shows how it goes. Otherwise standard output gets a line of key=value words
for each of up to 600 samples. Its last line is the outcome, in such words, too. The exit status is 0
if nothing was wrong, garbage stayed bounded and none is left, and resident memory did not grow by
more than 5 % after the first quarter of the time; 1 if not; 2 if the command line is not understood.";

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Help,
    Soak(Settings),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) duration: Duration,
    pub(crate) guests: usize,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
///
/// A message that names what is wrong.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    const WEEK: u64 = 7 * 24 * 3600;
    let mut settings = Settings { duration: Duration::from_secs(60), guests: 2 };
    while let Some(name) = arguments.next() {
        let mut number = |most: u64| -> Result<u64, String> {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a number"))?;
            let number = value.parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| format!("{name} takes a number from 1 to {most}, not {value:?}"))
        };
        match &*name {
            "--seconds" => settings.duration = Duration::from_secs(number(WEEK)?),
            "--minutes" => settings.duration = Duration::from_secs(60 * number(WEEK / 60)?),
            "--guests" => settings.guests = number(64)? as usize,
            "--help" | "-h" => return Ok(Request::Help),
            _ => return Err(format!("unknown argument {name:?}")),
        }
    }
    Ok(Request::Soak(settings))
}
