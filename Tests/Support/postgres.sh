#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A Postgres server for tests: `start DIR` and `stop DIR`.
#
# It listens on a socket in DIR only, and forgets all safety against a crash of the machine: never
# keep anything in it. `start` writes DIR/env, to be sourced, and starts a stopped server again.
# DIR must be reachable for the user postgres (root cannot run a server) and shorter than 90 bytes.
# PG_BIN names the folder of the server's programs if they are not found.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 start|stop DIR" >&2
    exit 2
fi
command=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

bin=""
on_path=$(command -v pg_ctl || true)
for candidate in "${PG_BIN:-}" ${on_path:+"$(dirname "$on_path")"} /usr/lib/postgresql/*/bin; do
    if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then
        bin=$candidate
        break
    fi
done
if [ -z "$bin" ]; then
    echo "no Postgres server found: install the package postgresql, or set PG_BIN" >&2
    exit 3
fi

as_user=()
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
fi
control() {
    "${as_user[@]}" env -C "$dir" LC_ALL=C "$bin/pg_ctl" -D "$dir/data" -w -t 30 "$@"
}

case $command in
start)
    if [ "$(id -u)" = 0 ]; then chown "$user" "$dir"; fi
    chmod 0755 "$dir"
    if [ ! -f "$dir/data/PG_VERSION" ]; then
        "${as_user[@]}" env -C "$dir" LC_ALL=C "$bin/initdb" -D "$dir/data" -U millrace -A trust \
            -E UTF8 --no-locale --no-sync --no-instructions >"$dir/initdb.log" 2>&1 || {
            cat "$dir/initdb.log" >&2
            exit 4
        }
        cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
unix_socket_permissions = 0777
max_connections = 200
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
CONF
    fi
    control status >/dev/null || control -l "$dir/postgres.log" start >/dev/null || {
        cat "$dir/postgres.log" >&2
        exit 5
    }
    echo "export MILLRACE_TEST_POSTGRES=\"host=$dir user=millrace dbname=postgres\"" >"$dir/env"
    ;;
stop)
    control status >/dev/null || exit 0
    control -m immediate stop >/dev/null
    ;;
*)
    echo "usage: $0 start|stop DIR" >&2
    exit 2
    ;;
esac
