#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Loads a cell for MINUTES (default 15) with appends, followers, reads from the start, trims and
# short-lived streams; samples every process each 10 s; fails unless memory and descriptors stay
# flat and all data is right. Writes results/soak-DATE.json.
#   BIN, DATA, PORT  see cell.sh       BENCH    the built bench program
#   RESULTS          where the results go (Benchmarks/results)
#   BUILD            what the results say was tried
#   FLAT             no: for a try that is too short to tell, memory and descriptors may grow
set -euo pipefail
. "$(dirname "$0")/cell.sh"
prepare
results=${RESULTS:-$here/results}
mkdir -p "$results"
result=$results/soak-$(date -u +%Y-%m-%dT%H%M%SZ).json
build=${BUILD:-$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)}
# A cache of pages that is full within the first third, so that it may not grow after.
MILLRACE_MEMORY_BYTES=${MILLRACE_MEMORY_BYTES:-64MiB} start_cell soak
status=0
"$bench" soak --endpoint "$endpoint" --token-file "$token" --cop "$cop" --build "$build" \
    --minutes "${MINUTES:-15}" --flat "${FLAT:-yes}" --json "$result" || status=$?
if [ -e "$result" ]; then say "the result is in $result"; fi
exit $status
