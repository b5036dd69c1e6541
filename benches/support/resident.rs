#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "asks for the size of a page"))]
//! How much of this process is in memory.

/// Bytes; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn resident_bytes() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = told.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: it only answers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn resident_bytes() -> Option<u64> {
    None
}

/// In MiB, for people; `n/a` where the system does not tell.
pub(crate) fn format_mib(bytes: Option<u64>) -> String {
    bytes.map_or("n/a".into(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
}
