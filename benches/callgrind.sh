#!/bin/sh
# Instructions per request of bare Pingora and of the gateway, counted by callgrind:
# repeatable where a shared machine's noise hides the truth. Takes the options of
# `door instructions`: --size BYTES, --requests N, --gateway PATH, --same.
set -eu
cd "$(dirname -- "$0")/.."
command -v valgrind >/dev/null || {
    echo "callgrind.sh needs valgrind: apt-get install valgrind" >&2
    exit 1
}
case " $* " in *" --same "* | *" --gateway"*) ;; *) cargo build --release ;; esac
cargo build --release --manifest-path benches/Cargo.toml --target-dir target/bench
exec target/bench/release/door instructions "$@"
