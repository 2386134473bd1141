#!/usr/bin/env bash
# Builds the binary to install: target/trained/tollgate.
#
# A compiler that knows what a program mostly does lays it out for that: a fifth fewer instructions per
# request, and those that matter next to each other. So it is built once such that it counts, put under
# load, and built again with the counts (profile-guided optimisation). The load is the benchmark's, and
# every official SDK of the tests, so that no dialect is taken for one that nobody speaks. Takes about
# forty minutes on two cores; `cargo build --release` gives the same program without it.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
counting=$PWD/target/counting
trained=$PWD/target/trained

# profdata: the tool that adds counts up. Rust's own (rustup component add llvm-tools), or Debian's.
profdata() {
    local own
    own=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
    if [ -x "$own" ]; then
        echo "$own"
    else
        command -v llvm-profdata-19 # older ones cannot read what this Rust writes
    fi
}
if ! profdata >/dev/null; then
    echo "installing: llvm-19"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends llvm-19 >/dev/null; } || {
        echo "release.sh needs llvm-profdata: rustup component add llvm-tools, or install llvm-19" >&2
        exit 1
    }
fi

# build DIRECTORY FLAGS: for a named target, so that they do not reach the programs that only build.
build() {
    RUSTFLAGS=$2 cargo build --release --target "$host" --target-dir "$1"
    cp "$1/$host/release/tollgate" "$1/tollgate"
}

echo "1 of 3: build one that counts"
counts=$counting/counts
build "$counting" "-Cprofile-generate=$counts"
cargo build --release --manifest-path benches/Cargo.toml --target-dir target/bench

# load: once more where a run does not count, as on a machine that stood still for a moment.
load() {
    for _ in 1 2 3; do
        rm -rf "$counts"
        target/bench/release/door --quick --gateway "$counting/tollgate" >/dev/null && return
    done
    return 1
}

echo "2 of 3: put it under load"
load
TOLLGATE_BIN=$counting/tollgate tests/sdk/run
"$(profdata)" merge -sparse -o "$counting/profile" "$counts"

echo "3 of 3: build it for that"
# From nothing: cargo does not see what has changed in a profile.
rm -rf "$trained"
build "$trained" "-Cprofile-use=$counting/profile -Clink-arg=-Wl,-z,keep-text-section-prefix"
ls -l "$trained/tollgate"
