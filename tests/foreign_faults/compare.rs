//! Runs each scenario in two processes, and compares them.

use crate::stage::Stage;
use crate::{faults, handlers, installing, once, stack_ends};
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

/// A scenario: its name, what it does, and whether the two processes end by a signal.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Stage),
    pub(crate) ends: Ends,
}

/// How a process must end: both of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Well,
    By(libc::c_int),
}

pub(crate) fn main() {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let suites = [
        faults::SCENARIOS,
        once::SCENARIOS,
        handlers::SCENARIOS,
        installing::SCENARIOS,
        stack_ends::SCENARIOS,
    ];
    let scenarios: Vec<_> = suites.into_iter().flatten().collect();
    if let [child, name, installed] = &*arguments
        && child == "child"
    {
        let scenario = scenarios.iter().find(|scenario| scenario.name == name);
        return (scenario.expect("a scenario").run)(&Stage::new(installed == "with"));
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen: Vec<_> =
        scenarios.iter().filter(|it| filter.is_none_or(|part| it.name.contains(&**part))).collect();
    let failed: Vec<_> = chosen.iter().filter(|scenario| !compare(scenario)).collect();
    println!("{} scenarios, {} failed", chosen.len(), failed.len());
    assert!(failed.is_empty());
}

fn compare(scenario: &Scenario) -> bool {
    let [with, without] = ["with", "without"].map(|installed| run(scenario.name, installed));
    let same = with.status == without.status && with.stdout == without.stdout;
    #[cfg(target_arch = "x86_64")]
    let same = same
        && (scenario.ends == Ends::Well || {
            let [with, without] = ["with", "without"]
                .map(|installed| crate::last_words::of(scenario.name, installed));
            if with != without {
                println!("{}: with: {with:x?}, without: {without:x?}", scenario.name);
            }
            with == without && with.is_some()
        });
    let right = match scenario.ends {
        Ends::Well => with.status.success(),
        Ends::By(signal) => with.status.signal() == Some(signal),
    };
    println!(
        "{}: {} ({})",
        scenario.name,
        if same && right { "ok" } else { "FAILED" },
        with.status
    );
    if !(same && right) {
        println!("must end: {:?}\nwith: {with:#?}\nwithout: {without:#?}", scenario.ends);
    }
    same && right
}

fn run(name: &str, installed: &str) -> Output {
    let program = env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["child", name, installed]).env("RUST_BACKTRACE", "0");
    command.output().expect("a process")
}
