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
/// assert_eq!((map.stats().entries, map.stats().publications), (0, 2));
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
    /// Versions published so far: one per write, however many ranges it added or removed.
    pub publications: u64,
    /// Versions displaced and not destroyed yet.
    pub retired: u64,
    /// Their memory in bytes: nodes, and the entries they were the last to show (without what
    /// the values own).
    pub retired_bytes: u64,
    /// Versions displaced and destroyed.
    pub destroyed: u64,
    /// How often the reclamation epoch advanced in this process. It stands still while a reader
    /// stays inside.
    pub epoch: u64,
    /// How long the oldest of the retired versions has waited. Ever longer: a reader is lost, or
    /// nobody writes or calls [`CodeMap::reclaim`](crate::CodeMap::reclaim).
    pub oldest_wait: Option<Duration>,
}

/// What [`CodeMap::reclaim`](crate::CodeMap::reclaim) had to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "it says whether anything is left"]
pub struct Remaining {
    /// Versions displaced and not destroyed yet.
    pub versions: u64,
    /// Their memory in bytes.
    pub bytes: u64,
}

impl Remaining {
    /// Whether nothing is left to destroy.
    pub fn is_empty(&self) -> bool {
        self.versions == 0
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, index_bytes, publications, retired, .. } = self;
        let Self { retired_bytes, destroyed, epoch, oldest_wait, .. } = self;
        write!(
            f,
            "entries={entries} index_bytes={index_bytes} publications={publications} retired={retired} \
             retired_bytes={retired_bytes} destroyed={destroyed} epoch={epoch}"
        )?;
        match oldest_wait {
            Some(wait) => write!(f, " oldest_wait_ms={}", wait.as_millis()),
            None => Ok(()),
        }
    }
}
