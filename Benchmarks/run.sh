#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures a release cell from outside, and in the same run the machine and its peers; prints a
# table, writes results/DATE.json, and fails if a bound of thresholds.json is broken.
#   BIN, DATA, PORT  see cell.sh       BENCH    the built bench program
#   SECONDS_EACH     per scenario (5)  SETTLE   how long to wait for the cell to be idle (300)
#   ONLY             some scenarios, as in ONLY=append,read,machine
#   BUILD            what the results say was measured
#   PROFILE          where to put a perf profile of each role during two appends
set -euo pipefail
. "$(dirname "$0")/cell.sh"
prepare
results=$here/results
mkdir -p "$results"
name=$(date -u +%Y-%m-%dT%H%M%SZ)
seconds=${SECONDS_EACH:-5}
build=${BUILD:-$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)}
only=${ONLY:-append,latency,read,follow,idle,machine,peers}
parts=()

measure() { # NAME ONLY OPTION…
    local part=$data/$1.json scenarios=$2
    shift 2
    "$bench" run --endpoint "${endpoint:-none:0}" --token-file "${token:-none}" \
        --cop "${cop:-0}" --seconds "$seconds" --settle "${SETTLE:-300}" --folder "$data" \
        --build "$build" --json "$part" --only "$scenarios" "$@" >"$data/table" || {
        cat "$data/table"
        failed=1
    }
    if [ -e "$part" ]; then parts+=("$part"); fi
}
wants() { [[ ",$only," == *",$1,"* ]]; }

peers=()
if wants peers; then
    mkdir -p "$data/redis" "$data/nats"
    if command -v redis-server >/dev/null; then
        redis-server --bind 127.0.0.1 --port $((port + 100)) --dir "$data/redis" \
            --appendonly yes --appendfsync always --save '' >"$data/redis/log" 2>&1 &
        helpers+=($!)
        peers+=(--redis $((port + 100)))
    else
        say "redis-server is not installed: not measured"
    fi
    if command -v nats-server >/dev/null; then
        printf 'listen: 127.0.0.1:%s\njetstream { store_dir: "%s" }\n' \
            $((port + 101)) "$data/nats" >"$data/nats/conf"
        nats-server -c "$data/nats/conf" >"$data/nats/log" 2>&1 &
        helpers+=($!)
        peers+=(--nats $((port + 101)))
    else
        say "nats-server is not installed: not measured"
    fi
fi

failed=0
if [ -n "${PROFILE:-}" ]; then
    start_cell profile
    . "$here/profile.sh"
    stop_cell
fi
start_cell main
measure main "$only" "${peers[@]}"
stop_cell

# A fresh cell for memory, and with the library that counts allocations.
if [ -z "${ONLY:-}" ] || wants streamlets; then
    start_cell streamlets
    measure streamlets streamlets
    stop_cell
fi
if [ -z "${ONLY:-}" ] || wants allocations; then
    cc -O2 -shared -fPIC -o "$data/mallocs.so" "$here/mallocs.c"
    export MALLOCS_PREFIX=$data/mallocs MALLOCS_SAMPLE=${MALLOCS_SAMPLE:-0}
    PRELOAD=$data/mallocs.so start_cell allocations
    measure allocations allocations --mallocs "$data/mallocs"
    if [ "$MALLOCS_SAMPLE" != 0 ]; then
        python3 "$here/mallocs.py" "$data/mallocs" "$cop" || true
    fi
    stop_cell
fi

"$bench" compare --json "$results/$name.json" "${parts[@]}" "$here/thresholds.json" || failed=1
say "results are in $results/$name.json"
exit "$failed"
