//! A C program with a SIGSEGV handler of its own loads the plugin of `examples/trap_plugin.rs`, on
//! several threads: its handler gets what is its own, whether it was there before or came after. Another
//! one loads two plugins, each with a trap runtime of its own.
//!
//! Needs a C compiler (`CC`, or `cc`), and is skipped with a notice if there is none.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../skipped/mod.rs"]
mod skipped;

use skipped::skipped;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The plugin, which cargo has built with the examples; if it was not asked for those, here.
fn plugin() -> PathBuf {
    let test = env::current_exe().expect("this program");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let plugin = profile.join("examples/libtrap_plugin.so");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "trap_plugin", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    build.arg("--target-dir").arg(profile.parent().expect("target"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo").success());
    assert!(plugin.exists(), "{}", plugin.display());
    plugin
}

fn compile(source: &str, to: &Path) -> bool {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embedding");
    let mut compile = Command::new(&compiler);
    compile.args(["-O1", "-Wall", "-Werror", "-pthread"]).arg(folder.join(source));
    compile.args(["-ldl", "-o"]).arg(to);
    match compile.status() {
        Ok(status) => {
            assert!(status.success(), "the host does not compile");
            true
        }
        Err(error) => {
            skipped(&format!("the C host: no C compiler ({}: {error})", compiler.display()));
            false
        }
    }
}

#[test]
fn a_host_with_a_handler_of_its_own() {
    let host = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedding_host");
    if !compile("host.c", &host) {
        return;
    }
    let plugin = plugin();
    for when in ["before", "after"] {
        for stack in ["onstack", "plain"] {
            let output = Command::new(&host).arg(&plugin).args([when, stack]).output();
            let output = output.expect("it runs");
            assert!(output.status.success(), "{when}, {stack}: {output:?}");
            // Five threads, a hundred rounds, two faults of the host's each; and the last one.
            let before = when == "before";
            let (fixed, last) = if before { (1001, 0) } else { (1000, -1) };
            let expected = format!("wrong 0, fixed {fixed}, uninstalled 1, last {last}\n");
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{when}, {stack}");
        }
    }
}

#[test]
fn two_plugins_that_know_nothing_of_each_other() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let host = folder.join("two_plugins_host");
    if !compile("two_plugins.c", &host) {
        return;
    }
    // The loader takes two files for two libraries.
    let (one, other) = (plugin(), folder.join("libother_plugin.so"));
    std::fs::copy(&one, &other).expect("a copy");
    for first in ["0", "1"] {
        let output = Command::new(&host).arg(&one).arg(&other).arg(first).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{first}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "wrong 0\n", "{first}");
    }
}
