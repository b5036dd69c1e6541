//! A sampling profiler of generated code: a timer interrupts each guest thread, wherever it is; the
//! handler walks the guest's stack through the code map into a buffer that was there before; and an
//! ordinary thread says later what the addresses were.
//!
//! ```text
//! cargo run --release --example sampling_profiler -- --seconds 3 --out target/profile
//! ```
//!
//! runs guests that do known shares of the work on two threads, and writes `guests.folded` (one line a
//! stack, with its count) and `guests.svg`, a flame graph.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[path = "../mini_runtime/compiler.rs"]
mod compiler;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod profiler;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::path::PathBuf;
    use std::time::Duration;

    let (mut seconds, mut out) = (3.0, PathBuf::from("target/profile"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("every option has a value")?;
        match &*argument {
            "--seconds" => seconds = value.parse()?,
            "--out" => out = value.into(),
            _ => {
                return Err(
                    format!("{argument} is not an option: --seconds N, --out FOLDER").into()
                );
            }
        }
    }
    let profile = profiler::run(Duration::try_from_secs_f64(seconds)?, 0)?;
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("guests.folded"), profile.folded())?;
    profile.flame_graph(std::fs::File::create(out.join("guests.svg"))?)?;
    println!("{profile}");
    println!("see {}", out.join("guests.svg").display());
    Ok(())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {
    println!(
        "sampling_profiler: not run: it knows the signal frames of Linux on x86-64 and AArch64 only"
    );
}
