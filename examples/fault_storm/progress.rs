//! The progress bar, on standard error when that is a terminal; and meanwhile a second thread
//! that takes out the map's garbage.

use super::storm::Storm;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pcmap::registry::process_code_map;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

const TURN: Duration = Duration::from_millis(20);
const TURNS_PER_DRAWING: u32 = 10;

/// Shows progress until the time is over, or someone else says stop.
///
/// # Errors
///
/// If the bar's template is wrong.
pub(crate) fn watch(duration: Duration, storm: &Storm) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::with_draw_target(
        Some(duration.as_millis() as u64),
        // Draws nothing if it is not a terminal.
        ProgressDrawTarget::stderr(),
    );
    bar.set_style(ProgressStyle::with_template("{elapsed:>4} [{bar:24}] {msg}")?);
    let began = Instant::now();
    let mut drawn = (began, 0, 0);
    for turn in 1.. {
        let left = duration.saturating_sub(began.elapsed());
        if left.is_zero() || storm.is_over() {
            break;
        }
        thread::sleep(left.min(TURN));
        // The loader reclaims as it writes; here is somebody who does at the same time.
        let garbage = process_code_map().reclaim().items;
        if turn % TURNS_PER_DRAWING == 0 {
            let (faults, registrations) = storm.progress();
            let seconds = drawn.0.elapsed().as_secs_f64();
            let rate = |now: u64, before: u64| ((now - before) as f64 / seconds) as u64;
            bar.set_message(format!(
                "{} faults/s  {} registrations/s  garbage {garbage}",
                rate(faults, drawn.1),
                rate(registrations, drawn.2),
            ));
            bar.set_position(began.elapsed().as_millis() as u64);
            drawn = (Instant::now(), faults, registrations);
        }
    }
    bar.finish_and_clear();
    Ok(())
}
