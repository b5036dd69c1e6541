//! Where handlers put samples: preallocated, written without a lock, read when all threads have ended.
//!
//! A handler claims the next place by one addition, and has it for itself. When there is none left,
//! samples are counted as lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const FRAMES: usize = 16;
const PLACES: usize = 1 << 16;

/// Program counters, innermost first; as many as are not 0.
struct Place([AtomicUsize; FRAMES]);

/// Samples of guests, and how many signals came elsewhere.
pub(crate) struct Buffer {
    claimed: AtomicUsize,
    elsewhere: AtomicUsize,
    places: [Place; PLACES],
}

/// The one of this process: zeros, which take no memory until they are written.
pub(crate) static SAMPLES: Buffer = Buffer {
    claimed: AtomicUsize::new(0),
    elsewhere: AtomicUsize::new(0),
    places: [const { Place([const { AtomicUsize::new(0) }; FRAMES]) }; PLACES],
};

impl Buffer {
    /// Puts a sample down. Signal-safe.
    pub(crate) fn put(&self, frames: &[usize]) {
        if frames.is_empty() {
            self.elsewhere.fetch_add(1, Relaxed);
            return;
        }
        let place = self.claimed.fetch_add(1, Relaxed);
        let Some(place) = self.places.get(place) else { return };
        for (to, from) in place.0.iter().zip(frames) {
            to.store(*from, Relaxed);
        }
    }

    /// All samples; when no handler runs any more.
    pub(crate) fn samples(&self) -> impl Iterator<Item = Vec<usize>> {
        self.places[..self.count()].iter().map(|place| {
            place.0.iter().map(|pc| pc.load(Relaxed)).take_while(|&pc| pc != 0).collect()
        })
    }

    /// How many samples there are.
    pub(crate) fn count(&self) -> usize {
        self.claimed.load(Relaxed).min(PLACES)
    }

    /// Signals that came when no guest was running.
    pub(crate) fn elsewhere(&self) -> usize {
        self.elsewhere.load(Relaxed)
    }

    /// Samples that there was no room for.
    pub(crate) fn lost(&self) -> usize {
        self.claimed.load(Relaxed).saturating_sub(PLACES)
    }
}
