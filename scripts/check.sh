#!/usr/bin/env bash
# Format, lints, build, tests, clients of others, fuzzers, benchmark smoke: what has to pass before a commit lands.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() {
  local name=$1 began=$SECONDS
  shift
  printf '\n==== %s: %s\n' "$name" "$*"
  "$@"
  printf '==== %s took %d min %02d s\n' "$name" $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60))
}

command -v cc >/dev/null || { echo "a C compiler (cc) is needed: apt-get install build-essential" >&2; exit 1; }

# Nothing is built twice here: keeping track of what changed would cost time and disk.
export CARGO_INCREMENTAL=0

stage format cargo fmt --all -- --check
stage lints cargo clippy --workspace --all-targets -- -D warnings
stage build cargo build --release
stage smoke target/release/curia-bench smoke
stage simulator target/release/curia-bench simulate --seeds 1000 --operations 1000
# Without the faults that damage or unplug disks: those are for the long runs.
stage nemesis target/release/curia-bench nemesis --kills 50 \
  --faults kill,pause,cut,one-way,loss,delay,throttle,full,clock,wipe
stage tests scripts/tests
stage clients scripts/clients
echo
echo "all stages passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
