//! How much of hostile files is read: never more than a few times their length.
//!
//! A read of a slice is one step, a search for the end of a name one for each byte. (What is then done
//! with a slice is a pass over it, or a copy, and copies are allocations: see `tests/image_memory.rs`.)

use super::{ElfError, read_artifact, read_elf};
use core::cell::Cell;
use core::ops::Range;
use object::ReadRef;
use proptest::prelude::*;

#[path = "../../../tests/images/hostile.rs"]
mod hostile;

/// Bytes whose reads are counted.
#[derive(Clone, Copy)]
struct Counted<'d> {
    bytes: &'d [u8],
    steps: &'d Cell<u64>,
}

impl<'d> ReadRef<'d> for Counted<'d> {
    fn len(self) -> Result<u64, ()> {
        Ok(self.bytes.len() as u64)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'d [u8], ()> {
        self.steps.set(self.steps.get() + 1);
        self.bytes.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'d [u8], ()> {
        let found = self.bytes.read_bytes_at_until(range.clone(), delimiter);
        let searched =
            found.map_or(range.end.saturating_sub(range.start), |found| found.len() as u64);
        self.steps.set(self.steps.get() + searched + 1);
        found
    }
}

/// Steps that both readers need for a file.
fn steps(bytes: &[u8]) -> ([Option<ElfError>; 2], u64) {
    let steps = Cell::new(0);
    let counted = Counted { bytes, steps: &steps };
    ([read_elf(counted).err(), read_artifact(counted).err()], steps.get())
}

proptest! {
    #[test]
    fn changed_files_are_read_a_few_times_at_most(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut files = hostile::files(3000);
        let (name, file) = which.get_mut(&mut files);
        for (at, byte) in changes {
            *at.get_mut(file) = byte;
        }
        let (errors, steps) = steps(file);
        prop_assert!(steps <= 4 * file.len() as u64, "{}: {} steps, {:?}", name, steps, errors);
    }
}

#[test]
fn hostile_files_are_read_a_few_times_at_most() {
    for (name, file) in hostile::files(200_000) {
        let (errors, steps) = steps(&file);
        println!("{name}: {} bytes, {steps} steps, {errors:?}", file.len());
        assert!(steps <= 4 * file.len() as u64, "{name}: {steps} steps");
    }
}
