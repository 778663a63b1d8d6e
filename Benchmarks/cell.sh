# SPDX-License-Identifier: Apache-2.0
# Sourced by run.sh and soak.sh: a cell of its own, on free ports, with a Postgres and a folder of
# objects that both sync. `start_cell` sets endpoint, token and cop; `stop_cell` ends all of it.
#   BIN   where the programs are (default: the release build, made if it is missing)
#   DATA  where the cell keeps its data (default: a new folder in /var/tmp, removed in the end)
#   PORT  the first of 320 free ports, or several to choose from (default: 21400 to 25400)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
cop=
helpers=()
say() { echo "$*" >&2; }

prepare() {
    if [ -z "${BIN:-}" ]; then
        for product in frontend channel cachey bgtask cop; do
            swift build --package-path "$root" -c release --product "$product" >&2
        done
        BIN=$(swift build --package-path "$root" -c release --show-bin-path)
    fi
    BIN=$(cd "$BIN" && pwd)
    bench=${BENCH:-}
    if [ -z "$bench" ]; then
        swift build --package-path "$here" -c release --product bench >&2
        bench=$(swift build --package-path "$here" -c release --show-bin-path)/bench
    fi
    if [ -n "${DATA:-}" ]; then
        mkdir -p "$DATA" && data=$(cd "$DATA" && pwd)
    else
        data=$(mktemp -d /var/tmp/millrace-bench.XXXXXX)
        # Postgres may run as another user, who has to get through.
        chmod 0755 "$data"
    fi
    local used
    for port in ${PORT:-$(seq 21400 400 25400)}; do
        used=$(ss -Hltn | awk -v first="$port" '{ sub(/.*:/, "", $4); p = $4 + 0 }
            p >= first && p < first + 320 { print p }')
        if [ -z "$used" ]; then break; fi
    done
    [ -z "$used" ] || { say "ports are in use: $used; choose PORT"; exit 1; }
    # The trap runs once, however the script ends, and ends by id what was started here.
    trap 'exit 130' INT TERM HUP
    trap finish EXIT
}

# start_cell NAME: further settings come from the environment.
start_cell() {
    folder=$data/$1
    mkdir -p "$folder"
    chmod 0755 "$folder"
    local metadata
    metadata=$("$root/deploy/postgres.sh" start "$folder/postgres") ||
        { say "Postgres did not start"; exit 1; }
    token=$folder/root-token
    endpoint=127.0.0.1:$port
    env ${PRELOAD:+LD_PRELOAD="$PRELOAD"} \
        MILLRACE_METADATA="$metadata" \
        MILLRACE_STORE="$folder/objects" MILLRACE_ROOT_TOKEN_FILE="$token" \
        MILLRACE_LOG_LEVEL="${MILLRACE_LOG_LEVEL:-notice}" MILLRACE_FRONTEND_PORT="$port" \
        MILLRACE_RPC_PORT=$((port + 20)) MILLRACE_ADMIN_PORT=$((port + 40)) \
        MILLRACE_ADMIN_LISTEN=127.0.0.1:$((port + 40)) MILLRACE_CACHEY_PORT=$((port + 110)) \
        "$BIN/cop" serve >"$folder/log" 2>&1 &
    cop=$!
    # A disk may be busy for a while with what the cell before left behind.
    for _ in $(seq 600); do
        kill -0 "$cop" 2>/dev/null || { tail -20 "$folder/log" >&2; say "cop ended"; exit 1; }
        if curl -fsS -m 1 "http://$endpoint/health" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    tail -20 "$folder/log" >&2
    say "the cell did not become ready within a minute"
    exit 1
}

stop_cell() {
    if [ -n "$cop" ]; then
        kill -TERM "$cop" 2>/dev/null || true
        wait "$cop" 2>/dev/null || true
        cop=
    fi
    if [ -n "${folder:-}" ]; then
        "$root/deploy/postgres.sh" stop "$folder/postgres" || true
        rm -rf "$folder/objects"
        folder=
    fi
}

finish() {
    trap '' INT TERM HUP
    stop_cell
    for id in "${helpers[@]}"; do
        kill -TERM "$id" 2>/dev/null || true
        wait "$id" 2>/dev/null || true
    done
    [ -n "${DATA:-}" ] || rm -rf "$data"
}
