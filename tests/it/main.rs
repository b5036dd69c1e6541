//! The public API: each promise by example, and random operations against a plain `BTreeMap`.

mod api;
mod oracle;
#[path = "../tracked/mod.rs"]
mod tracked;
