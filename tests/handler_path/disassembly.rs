//! The handler's machine code, as a release build has it: which functions it reaches, and that none of
//! them calls out of the crate, touches a thread-local, or makes a system call.
//!
//! Needs `objdump`, and is skipped with a notice if there is none.
#![cfg(target_arch = "x86_64")]

use crate::skipped::skipped;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the handler begins, and where it goes when a signal is none of ours: parts of their mangled
/// names. (Demangled, many closures have the same name.)
const HANDLER: &str = "4trap5fault8on_fault";
const PASS_ON: &str = "7signals5chain7pass_on";
const DEPART: &str = "7machine6x86_646depart";

/// What a profiler's handler calls.
const SAMPLER: &str = "4trap6sample12sample_guest";

/// How the handler tells which thread it is on: once. Whoever reads it again is after a thread-local.
const THREAD_POINTER: &str = "mov    %fs:0x0,";

/// Code that runs only while something unwinds: a handler that was there before, and its frames.
const UNWINDING: &str = "_Unwind_Resume";

/// What is read from a library.
#[derive(Default)]
struct Library {
    /// Instructions of each function, without addresses and bytes.
    functions: BTreeMap<String, Vec<String>>,
    /// Functions by their addresses.
    places: BTreeMap<u64, String>,
    /// What the loader puts into a slot: an address in the library, or the name of something elsewhere.
    slots: BTreeMap<u64, Slot>,
}

enum Slot {
    Here(u64),
    Elsewhere(String),
}

fn number(hexadecimal: &str) -> Option<u64> {
    u64::from_str_radix(hexadecimal.trim_start_matches("0x"), 16).ok()
}

impl Library {
    /// From a disassembly, and a list of what the loader puts where.
    fn read(disassembly: &str, relocations: &str) -> Self {
        let mut library = Self::default();
        let mut current = None;
        for line in disassembly.lines() {
            if let Some((place, name)) =
                line.strip_suffix(">:").and_then(|line| line.split_once(" <"))
            {
                current = Some(name.to_owned());
                library.functions.entry(name.to_owned()).or_default();
                library.places.extend(number(place).map(|place| (place, name.to_owned())));
            } else if let Some(name) = &current
                && let Some((_, instruction)) = line.split_once(":\t")
            {
                let function = library.functions.get_mut(name).expect("entered above");
                function.push(instruction.trim().to_owned());
            }
        }
        for line in relocations.lines() {
            let mut words = line.split_whitespace();
            let (place, kind, value) = (words.next().and_then(number), words.next(), words.next());
            let (Some(place), Some(_), Some(value)) = (place, kind, value) else { continue };
            let here = value.strip_prefix("*ABS*+").and_then(number);
            let slot = here.map_or_else(|| Slot::Elsewhere(value.to_owned()), Slot::Here);
            library.slots.insert(place, slot);
        }
        library
    }

    /// Where an instruction goes, if that is another function; or why it must not be on the path.
    fn follow(&self, instruction: &str) -> Result<Option<String>, &'static str> {
        if instruction.starts_with(THREAD_POINTER) {
            return Ok(None);
        }
        if instruction.contains("%fs:") || instruction.contains("__tls_get_addr") {
            return Err("a thread-local");
        }
        if instruction.starts_with("syscall") || instruction.starts_with("int ") {
            return Err("a system call");
        }
        if !instruction.starts_with("call") && !instruction.starts_with('j') {
            return Ok(None);
        }
        // `call *0x1234(%rip)  # 5678 <…>`: by way of a slot.
        if instruction.contains('*') {
            let slot = instruction
                .split_once("# ")
                .and_then(|(_, place)| self.slots.get(&number(place.split_whitespace().next()?)?));
            return match slot {
                Some(Slot::Here(place)) => match self.places.get(place) {
                    Some(name) => Self::allowed(name),
                    None => Err("a call of something without a name"),
                },
                Some(Slot::Elsewhere(name)) if name.starts_with(UNWINDING) => Ok(None),
                Some(Slot::Elsewhere(_)) => Err("a call out of the library"),
                None => Err("a call through a pointer"),
            };
        }
        let named = instruction.split_once('<').map(|(_, name)| name);
        let name = named.and_then(|name| name.strip_suffix('>')).unwrap_or("");
        // `<name+0x12>` is a place in it.
        let name = name.rsplit_once("+0x").map_or(name, |(name, _)| name);
        Self::allowed(name)
    }

    fn allowed(name: &str) -> Result<Option<String>, &'static str> {
        if name.starts_with(UNWINDING) {
            Ok(None)
        } else if name.contains("@plt") {
            Err("a call out of the library")
        } else if name.contains("panic") {
            Err("a panic")
        } else {
            Ok(Some(name.to_owned()))
        }
    }
}

