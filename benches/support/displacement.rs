#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "madvise"))]
//! Caches as a handler finds them: full of what the program was doing.

use std::hint::black_box;

const LINE: usize = 64;

/// A buffer that is written from end to end to displace what the caches hold.
///
/// It is larger than a core's own caches and its share of a common one, and of small pages, so that
/// it takes all entries of the address translation, too. What a large common cache keeps of others
/// cannot be helped.
#[derive(Debug)]
pub(crate) struct Displacement {
    lines: Vec<u64>,
}

impl Displacement {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut displacement = Self { lines: vec![0; bytes / size_of::<u64>()] };
        displacement.demand_small_pages();
        displacement.displace();
        displacement
    }

    #[cfg(target_os = "linux")]
    fn demand_small_pages(&mut self) {
        // A page at least, and a power of two, on every Linux.
        const PAGE: usize = 1 << 16;
        let start = self.lines.as_mut_ptr();
        let skipped = start.addr().next_multiple_of(PAGE) - start.addr();
        let len = size_of_val(&*self.lines).saturating_sub(skipped) & !(PAGE - 1);
        let whole_pages = start.wrapping_byte_add(skipped);
        // SAFETY: pages of the buffer, whose contents the advice leaves alone. If the system does
        // not follow it, translations stay warmer than they should.
        unsafe { libc::madvise(whole_pages.cast(), len, libc::MADV_NOHUGEPAGE) };
    }

    #[cfg(not(target_os = "linux"))]
    fn demand_small_pages(&mut self) {}

    pub(crate) fn displace(&mut self) {
        for line in self.lines.chunks_mut(LINE / size_of::<u64>()) {
            line[0] = line[0].wrapping_add(1);
        }
        black_box(&mut self.lines);
    }
}
