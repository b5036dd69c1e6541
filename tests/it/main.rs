//! The public API: each promise by example. (Random calls against a plain ordered map are in
//! `tests/fuzz_replay.rs`.)

mod api;
mod snapshot_ranges;
#[path = "../tracked/mod.rs"]
mod tracked;
