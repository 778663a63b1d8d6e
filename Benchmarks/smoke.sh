#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds the benchmarks for debugging, and has them drive a debug cell for a moment: that they still
# build, that each scenario still works, and that all bytes come back. No speed is judged.
# Arguments go to `swift build`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
swift build --package-path "$here" --scratch-path "$root/.build-bench" "$@"
BENCH=$(swift build --package-path "$here" --scratch-path "$root/.build-bench" --show-bin-path)/bench
BIN=${BIN:-$(swift build --package-path "$root" --show-bin-path)}
results=$(mktemp -d /tmp/millrace-smoke.XXXXXX)
trap 'rm -rf "$results"' EXIT
export BENCH BIN
if ! SECONDS_EACH=0.5 ONLY=append,latency,read,follow RESULTS=$results \
    THRESHOLDS=$here/smoke.json "$here/run.sh" >"$results/out" 2>&1; then
    cat "$results/out" >&2
    echo "the benchmarks do not work" >&2
    exit 1
fi
echo "the benchmarks work: $(grep -c '  kept ' "$results/out") figures are there"
