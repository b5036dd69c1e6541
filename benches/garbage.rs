//! What writers leave behind, and how soon it goes:
//!
//! - `backlog`: 1 to 16 writers that never pause: garbage over time, and the slowest pair;
//! - `stopped_reader`: the same beside a reader that never leaves its lookup;
//! - `wait_latency`: how long it takes until what was unregistered is held by nobody;
//! - `starve_batch`: a large batch beside one small writer;
//! - `fill`: a million ranges by one thread and by four, and the memory that they take.
//!
//! Whatever takes memory runs in a process of its own, so that nothing else has used its allocator. All of
//! it is again with mimalloc in `garbage_mimalloc`. The rivals' garbage is not to be seen from outside;
//! what they take of memory is in the other benches.

#[path = "support/garbage/backlog.rs"]
mod backlog;
#[path = "support/garbage/code.rs"]
mod code;
#[path = "support/garbage/fill.rs"]
mod fill;
#[path = "support/options.rs"]
mod options;
#[path = "support/garbage/parts.rs"]
mod parts;
#[path = "support/report.rs"]
mod report;
#[path = "support/resident.rs"]
mod resident;
#[path = "support/rounds.rs"]
mod rounds;
#[path = "support/garbage/samples.rs"]
mod samples;
#[path = "support/garbage/starve_batch.rs"]
mod starve_batch;
#[path = "support/garbage/wait_latency.rs"]
mod wait_latency;

use options::Options;
use parts::Part;
use report::Report;

pub(crate) fn main() {
    let options = Options::from_command_line();
    let mode = options.mode;
    let mut report = Report::new(env!("CARGO_CRATE_NAME"), &options);
    match Part::of_this_process() {
        Some(Part { case: "fill", threads }) => fill::measure(&mut report, mode, threads),
        Some(Part { case, threads }) => backlog::measure(&mut report, mode, case, threads),
        None => {
            backlog::measure_all(&mut report, &options);
            wait_latency::measure_all(&mut report, &options);
            starve_batch::measure_all(&mut report, &options);
            fill::measure_all(&mut report, &options);
        }
    }
    report.save();
}
