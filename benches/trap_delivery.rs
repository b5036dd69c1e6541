#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    expect(dead_code, reason = "nothing is measured there")
)]
//! What a trap costs, from the fault to the instruction that the handler sends the guest on to: with
//! a handler that does nothing else, and with one that first asks the map what faulted. It is always
//! the same load, so the lookup is a warm one; what a cold one takes is in `lookup_latency`.
//!
//! Then the same by way of the trap runtime: from the call of a guest to the `Err` with its trap (case
//! `trap`), and a call that does not trap (`call`), against what C does (`sigsetjmp`), and against the
//! least there is.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "support/guest.rs"]
mod guest;
#[path = "support/options.rs"]
mod options;
#[path = "support/report.rs"]
mod report;
#[path = "support/rounds.rs"]
mod rounds;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "support/way_back.rs"]
mod way_back;

use options::Options;
use report::Report;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_command_line();
    let mut report = Report::new("trap_delivery", &options);
    measure(&options, &mut report)?;
    measure_runtime(&options, &mut report)?;
    report.save();
    Ok(())
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn measure(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    use guest::{CODE, ForbiddenPage, Handler};
    use options::Mode;
    use report::{SUBJECT, Setting};
    use rounds::{median, take_turns};

    const HANDLERS: [(&str, Handler); 2] =
        [("resume_only", Handler::ResumeOnly), (SUBJECT, Handler::LookUp)];
    const BASE: usize = 0x1000_0000_0000;
    const STRIDE: usize = 0x1000;
    const LENGTH: usize = 0xc00;

    let page = ForbiddenPage::map()?;
    let guest = CODE.register(guest::code(), guest::resumption()).expect("registered once");
    for n in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let small = options.mode != Mode::Test || n <= 10_000;
        if !small || !options.wants("even", n) || !options.wants_case("fault") {
            continue;
        }
        let others = (1..n).map(|i| BASE + i * STRIDE).map(|start| (start..start + LENGTH, 0));
        let others = CODE.register_all(others).expect("far from the guest");
        let rounds = options.mode.pick(101, 31, 1);
        let faults = options.mode.pick(10_000, 5_000, 100);
        let times = take_turns(rounds, HANDLERS.len(), |i| page.fault(HANDLERS[i].1, faults));
        let mut medians = Vec::new();
        for ((name, _), times) in HANDLERS.iter().zip(times) {
            medians.push((*name, median(times.into_iter().collect::<Result<Vec<_>, _>>()?)));
        }
        // Nobody waits: what is still held of them is destroyed by the writes to come.
        let _ = CODE.unregister_all(others);
        let (case, layout) = ("fault", "even");
        let setting = Setting { case, layout, n, threads: 1, writers: 0, more: String::new() };
        report.times(&setting, &medians);
        let share = format!("{:.1}", medians[1].1 - medians[0].1);
        report.figure("lookup_share_of_fault_ns", &format!(" layout={layout} n={n}"), share);
    }
    drop(guest);
    Ok(())
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn measure_runtime(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    use guest::{ForbiddenPage, Handler};
    use report::{SUBJECT, Setting};
    use rounds::{median, take_turns};
    use way_back::{Process, Way};

    let (page, readable) = (ForbiddenPage::map()?, 0_u64);
    for n in [10, 1_000] {
        if !options.wants("even", n) {
            continue;
        }
        let process = Process::with_modules(n)?;
        let trap = |way, times| process.call(way, page.0, times);
        let call = |way, times| process.call(way, &raw const readable, times);
        let resume_only = |times| page.fault(Handler::ResumeOnly, times);
        type Contender<'c> = (&'static str, &'c dyn Fn(usize) -> std::io::Result<f64>);
        let cases: [(&str, usize, [Contender<'_>; 3]); 2] = [
            (
                "trap",
                options.mode.pick(10_000, 5_000, 100),
                [
                    ("resume_only", &resume_only),
                    ("sigsetjmp", &|times| trap(Way::Jump, times)),
                    (SUBJECT, &|times| trap(Way::Activation, times)),
                ],
            ),
            (
                "call",
                options.mode.pick(1_000_000, 200_000, 100),
                [
                    ("plain_call", &|times| call(Way::Plain, times)),
                    ("sigsetjmp", &|times| call(Way::Jump, times)),
                    (SUBJECT, &|times| call(Way::Activation, times)),
                ],
            ),
        ];
        for (case, times, contenders) in cases {
            if !options.wants_case(case) {
                continue;
            }
            let rounds = options.mode.pick(101, 31, 1);
            let samples = take_turns(rounds, contenders.len(), |i| contenders[i].1(times));
            let mut medians = Vec::new();
            for ((name, _), samples) in contenders.iter().zip(samples) {
                let samples = samples.into_iter().collect::<Result<Vec<_>, _>>()?;
                medians.push((*name, median(samples)));
            }
            let (layout, more) = ("even", String::new());
            let setting = Setting { case, layout, n, threads: 1, writers: 0, more };
            report.times(&setting, &medians);
        }
    }
    Ok(())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn measure(_: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    report.note("skipped: the signal frames of this system are not known");
    Ok(())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn measure_runtime(_: &Options, _: &mut Report) -> Result<(), Box<dyn Error>> {
    Ok(())
}
