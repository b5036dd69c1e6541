#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "asks the loader"))]
//! This process: where its loaded objects have their code.

use crate::layouts::Layout;

/// The executable segments of the loaded objects; `None` where the loader cannot be asked.
#[cfg(target_os = "linux")]
pub(crate) fn layout() -> Option<Layout> {
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    // SAFETY: the callback gets the vector and nothing else, and the call is over when this returns.
    unsafe { libc::dl_iterate_phdr(Some(segments::collect), (&raw mut ranges).cast()) };
    ranges.sort_unstable_by_key(|range| range.start);
    Some(Layout { name: "process", ranges })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn layout() -> Option<Layout> {
    None
}

#[cfg(target_os = "linux")]
mod segments {
    use std::ffi::{c_int, c_void};
    use std::ops::Range;
    use std::slice;

    pub(super) unsafe extern "C" fn collect(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        ranges: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's, for the length of this call.
        let object = unsafe { &*object };
        // SAFETY: the vector that `layout` handed in.
        let ranges = unsafe { &mut *ranges.cast::<Vec<Range<usize>>>() };
        // SAFETY: the object's table, as the loader describes it.
        let headers = unsafe { slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                let start = (object.dlpi_addr + header.p_vaddr) as usize;
                ranges.push(start..start + header.p_memsz as usize);
            }
        }
        0
    }
}
