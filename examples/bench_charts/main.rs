//! Draws pictures of what the benchmarks saved.
//!
//! ```text
//! cargo bench -- --save benches/record/2026-11-23
//! cargo run --release --example bench_charts -- benches/record/2026-11-23
//! ```
//!
//! Reads the `time` lines of all `.txt` files in the folder, and the samples over time in `garbage.txt`,
//! `garbage_mimalloc.txt` and a soak's `soak.txt`, and writes the pictures there.

mod chart;
mod garbage;
mod measurements;
mod soak;

use chart::{Chart, Panel};
use measurements::Measurement;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const LAYOUTS: [&str; 3] = ["even", "clustered", "functions"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: bench_charts FOLDER");
        return ExitCode::from(2);
    };
    match draw(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_charts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw(folder: &Path) -> Result<(), Box<dyn Error>> {
    let all = measurements::read(folder)?;
    let lookups = |case: &str| {
        LAYOUTS.map(|layout| {
            let wanted = |m: &&Measurement| {
                (&*m.bench, &*m.case, &*m.layout) == ("lookup_latency", case, layout)
            };
            Panel::new(layout, all.iter().filter(wanted))
        })
    };
    let churn = [(1, 0), (1, 1), (2, 1), (2, 2)].map(|(threads, writers)| {
        let wanted = |m: &&Measurement| {
            (&*m.bench, &*m.case, &*m.layout) == ("lookup_contention", "p99", "even")
                && (m.threads, m.writers) == (threads, writers)
        };
        let many = |count: usize, what: &str| match count {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let title = format!("{}, {}", many(threads, "reader"), many(writers, "writer"));
        Panel::new(&title, all.iter().filter(wanted))
    });
    let pairs = [(Some(0), "without readers"), (Some(1), "beside one reader")];
    let pairs = pairs.map(|(readers, title)| {
        let wanted = |m: &&Measurement| {
            (&*m.bench, &*m.case, &*m.layout) == ("publication_cost", "pair", "even")
                && m.readers == readers
        };
        Panel::new(title, all.iter().filter(wanted))
    });
    let charts = [
        Chart {
            file: "lookup_warm.svg",
            title: "One lookup, warm: each address depends on the answer before (median)",
            panels: lookups("warm_dependent").into(),
        },
        Chart {
            file: "lookup_cold.svg",
            title: "One lookup, caches displaced (median)",
            panels: lookups("cold").into(),
        },
        Chart {
            file: "p99_under_churn.svg",
            title: "Single lookups while writers register and unregister, 99th percentile (layout even)",
            panels: churn.into(),
        },
        Chart {
            file: "pair_cost.svg",
            title: "Registering and unregistering one range among n (median, layout even)",
            panels: pairs.into(),
        },
    ];
    for chart in charts {
        let outcome = if chart.draw(folder)? { "drawn" } else { "nothing was measured" };
        println!("{}: {outcome}", chart.file);
    }
    for bench in garbage::BENCHES {
        let outcome = if garbage::draw(folder, bench)? { "drawn" } else { "nothing was sampled" };
        println!("{bench}.svg: {outcome}");
    }
    let outcome = if soak::draw(folder)? { "drawn" } else { "nothing was sampled" };
    println!("soak.svg: {outcome}");
    Ok(())
}
