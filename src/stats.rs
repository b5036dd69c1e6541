//! Figures of a map.

use core::fmt;
use core::time::Duration;

/// What a map holds and what it has yet to destroy: from [`CodeMap::stats`](crate::CodeMap::stats).
///
/// The figures are read one after another while other threads go on, so each is right for some
/// moment during the call.
///
/// ```
/// let map = pcmap::CodeMap::new();
/// drop(map.register(0x1000..0x2000, "code").unwrap());
/// assert_eq!((map.stats().entries, map.stats().publications), (0, 1));
/// map.synchronize();
/// assert_eq!((map.stats().retired, map.stats().retired_bytes), (0, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Registered ranges.
    pub entries: usize,
    /// What the published version takes beside the values, in bytes: nodes, and the headers of
    /// entries (without what the allocator adds).
    pub index_bytes: usize,
    /// Removed ranges that the published version still has a slot for: at most about a quarter of all,
    /// while registrations go on.
    pub removed: usize,
    /// Versions published so far: one per registration or batch, and one per leaf that was compacted.
    pub publications: u64,
    /// Garbage that is not freed yet: nodes and entries that were displaced, and values that
    /// were unregistered.
    pub retired: u64,
    /// Its memory in bytes: nodes, entries and the vectors of snapshots (without what values own).
    pub retired_bytes: u64,
    /// Garbage that was freed.
    pub destroyed: u64,
    /// How often the epoch of the current era advanced. It stands still while a reader stays inside.
    pub epoch: u64,
    /// Eras begun so far. A new one begins when garbage piles up behind a reader that stays inside.
    pub eras: u64,
    /// Eras that have ended while a reader was inside that has not left: at most one for each thread that
    /// stalled. What each holds: [`CodeMap::eras`](crate::CodeMap::eras).
    pub eras_held: usize,
    /// How long the oldest of the garbage has waited, roughly. Ever longer: a reader is lost, or nobody
    /// writes or calls [`CodeMap::reclaim`](crate::CodeMap::reclaim).
    pub oldest_wait: Option<Duration>,
}

/// One era of a map: from [`CodeMap::eras`](crate::CodeMap::eras).
///
/// ```
/// let map = pcmap::CodeMap::new();
/// let _code = map.register(0x1000..0x2000, "code").unwrap();
/// let eras: Vec<_> = map.eras().collect();
/// assert_eq!((eras.len(), eras[0].number, eras[0].is_current), (1, 1, true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EraStats {
    /// Its number: eras are numbered from 1 on.
    pub number: u64,
    /// Whether it is the current one. Any other holds what it does because of a reader that entered
    /// in it and has not left.
    pub is_current: bool,
    /// The garbage that waits for its readers.
    pub retired: u64,
    /// The memory of that garbage in bytes (without what values own).
    pub retired_bytes: u64,
    /// How long ago it began; none for the first.
    pub age: Option<Duration>,
}

/// What [`CodeMap::reclaim`](crate::CodeMap::reclaim) had to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it says whether anything is left"]
pub struct Remaining {
    /// Garbage that is not freed yet, as [`Stats::retired`] counts it.
    pub items: u64,
    /// Its memory in bytes.
    pub bytes: u64,
}

impl Remaining {
    /// Whether nothing is left to free.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, index_bytes, removed, publications, retired, .. } = self;
        let Self { retired_bytes, destroyed, epoch, eras, eras_held, oldest_wait, .. } = self;
        write!(
            f,
            "entries={entries} index_bytes={index_bytes} removed={removed} publications={publications} \
             retired={retired} retired_bytes={retired_bytes} destroyed={destroyed} epoch={epoch} \
             eras={eras} eras_held={eras_held}"
        )?;
        match oldest_wait {
            Some(wait) => write!(f, " oldest_wait_ms={}", wait.as_millis()),
            None => Ok(()),
        }
    }
}
