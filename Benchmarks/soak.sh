#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Loads a cell for MINUTES (default 15) with appends, followers, short-lived streams; samples every
# process each 10 s; fails unless memory and descriptors stay flat and all data is right.
#   BIN, DATA, PORT  see cell.sh       BENCH    the built bench program
set -euo pipefail
. "$(dirname "$0")/cell.sh"
prepare
start_cell soak
"$bench" soak --endpoint "$endpoint" --token-file "$token" --cop "$cop" \
    --minutes "${MINUTES:-15}"
