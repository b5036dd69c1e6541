//! What a fuzzer calls: any bytes give images or errors, and images that were given hold together.

use pcmap::registry::{CodeImage, CodeTables, TextOffset};

/// Reads `data` in every way that there is and looks at all that came out. Panics only if pcmap is
/// wrong. Tells whether any image was given.
pub(crate) fn read_any(data: &[u8]) -> bool {
    let images = [CodeImage::from_elf(data), CodeImage::from_wasmtime_artifact(data)];
    let mut given = false;
    for image in images.into_iter().flatten() {
        assert!(image.text().len() <= data.len(), "no more text than there are bytes");
        look_at_all(image.tables());
        given = true;
    }
    given
}

/// Every entry of every table is inside the text, and found again.
fn look_at_all(tables: &CodeTables) {
    let mut end = TextOffset::new(0);
    for function in tables.functions() {
        assert!(function.range.start() >= end && !function.range.is_empty(), "{function:?}");
        end = function.range.end();
        assert_eq!(tables.function_at(function.range.start()), Some(function));
        assert_eq!(tables.function(function.key), Some(function));
    }
    assert!(end.get() <= tables.text_len());
    for (offset, code) in tables.trap_table().view() {
        assert!(offset.get() < tables.text_len());
        assert_eq!(tables.trap_at(offset), Some(code));
    }
    for entry in tables.address_map().view().iter() {
        assert!(entry.0.get() < tables.text_len());
        assert_eq!(tables.address_map().view().entry(entry.0), Some(entry));
    }
    for (signature, function) in tables.trampolines() {
        assert_eq!(tables.trampoline(signature), Some(function));
    }
}
