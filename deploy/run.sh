#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs a whole cell on this host, in the foreground: Postgres, cop, two channels, one frontend, one
# cachey and one bgtask.
#   DATA      where everything is kept (default ./.millrace; for root /var/lib/millrace, where
#             Postgres' own user could not reach that)
#   STORE     where records are kept: a folder (default DATA/objects), or
#             s3://bucket/prefix?endpoint=…&region=…, with credentials in AWS_* variables
#   MILLRACE_RPC_SOCKETS  the folder of the sockets by which the processes reach each other, so that
#             no other user does (default DATA/rpc, where that path is short enough); empty for
#             ports of TCP, as MILLRACE_RPC_HOST asks for too
#   PROGRAMS  a folder with the programs; else they are built
# Any MILLRACE_* variable of docs/configuration.md applies. Ctrl-C stops it; the data stays.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
say() { echo "$*" >&2; }
"$here/deploy/install-packages.sh"

if [ -z "${DATA:-}" ]; then
    DATA=$here/.millrace
    if [ "$(id -u)" = 0 ] && ! setpriv --reuid=postgres --clear-groups -- test -x "$here"; then
        DATA=/var/lib/millrace
    fi
fi
export DATA
mkdir -p "$DATA"
DATA=$(cd "$DATA" && pwd)
if [ -z "${PROGRAMS:-}" ]; then
    say "building (the first time takes about ten minutes) …"
    for product in frontend channel cachey bgtask cop; do
        swift build --package-path "$here" -c release --product "$product" >&2
    done
    PROGRAMS=$(swift build --package-path "$here" -c release --show-bin-path)
fi

# Records are for nobody else on this host; what was made before is closed at its top.
umask 077
if [ -d "$DATA/objects" ]; then chmod go= "$DATA/objects"; fi
exec 9>"$DATA/lock"
flock -n 9 || { say "a cell is running in $DATA already"; exit 1; }

cop=
stop() {
    trap '' INT TERM HUP
    if [ -n "$cop" ]; then
        kill -TERM "$cop" 2>/dev/null || true
        wait "$cop" || true
        cop=
    fi
    "$here/deploy/postgres.sh" stop "$DATA/postgres" 9>&- || true
}
trap 'say; say "stopping …"; stop; exit 0' INT TERM HUP
trap 'stop' EXIT

MILLRACE_METADATA=$("$here/deploy/postgres.sh" start "$DATA/postgres" 9>&-) ||
    { say "Postgres did not start"; exit 1; }
export MILLRACE_METADATA
export MILLRACE_STORE=${STORE:-$DATA/objects}
export MILLRACE_ROOT_TOKEN_FILE=${MILLRACE_ROOT_TOKEN_FILE:-$DATA/root-token}
export MILLRACE_LOG_LEVEL=${MILLRACE_LOG_LEVEL:-notice}
if [ -z "${MILLRACE_RPC_SOCKETS+set}" ] && [ -z "${MILLRACE_RPC_HOST:-}" ]; then
    # The longest name of a socket; a path of one has at most 107 bytes.
    if [ "$(printf %s "$DATA/rpc/channel-64" | wc -c)" -le 107 ]; then
        export MILLRACE_RPC_SOCKETS=$DATA/rpc
    else
        say "the path of $DATA is too long for sockets: RPC is on ports, open to users of this host"
    fi
fi
host=${MILLRACE_HOST:-127.0.0.1}
endpoint=http://$host:${MILLRACE_FRONTEND_PORT:-8080}
# A frontend is ready before there is any channel, and an append needs both.
needed=("$endpoint/health")
if [ "${MILLRACE_CHANNELS:-2}" != 0 ]; then
    needed+=("http://$host:$((${MILLRACE_ADMIN_PORT:-7500} + 1))/health")
fi
is_ready() {
    for page in "${needed[@]}"; do curl -fsS -m 1 "$page" >/dev/null 2>&1 || return 1; done
}

"$PROGRAMS/cop" serve 9>&- &
cop=$!
for _ in $(seq 300); do
    kill -0 "$cop" 2>/dev/null || { wait "$cop" || true; cop=; say "cop ended"; exit 1; }
    if is_ready; then ready=1; break; fi
    sleep 0.1
done
[ -n "${ready:-}" ] || { say "the cell did not become ready within 30 s"; exit 1; }

token=$(cat "$MILLRACE_ROOT_TOKEN_FILE")
cat <<TEXT

S2_ACCESS_TOKEN="$token"
S2_ACCOUNT_ENDPOINT="$endpoint"
S2_BASIN_ENDPOINT="$endpoint"

Try it:

python3 -m venv /tmp/s2 && /tmp/s2/bin/pip -q install s2-sdk==0.13.0 && /tmp/s2/bin/python - <<'PY'
import asyncio
from s2_sdk import S2, AppendInput, Endpoints, Record, SeqNum
async def main():
    async with S2("$token", endpoints=Endpoints("$endpoint", "$endpoint")) as s2:
        await s2.ensure_basin("first-basin")
        await s2.basin("first-basin").ensure_stream("hello")
        stream = s2.basin("first-basin").stream("hello")
        print(await stream.append(AppendInput([Record(b"hello, stream")])))
        print(await stream.read(start=SeqNum(0)))
asyncio.run(main())
PY

Everything is kept in $DATA. Ctrl-C stops the cell.
TEXT
wait "$cop" || { say "cop ended"; cop=; exit 1; }
cop=
