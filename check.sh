#!/usr/bin/env bash
# Every check that CI runs, for running at a desk. Needs cargo, and nothing else: a formatter, a linter
# or another target that is not installed is skipped with a notice.
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }

# Type-checks for another target: with its standard library where that is installed, else with one that
# is built from its source, which takes a nightly compiler and rust-src.
check_for() {
  local target=$1 sysroot
  shift
  step "types on $target"
  sysroot=$(rustc +nightly --print sysroot 2>/dev/null || true)
  if [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    cargo check --target "$target" "$@"
  elif [ -n "$sysroot" ] && [ -d "$sysroot/lib/rustlib/src/rust/library/std" ]; then
    cargo +nightly check -Z build-std --target "$target" "$@"
  else
    echo "skipped: neither its standard library nor that library's source is installed"
  fi
}

# Lines of code: without blank ones, comments, and unit tests (which are at the end of a file, or files).
step 'lines of code of the index'
for file in src/index/*.rs; do
  [ "$file" = src/index/invariants.rs ] || awk '
    test && /^(mod|impl)/ { exit }
    !/^[[:space:]]*(\/\/.*)?$/ { lines += 1 }
    { test = $0 == "#[cfg(test)]" }
    END { print lines }' "$file"
done | awk '{ sum += $1 } END { print sum }'

step 'tests, models included'
cargo test --workspace

step 'tests of what is not built by default'
cargo test --features perf --test perf_files

step 'examples in the documentation, with every set of features'
for features in '' registry registry,elf trap trap,elf perf registry,elf,trap,perf; do
  cargo test -q -p pcmap --doc --no-default-features --features "$features"
done

step 'format'
if cargo fmt --version >/dev/null 2>&1; then
  cargo fmt --all --check
else
  echo 'skipped: rustfmt is not installed'
fi

step 'lints'
if cargo clippy --version >/dev/null 2>&1; then
  cargo clippy --workspace --all-targets --features pcmap/perf -- -D warnings
  cargo clippy --lib --no-default-features -- -D warnings
  cargo clippy --lib --no-default-features --features registry -- -D warnings
else
  echo 'skipped: clippy is not installed'
fi

# Everything where the trap runtime has its other port; elsewhere the library.
check_for aarch64-unknown-linux-gnu --all-targets --features perf
for target in x86_64-unknown-linux-musl i686-unknown-linux-gnu aarch64-apple-darwin x86_64-unknown-freebsd; do
  check_for "$target" --lib
  check_for "$target" --lib --no-default-features
done

step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items

step 'the main job, three seconds'
cargo run --release --example fault_storm -- --seconds 3

step 'everything at once, four seconds'
cargo run --release --example soak -- --seconds 4 | tail -n 1

step 'a small runtime'
cargo run --example mini_runtime

step 'every benchmark once'
cargo bench -- --test
