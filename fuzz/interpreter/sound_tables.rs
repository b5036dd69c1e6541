//! What holds of the tables of every image, wherever it comes from.

use pcmap::registry::{CodeTables, TextOffset};

/// Every entry of every table is inside the text, in order, and found again; beside it, what a scan
/// of the table finds.
pub(crate) fn assert_sound(tables: &CodeTables) {
    functions(tables);
    let mut last = None;
    for (offset, code) in tables.trap_table().view() {
        assert!(offset.get() < tables.text_len() && Some(offset) > last, "a trap at {offset}");
        assert_eq!(tables.trap_at(offset), Some(code));
        last = Some(offset);
    }
    let mut last = None;
    for entry in tables.address_map().view().iter() {
        assert!(entry.0.get() < tables.text_len() && Some(entry.0) > last, "{entry:?}");
        assert_eq!(tables.address_map().view().entry(entry.0), Some(entry));
        last = Some(entry.0);
    }
    let mut last = None;
    for (signature, function) in tables.trampolines() {
        assert!(Some(signature) > last, "{signature}");
        assert_eq!(tables.trampoline(signature), Some(function));
        assert_eq!(tables.function(function.key), Some(function));
        last = Some(signature);
    }
    let mut end = TextOffset::new(0);
    for site in tables.breakpoint_sites() {
        assert!(site.range.start() >= end && !site.range.is_empty(), "{site:?}");
        assert!(tables.is_breakpoint_site(site.range.start()));
        let around = tables.function_at(site.range.start()).expect("a site is in a function");
        assert!(site.range.end() <= around.range.end(), "{site:?}");
        end = site.range.end();
    }
}

fn functions(tables: &CodeTables) {
    let mut end = TextOffset::new(0);
    for function in tables.functions() {
        let range = function.range;
        assert!(range.start() >= end && !range.is_empty(), "{function:?}");
        // Before it, where there is a gap, nothing; from its first byte to its last, itself.
        if range.start() > end {
            assert_eq!(tables.function_at(end), None);
            assert_eq!(tables.function_at(TextOffset::new(range.start().get() - 1)), None);
        }
        assert_eq!(tables.function_at(range.start()), Some(function));
        assert_eq!(tables.function_at(TextOffset::new(range.end().get() - 1)), Some(function));
        assert_eq!(tables.function(function.key), Some(function));
        let mut of_namespace = tables.functions_in(function.key.namespace());
        assert!(of_namespace.next().is_some_and(|first| first.key <= function.key));
        end = range.end();
    }
    assert_eq!(tables.function_at(end), None);
    assert!(end.get() <= tables.text_len());
}
