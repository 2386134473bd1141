#!/bin/sh
# What the log store and analytics answer at ten million requests, and how fast they write:
# writes benches/STORES.md. Takes about fifteen minutes, one core, and 3 GB for temporary files.
#
#   ROWS=1000000 benches/stores.sh      a smaller run
set -eu
cd "$(dirname "$0")/.."
rows=${ROWS:-10000000}
out=benches/STORES.md
run() {
    ROWS=$rows ANALYTICS_REQUESTS=$rows cargo test --quiet --profile measure --lib "$1" -- \
        --include-ignored --nocapture --test-threads 1 2>/dev/null |
        grep -E ' (ms|rows|KB|us|B|ns|entries/s|hour|hours|each)\b' | sed 's/^test .* \.\.\. //; s/^ *//; s/^/    /'
}
# Built first: a build beside a measurement would be measured.
cargo test --quiet --profile measure --lib --no-run
# Not written before all of it is there: a run that fails leaves the old file.
{
    echo "# What the stores take at $rows requests"
    echo
    echo "Written by \`benches/stores.sh\` with the profile \`measure\` (no link-time optimisation), commit"
    echo "$(git rev-parse --short HEAD), $(date -u '+%Y-%m-%d %H:%M UTC'), $(nproc) cores. One thread, nothing else running;"
    echo "analytics in processor time, the log store in time passed. $rows requests is a month at"
    echo "$((rows / 2592000 )) a second."
    echo
    echo "## The log store: writing"
    echo
    run logs::tests::bench::writing
    run logs::tests::bench::sustained
    echo
    echo "## The log store: lists, each with its total, and of it the page alone"
    echo
    run logs::tests::bench::listing
    echo
    echo "## Analytics: a month"
    echo
    run analytics::tests::bench::a_month
} >"$out.new"
mv "$out.new" "$out"
cat "$out"
