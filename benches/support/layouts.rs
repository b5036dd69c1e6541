//! Where ranges lie, and which addresses are asked for.

use crate::functions::SharedObject;
use std::cell::OnceCell;
use std::ops::Range;

/// The numbers of ranges.
pub(crate) const SIZES: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// Far from where systems put anything.
const BASE: usize = 0x1000_0000_0000;
const STRIDE: usize = 0x1000;
const LENGTH: usize = 0xc00;
const ARENAS: usize = 8;
const TIB: usize = 1 << 40;

/// Ranges in ascending order, disjoint.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) ranges: Vec<Range<usize>>,
}

/// All layouts. The shared object is looked for once, when `functions` is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    functions: OnceCell<Option<SharedObject>>,
}

impl Layouts {
    pub(crate) const NAMES: [&str; 3] = ["even", "clustered", "functions"];

    /// A layout by name, with `n` ranges; or a notice that there is none.
    pub(crate) fn find(&self, name: &str, n: usize) -> Result<Layout, String> {
        match name {
            "even" => Ok(even(n)),
            "clustered" => Ok(clustered(n)),
            "functions" => self.functions(n),
            _ => Err(format!("skipped: there is no layout {name}")),
        }
    }

    fn functions(&self, n: usize) -> Result<Layout, String> {
        let Some(object) = self.functions.get_or_init(SharedObject::with_most_functions) else {
            return Err(format!("skipped: functions, n = {n}: no shared object was found"));
        };
        match object.functions.get(..n) {
            Some(ranges) => Ok(Layout { name: "functions", ranges: ranges.to_vec() }),
            None => Err(format!(
                "skipped: functions, n = {n}: {} has {}",
                object.name,
                object.functions.len()
            )),
        }
    }
}

/// Same lengths at same distances.
fn even(n: usize) -> Layout {
    let starts = (0..n).map(|i| BASE + i * STRIDE);
    Layout { name: "even", ranges: starts.map(|start| start..start + LENGTH).collect() }
}

/// Eight arenas, 1 TiB apart: dense inside, far from each other.
fn clustered(n: usize) -> Layout {
    let starts = (0..n).map(|i| {
        // Arena by arena; the first ones hold one range more if eight does not divide n.
        let (arena, place) = (i * ARENAS / n, i - (i * ARENAS / n * n).div_ceil(ARENAS));
        BASE + arena * TIB + place * STRIDE
    });
    Layout { name: "clustered", ranges: starts.map(|start| start..start + LENGTH).collect() }
}

impl Layout {
    pub(crate) fn n(&self) -> usize {
        self.ranges.len()
    }

    /// The free addresses between neighbours; above the last range if there are none.
    pub(crate) fn gaps(&self) -> Vec<Range<usize>> {
        let pairs = self.ranges.windows(2).map(|pair| pair[0].end..pair[1].start);
        let mut gaps: Vec<_> = pairs.filter(|gap| !gap.is_empty()).collect();
        if gaps.is_empty() {
            let end = self.ranges.last().map_or(BASE, |last| last.end);
            gaps.push(end..end + STRIDE);
        }
        gaps
    }

    /// Addresses to ask for: a random place of a random range. A power of two of them, more for
    /// layouts that no cache holds.
    pub(crate) fn probes(&self) -> Vec<usize> {
        random_places(&self.ranges, self.n())
    }

    /// Addresses that no range holds, between ranges.
    pub(crate) fn misses(&self) -> Vec<usize> {
        random_places(&self.gaps(), self.n())
    }
}

fn random_places(ranges: &[Range<usize>], n: usize) -> Vec<usize> {
    let mut random = fastrand::Rng::with_seed(n as u64);
    let count = if n < 100_000 { 1 << 14 } else { 1 << 18 };
    let place = |_| {
        let range = &ranges[random.usize(..ranges.len())];
        random.usize(range.clone())
    };
    (0..count).map(place).collect()
}
