//! The profiler of `examples/sampling_profiler` finds the shares of the work that guests do.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "../examples/mini_runtime/compiler.rs"]
mod compiler;
#[path = "../examples/sampling_profiler/profiler/mod.rs"]
mod profiler;

use std::time::Duration;

#[test]
fn shares_come_out_within_a_tenth() {
    // So many that the smallest share, a tenth, is measured to a fortieth or so by chance.
    let wanted = 20_000;
    let profile = profiler::run(Duration::ZERO, wanted).expect("it runs");
    println!("{profile}");
    let samples = profile.samples();
    assert!(samples >= wanted && profile.lost() == 0, "{profile}");
    for (name, share) in profiler::SHARES {
        let found = profile.samples_in(name) as f64 / samples as f64;
        assert!((found - share).abs() <= share / 10.0, "{name}: {found} of {share}\n{profile}");
    }
    // Nearly all of it in the loop, which everybody calls.
    assert!(profile.samples_in("spin") * 100 >= samples * 99, "{profile}");

    // The files say the same.
    let folded = profile.folded();
    let mut counted = 0;
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ').expect("a stack and a count");
        assert!(stack.split(';').all(|name| name != "?" && !name.is_empty()), "{line}");
        counted += count.parse::<usize>().expect("a number");
    }
    assert_eq!(counted, samples);
    let mut svg = Vec::new();
    profile.flame_graph(&mut svg).expect("it can be written");
    let svg = String::from_utf8(svg).expect("text");
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    for (name, _) in profiler::SHARES {
        assert!(svg.contains(&format!("<title>{name} (")), "{name} is in the picture");
    }
}
