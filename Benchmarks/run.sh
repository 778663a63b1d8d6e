#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures a release cell from outside, and in the same run the machine and its peers; prints a
# table, writes results/DATE.json, and fails if a bound of thresholds.json is broken.
#   BIN, DATA, PORT  see cell.sh       BENCH    the built bench program
#   SECONDS_EACH     per scenario (5)  RESULTS  where the results go (Benchmarks/results)
#   ONLY             some scenarios, as in ONLY=append,read,machine,idle
#   STREAMLETS       opened (100000)   IDLE_SECONDS  of idleness that are measured (120)
#   FLUSH_SECONDS    after which their memory is measured again (45)
#   TASK_SECONDS     how often each background task, the sweep for orphans too, takes its turn
#                    while PUTs are counted (15), and those of idleness (60, half of
#                    IDLE_SECONDS, so that none is missed)
#   SETTLE           seconds until the cell is idle, at most (300)
#   MEBIBYTES        appended from 1 stream and from 64, whose PUTs are counted (1536)
#   MALLOCS_SAMPLE   one allocation of so many tells who made it (31)
#   OWNERS           where to write who made them
#   BUILD            what the results say was measured
#   THRESHOLDS       what they must be (Benchmarks/thresholds.json)
#   PROFILE          where to put a perf profile of each role, see profile.sh; with ONLY=none,
#                    nothing else is done
set -euo pipefail
. "$(dirname "$0")/cell.sh"
prepare
results=${RESULTS:-$here/results}
mkdir -p "$results"
name=$(date -u +%Y-%m-%dT%H%M%SZ)
seconds=${SECONDS_EACH:-5}
build=${BUILD:-$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)}
all=append,latency,read,follow,resident,machine,peers,puts,idle,streamlets,allocations
only=${ONLY:-$all}
parts=()

measure() { # NAME ONLY OPTION…
    local part=$data/$1.json scenarios=$2
    shift 2
    "$bench" run --endpoint "${endpoint:-none:0}" --token-file "${token:-none}" \
        --cop "${cop:-0}" --seconds "$seconds" --folder "$data" \
        --build "$build" --json "$part" --only "$scenarios" "$@" >"$data/table" || {
        cat "$data/table"
        if [ -n "${folder:-}" ]; then tail -5 "$folder/log" >&2; fi
        failed=1
    }
    if [ -e "$part" ]; then parts+=("$part"); fi
}
longer_than() { awk "BEGIN { print $1 * 1.25 }"; }
wants() { [[ ",$only," == *",$1,"* ]]; }

peers=()
if wants peers; then
    mkdir -p "$data/redis" "$data/nats"
    if command -v redis-server >/dev/null; then
        redis-server --bind 127.0.0.1 --port $((port + 300)) --dir "$data/redis" \
            --appendonly yes --appendfsync always --save '' >"$data/redis/log" 2>&1 &
        helpers+=($!)
        peers+=(--redis $((port + 300)))
        only+=,redis
    else
        say "redis-server is not installed: not measured"
    fi
    if command -v nats-server >/dev/null; then
        printf 'listen: 127.0.0.1:%s\njetstream { store_dir: "%s" }\n' \
            $((port + 301)) "$data/nats" >"$data/nats/conf"
        nats-server -c "$data/nats/conf" >"$data/nats/log" 2>&1 &
        helpers+=($!)
        peers+=(--nats $((port + 301)))
        only+=,nats
    else
        say "nats-server is not installed: not measured"
    fi
fi

failed=0
if [ -n "${PROFILE:-}" ]; then
    . "$here/profile.sh"
    if [ "$only" = none ]; then exit 0; fi
fi
main=$(tr , '\n' <<<"$only" | grep -vxE 'puts|idle|streamlets|allocations|redis|nats' | paste -sd,) ||
    true
if [ -n "$main" ]; then
    start_cell main
    measure main "$main" "${peers[@]}"
    stop_cell
fi

# Fresh cells: for PUTs, for idleness, for memory, and with the library that counts allocations.
if wants puts; then
    # Compaction takes its turns sooner than it would, and works faster.
    turn=${TASK_SECONDS:-15}
    MILLRACE_TASK_INTERVAL=${turn}s MILLRACE_TASK_BYTES=256MiB start_cell puts
    measure puts puts --settle "${SETTLE:-300}" --quiet "$(longer_than "$turn")" \
        --mebibytes "${MEBIBYTES:-1536}"
    stop_cell
fi
if wants idle; then
    turn=${TASK_SECONDS:-60}
    MILLRACE_TASK_INTERVAL=${turn}s MILLRACE_SWEEP_INTERVAL=${turn}s start_cell idle
    measure idle idle --settle "${SETTLE:-300}" --idle "${IDLE_SECONDS:-120}" \
        --quiet "$(longer_than "$turn")" \
        --postgres "$(head -1 "$folder/postgres/data/postmaster.pid")"
    stop_cell
fi
if wants streamlets; then
    # No stream is closed before all of them are open and their memory was measured.
    MILLRACE_DORMANCY=1h start_cell streamlets
    measure streamlets streamlets --streamlets "${STREAMLETS:-100000}" \
        --flush "${FLUSH_SECONDS:-45}"
    stop_cell
fi
if wants allocations; then
    "$(command -v cc || command -v clang)" -O2 -shared -fPIC -o "$data/mallocs.so" "$here/mallocs.c"
    export MALLOCS_PREFIX=$data/mallocs MALLOCS_SAMPLE=${MALLOCS_SAMPLE:-31}
    PRELOAD=$data/mallocs.so start_cell allocations
    measure allocations allocations --mallocs "$data/mallocs"
    if python3 "$here/mallocs.py" "$data/mallocs" "$cop" "$data/shares.json" >"$data/owners"; then
        parts+=("$data/shares.json")
    else
        failed=1
    fi
    if [ -n "${OWNERS:-}" ]; then cp "$data/owners" "$OWNERS"; fi
    stop_cell
fi

"$bench" compare --only "$only" --json "$results/$name.json" "${parts[@]}" \
    "${THRESHOLDS:-$here/thresholds.json}" || failed=1
say "results are in $results/$name.json"
exit "$failed"
