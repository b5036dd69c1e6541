//! What a contender's writes leave behind: garbage, where a contender can tell, and the memory of the
//! process.
//!
//! A look at either would disturb what is timed. So each case has one more turn, which is not timed, and
//! a thread that mostly sleeps watches that one. The memory is the whole process's: it holds all
//! contenders, and what the allocator kept from cases before. `--contender` leaves one alone in it.

use crate::report::{Report, Setting};
use crate::resident::{format_mib, resident_bytes};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// The most that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    garbage_bytes: Option<u64>,
    resident_bytes: Option<u64>,
}

impl Memory {
    /// Watches while the work is done, and looks once more when it is.
    pub(crate) fn during<R>(
        garbage_bytes: impl Fn() -> Option<u64> + Sync,
        work: impl FnOnce() -> R,
    ) -> Self {
        let is_done = AtomicBool::new(false);
        let mut memory = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut memory = Self::default();
                while !is_done.load(Relaxed) {
                    memory.look(garbage_bytes());
                    thread::sleep(PAUSE);
                }
                memory
            });
            work();
            is_done.store(true, Relaxed);
            watch.join().expect("it only looks")
        });
        memory.look(garbage_bytes());
        memory
    }

    fn look(&mut self, garbage_bytes: Option<u64>) {
        // Nothing known is less than anything known.
        self.garbage_bytes = self.garbage_bytes.max(garbage_bytes);
        self.resident_bytes = self.resident_bytes.max(resident_bytes());
    }

    pub(crate) fn tell(&self, report: &mut Report, setting: &Setting, contender: &str) {
        let Setting { case, layout, n, threads, writers, more } = setting;
        let circumstances = format!(
            " case={case} contender={contender} layout={layout} n={n} threads={threads} \
             writers={writers}{more}"
        );
        let garbage = self.garbage_bytes.map_or("n/a".into(), |bytes| bytes.to_string());
        report.figure("garbage_bytes", &circumstances, garbage);
        report.figure("resident_mib", &circumstances, format_mib(self.resident_bytes));
    }
}
