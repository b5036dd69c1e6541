#!/usr/bin/env bash
# Every check that CI runs, for running at a desk. Needs cargo, and nothing else: a formatter or a
# linter that is not installed is skipped with a notice.
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }

step 'tests, models included'
cargo test --workspace

step 'tests of what is not built by default'
cargo test --features perf --test perf_files

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
