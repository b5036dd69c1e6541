//! The handler's machine code, as a release build has it: which functions it reaches, and that none of
//! them calls out of the crate, touches a thread-local, or makes a system call.
//!
//! Needs `objdump`, and is skipped with a notice if there is none.
#![cfg(target_arch = "x86_64")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the handler begins, and where it goes when a signal is none of ours: by their names.
const HANDLER: &str = "trap::fault::on_fault";
const PASS_ON: &str = "signals::chain::pass_on";

/// A function's instructions, one a line, without addresses and bytes.
type Functions = BTreeMap<String, Vec<String>>;

/// A release build of the plugin, in a target folder of its own.
fn plugin() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disassembly");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--example", "trap_plugin", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).arg("--target-dir").arg(&target);
    assert!(build.status().expect("cargo").success());
    target.join("release/examples/libtrap_plugin.so")
}

fn functions(listing: &str) -> Functions {
    let mut functions = Functions::new();
    let mut current = None;
    for line in listing.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            current = Some(name.1.to_owned());
            functions.entry(name.1.to_owned()).or_default();
        } else if let Some(name) = &current
            && let Some((_, instruction)) = line.split_once(":\t")
        {
            let function = functions.get_mut(name).expect("entered above");
            function.push(instruction.trim().to_owned());
        }
    }
    functions
}

/// The function that an instruction goes to, if that is another one.
fn target(instruction: &str) -> Option<&str> {
    let (_, target) = instruction.split_once('<')?;
    let target = target.split(['>', '+']).next()?;
    let goes = instruction.starts_with("call") || instruction.starts_with('j');
    goes.then_some(target)
}

/// What of an instruction must not be on the path.
fn offence(instruction: &str) -> Option<&'static str> {
    let called = target(instruction).unwrap_or("");
    if instruction.contains("%fs:") || called.contains("__tls_get_addr") {
        Some("a thread-local")
    } else if instruction.starts_with("syscall") {
        Some("a system call")
    } else if called.contains("@plt") {
        Some("a call out of the library")
    } else if (instruction.starts_with("call") || instruction.starts_with("jmp"))
        && instruction.contains('*')
        && !instruction.contains("(%r") // a jump table, or a method of a table: told below
    {
        Some("a call through a pointer")
    } else if instruction.starts_with("call") && instruction.contains('*') {
        Some("a call through a table")
    } else if called.contains("panic") {
        Some("a panic")
    } else {
        None
    }
}

/// All offences of the functions that `from` reaches, but by way of `except`; and those functions.
fn offences(functions: &Functions, from: &str, except: &str) -> (Vec<String>, BTreeSet<String>) {
    let named = |part: &str| -> Vec<String> {
        functions.keys().filter(|name| name.contains(part)).cloned().collect()
    };
    let mut left = named(from);
    assert_eq!(left.len(), 1, "the handler is one function: {left:?}");
    let mut seen = BTreeSet::from_iter(named(except));
    let exempt = seen.clone();
    let mut found = Vec::new();
    while let Some(name) = left.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for instruction in functions.get(&name).map(Vec::as_slice).unwrap_or_default() {
            if let Some(offence) = offence(instruction) {
                found.push(format!("{name}: {offence}: {instruction}"));
            }
            left.extend(target(instruction).map(str::to_owned));
        }
    }
    (found, &seen - &exempt)
}

#[test]
fn the_check_bites() {
    let check = |body: &str| {
        let listing = format!(
            "0000 <a::{HANDLER}::h1>:\n 0:\tcall 10 <other>\n 5:\tcall 20 <{PASS_ON}>\n\n\
             0010 <other>:\n 10:\t{body}\n\n0020 <{PASS_ON}>:\n 20:\tsyscall\n"
        );
        offences(&functions(&listing), HANDLER, PASS_ON).0.len()
    };
    assert_eq!(check("mov    %rax,%rbx"), 0);
    assert_eq!(check("mov    %fs:0x0,%rax"), 1);
    assert_eq!(check("syscall"), 1);
    assert_eq!(check("call   1000 <malloc@plt>"), 1);
    assert_eq!(check("call   *0x2000(%rip)        # 3000 <malloc@GLIBC>"), 1);
    assert_eq!(check("call   *%rax"), 1);
    assert_eq!(check("call   *0x18(%rax)"), 1);
    assert_eq!(check("call   1000 <core::panicking::panic_bounds_check>"), 1);
}

#[test]
fn the_handler_stays_in_the_crate() {
    let mut objdump = Command::new("objdump");
    objdump.args(["--disassemble", "--demangle", "--no-show-raw-insn", "--wide"]).arg(plugin());
    let output = match objdump.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: no objdump ({error})"),
    };
    assert!(output.status.success());
    let functions = functions(&String::from_utf8_lossy(&output.stdout));
    let (found, path) = offences(&functions, HANDLER, PASS_ON);
    let instructions: usize = path.iter().map(|name| functions.get(name).map_or(0, Vec::len)).sum();
    println!("{instructions} instructions in {path:#?}");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(instructions > 100, "that is no handler");
}
