#!/usr/bin/env bash
# Builds the binary to install: target/trained/tollgate.
#
# A compiler that knows what a program mostly does lays it out for that: a fifth fewer instructions per
# request, and those that matter next to each other. So it is built once such that it counts, put under
# load, and built again with the counts (profile-guided optimisation). Then the order of its machine code
# is made right for the same loads, over the whole program (BOLT of LLVM): two in five of the jumps that
# are taken go away, and what runs together fits into the processor's caches. The load is the benchmark's,
# and every official SDK of the tests, so that no dialect is taken for one that nobody speaks; the SDKs try
# what came out as well. Takes about fifty minutes on two cores; `cargo build --release` gives the same
# program without it.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
counting=$PWD/target/counting
trained=$PWD/target/trained

# Rust's own tools (rustup component add llvm-tools) come first, then Debian's, which are where their version
# says; older ones cannot read what this Rust writes.
PATH=$(rustc --print sysroot)/lib/rustlib/$host/bin:/usr/lib/llvm-19/bin:$PATH
has() { command -v "$1" >/dev/null; }
if ! { has llvm-profdata && has llvm-bolt && has merge-fdata; }; then
    echo "installing: llvm-19 bolt-19"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends llvm-19 bolt-19 >/dev/null; } || {
        echo "release.sh needs llvm-profdata, llvm-bolt and merge-fdata of LLVM 19 or later: install llvm-19 and bolt-19" >&2
        exit 1
    }
fi

# build DIRECTORY FLAGS: for a named target, so that they do not reach the programs that only build.
# What comes out is DIRECTORY/built.
build() {
    RUSTFLAGS=$2 cargo build --release --target "$host" --target-dir "$1"
    cp "$1/$host/release/tollgate" "$1/built"
}

# load BINARY COUNTS: puts it under load; it writes what it counts to the directory COUNTS.
load() {
    for _ in 1 2 3 4 5; do # once more where a run does not count, as on a machine that stood still for a moment
        rm -rf "$2" && mkdir -p "$2"
        if target/bench/release/door --quick --gateway "$1" >/dev/null; then
            TOLLGATE_BIN=$1 tests/sdk/run
            return
        fi
    done
    echo "no run counted: other work keeps this machine from answering; see what runs on it, and start anew" >&2
    return 1
}

echo "1 of 5: build one that counts"
build "$counting" "-Cprofile-generate=$counting/counts"
cargo build --release --manifest-path benches/Cargo.toml --target-dir target/bench

echo "2 of 5: put it under load"
load "$counting/built" "$counting/counts"
llvm-profdata merge -sparse -o "$counting/profile" "$counting/counts"

echo "3 of 5: build it for that"
# From nothing: cargo does not see what has changed in a profile. Relocations stay for the next step.
rm -rf "$trained"
build "$trained" "-Cprofile-use=$counting/profile -Clink-arg=-Wl,-z,keep-text-section-prefix -Clink-arg=-Wl,--emit-relocs"

echo "4 of 5: put it under load again, and lay it out for that"
jumps=$trained/jumps
llvm-bolt "$trained/built" -o "$trained/counting" -instrument \
    --instrumentation-file="$jumps/of" --instrumentation-file-append-pid
load "$trained/counting" "$jumps"
merge-fdata "$jumps"/of.* >"$trained/layout"
llvm-bolt "$trained/built" -o "$trained/laid-out" -data="$trained/layout" \
    -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold -split-eh

echo "5 of 5: try it"
TOLLGATE_BIN=$trained/laid-out tests/sdk/run
mv "$trained/laid-out" "$trained/tollgate"
ls -l "$trained/tollgate"
