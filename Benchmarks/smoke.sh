#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the benchmarks for debugging, and has them drive debug cells for a moment: that they still
# build, that each scenario and the soak still work, and that all bytes come back. No speed is
# judged, nor what grows.
# Arguments go to `swift build`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
swift build --package-path "$here" --scratch-path "$root/.build-bench" "$@"
BENCH=$(swift build --package-path "$here" --scratch-path "$root/.build-bench" --show-bin-path)/bench
BIN=${BIN:-$(swift build --package-path "$root" --show-bin-path)}
results=$(mktemp -d /tmp/millrace-smoke.XXXXXX)
export BENCH BIN THRESHOLDS=$here/smoke.json

parts=()
runs=()
finish() {
    trap '' INT TERM HUP
    for id in "${runs[@]}"; do kill -TERM "$id" 2>/dev/null || true; done
    wait
    rm -rf "$results"
}
trap 'exit 130' INT TERM HUP
trap finish EXIT

# They wait most of the time, and so run side by side, each on ports that no other tries.
begin() { # PART VARIABLE=… COMMAND
    parts+=("$1")
    RESULTS=$results/$1-results PORT=$(seq $((21000 + ${#parts[@]} * 400)) 1600 25400) \
        env "${@:2}" >"$results/$1" 2>&1 &
    runs+=($!)
}
export SECONDS_EACH=0.5 MEBIBYTES=2 STREAMLETS=200 FLUSH_SECONDS=1 MALLOCS_SAMPLE=997
begin load ONLY=append,latency,read,follow,resident,machine,peers "$here/run.sh"
# Records are flushed and streams closed so soon that a moment is enough for a cell to be idle.
begin fresh ONLY=puts,idle,streamlets TASK_SECONDS=1 IDLE_SECONDS=8 SETTLE=60 \
    MILLRACE_FLUSH_AGE=1s MILLRACE_DORMANCY=1s MILLRACE_TASK_LEASE=10s "$here/run.sh"
begin allocations ONLY=allocations "$here/run.sh"
begin soak MINUTES=0.3 FLAT=no "$here/soak.sh"
failed=
for i in "${!parts[@]}"; do
    wait "${runs[i]}" || {
        cat "$results/${parts[i]}" >&2
        failed+=" ${parts[i]}"
    }
done
if [ -n "$failed" ]; then
    echo "the benchmarks do not work:$failed" >&2
    exit 1
fi
figures=$(cat "$results"/{load,fresh,allocations} | grep -c '  kept ')
echo "the benchmarks work: $figures figures are there"
