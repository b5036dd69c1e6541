//! Explore.
use crate::sync::edge;
use crate::model::WEAKENED;
use std::process::Command;
#[test]
fn explore_all() {
    let models = ["grace_period::a_reader_a_writer_and_one_who_advances","reclamation::two_reclaimers_set_aside_what_a_lost_reader_may_hold","reclamation::a_buried_entry_against_a_writer_and_one_who_tidies","reclamation::settled_means_destroyed","publication::two_first_writers","reclamation::garbage_of_a_thread_that_ended"];
    let edges = edge::EDGES.iter().filter(|(_, o)| *o != std::sync::atomic::Ordering::Relaxed).map(|(n, _)| *n).chain(edge::FENCES.iter().copied()).filter(|e| ["observe_epoch","scan","advance","tidy","tidied","installed","set_aside","take_back","pop","head","writer_unlinks","scanner_looks","leave"].contains(e));
    for e in edges {
        let mut by = vec![];
        for n in models {
            let t = std::time::Instant::now();
            let out = Command::new(std::env::current_exe().unwrap()).args(["--exact", n]).env(WEAKENED, e).env("RUST_BACKTRACE","0").output().unwrap();
            if !out.status.success() { by.push(format!("{n} ({} ms)", t.elapsed().as_millis())); }
        }
        println!("EDGE {e}: {by:?}");
    }
}