/// A release build of the plugin, by itself: a package of its own, so that nothing is built that only
/// tests need.
fn plugin() -> PathBuf {
    let root = env!("CARGO_MANIFEST_DIR");
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disassembly");
    fs::create_dir_all(&package).expect("a folder");
    let manifest = format!(
        "[package]\nname = \"plugin\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\npath = \"{root}/examples/trap_plugin.rs\"\n\
         [dependencies.pcmap]\npath = \"{root}\"\ndefault-features = false\nfeatures = [\"trap\"]\n\
         [workspace]\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).expect("a file");
    fs::copy(Path::new(root).join("Cargo.lock"), package.join("Cargo.lock")).expect("a file");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--target-dir", "target"]).current_dir(&package);
    assert!(build.status().expect("cargo").success());
    package.join("target/release/libplugin.so")
}

/// All offences of the functions that `from` reaches, but by way of `except`; and those functions.
fn offences(library: &Library, from: &str, except: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    let named = |part: &str| -> Vec<String> {
        library.functions.keys().filter(|name| name.contains(part)).cloned().collect()
    };
    let mut left = named(from);
    assert_eq!(left.len(), 1, "the handler is one function: {left:?}");
    let exempt: BTreeSet<_> = except.iter().flat_map(|part| named(part)).collect();
    let mut seen = exempt.clone();
    let mut found = Vec::new();
    while let Some(name) = left.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        for instruction in library.functions.get(&name).map(Vec::as_slice).unwrap_or_default() {
            match library.follow(instruction) {
                Ok(next) => left.extend(next),
                Err(offence) => found.push(format!("{name}: {offence}: {instruction}")),
            }
        }
    }
    let path = &seen - &exempt;
    let read = path.iter().filter_map(|name| library.functions.get(name)).flatten();
    let reads = read.filter(|instruction| instruction.starts_with(THREAD_POINTER)).count();
    found.extend((1..reads).map(|_| "the thread pointer again: a thread-local".to_owned()));
    (found, path)
}

#[test]
fn the_check_bites() {
    let check = |body: &str| {
        let listing = format!(
            "0000 <a::{HANDLER}>:\n 0:\tcall 10 <other>\n 5:\tcall 20 <{PASS_ON}>\n\n\
             0010 <other>:\n 10:\t{body}\n\n0020 <{PASS_ON}>:\n 20:\tsyscall\n\n\
             0030 <deeper>:\n 30:\tsyscall\n"
        );
        let slots = "0000000000003000 R_X86_64_GLOB_DAT  malloc@GLIBC_2.2.5\n\
                     0000000000003008 R_X86_64_RELATIVE  *ABS*+0x0000000000000030\n";
        offences(&Library::read(&listing, slots), HANDLER, &[PASS_ON]).0.len()
    };
    assert_eq!(check("mov    %rax,%rbx"), 0);
    assert_eq!(check("jne    10 <other+0x5>"), 0);
    assert_eq!(check("mov    %fs:0x0,%rax"), 0);
    assert_eq!(check("mov    %fs:0x0,%rax\n 15:\tmov    %fs:0x0,%rcx"), 1);
    assert_eq!(check("add    %fs:0x0,%rax"), 1);
    assert_eq!(check("mov    %fs:(%rax),%rax"), 1);
    assert_eq!(check("syscall"), 1);
    assert_eq!(check("call   1000 <malloc@plt>"), 1);
    assert_eq!(check("call   *0x2000(%rip)        # 3000 <malloc@GLIBC>"), 1);
    assert_eq!(check("call   *0x2000(%rip)        # 3008 <_DYNAMIC+0x10>"), 1);
    assert_eq!(check("jmp    30 <deeper>"), 1);
    assert_eq!(check("call   *%rax"), 1);
    assert_eq!(check("call   *0x18(%rax)"), 1);
    assert_eq!(check("call   1000 <core::panicking::panic_bounds_check>"), 1);
}

#[test]
fn the_handlers_stay_in_the_crate() {
    let plugin = plugin();
    let objdump = |what: &[&str]| {
        let output = Command::new("objdump").args(what).arg("--wide").arg(&plugin).output();
        output.map(|output| {
            assert!(output.status.success());
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let disassembly = match objdump(&["--disassemble", "--no-show-raw-insn"]) {
        Ok(disassembly) => disassembly,
        Err(error) => return skipped(&format!("the disassembly: no objdump ({error})")),
    };
    let slots = objdump(&["--dynamic-reloc"]).expect("it was there");
    let library = Library::read(&disassembly, &slots);
    for (handler, except) in [(HANDLER, [PASS_ON, DEPART].as_slice()), (SAMPLER, &[])] {
        let (found, path) = offences(&library, handler, except);
        let length = |name| library.functions.get(name).map_or(0, Vec::len);
        let instructions: usize = path.iter().map(length).sum();
        println!("{instructions} instructions in {path:#?}");
        assert!(found.is_empty(), "{}", found.join("\n"));
        assert!(instructions > 100, "that is no handler");
    }
}
