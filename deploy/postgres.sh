#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The cell's own Postgres: durable, reachable through a private unix socket only.
#   postgres.sh start DIR   creates the database cluster in DIR at the first start; prints
#                           "SOCKETS DATABASE", the folder of its socket and the database's name
#   postgres.sh stop DIR
# As root it runs as the user postgres, because Postgres refuses to run as root.
set -euo pipefail
command=$1
dir=$2

bin=""
for candidate in "$(dirname "$(command -v pg_ctl || echo /none/pg_ctl)")" /usr/lib/postgresql/*/bin; do
    if [ -x "$candidate/initdb" ] && [ -x "$candidate/psql" ]; then bin=$candidate; fi
done
[ -n "$bin" ] || { echo "no Postgres server is installed" >&2; exit 1; }

as=()
user=$(id -un)
if [ "$(id -u)" = 0 ]; then
    user=postgres
    as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
fi
run() { "${as[@]}" env -C / LC_ALL=C "$@"; }

if [ "$command" = stop ]; then
    if [ -d "$dir/data" ] && run "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; then
        run "$bin/pg_ctl" -D "$dir/data" -m fast -w -t 60 stop >/dev/null
    fi
    exit 0
fi

mkdir -p "$dir"
chmod 0700 "$dir"
chown "$user" "$dir"
if ! run test -x "$dir"; then
    echo "The user $user cannot reach $dir: choose another folder, as in" >&2
    echo "    make run DATA=/var/lib/millrace" >&2
    exit 1
fi

# A unix socket's path must fit 107 bytes.
sockets=$dir/run
if [ ${#sockets} -gt 85 ]; then
    sockets=/tmp/millrace-$(id -u)-$(printf %s "$dir" | cksum | cut -d' ' -f1)
fi
mkdir -p -m 0700 "$sockets"
if [ ! -O "$sockets" ] && [ "$(stat -c %U "$sockets")" != "$user" ]; then
    echo "$sockets belongs to somebody else" >&2
    exit 1
fi
chmod 0700 "$sockets"
chown "$user" "$sockets"

# An initdb that was interrupted leaves a folder without the mark; nothing is in it yet.
if [ ! -e "$dir/created" ]; then
    run rm -rf "$dir/data"
    run "$bin/initdb" -D "$dir/data" -U millrace -A trust -E UTF8 --no-locale \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
    run touch "$dir/created"
fi
run tee "$dir/data/millrace.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$sockets'
unix_socket_permissions = 0700
max_connections = 100
fsync = on
synchronous_commit = on
full_page_writes = on
CONF
run grep -q "^include = 'millrace.conf'" "$dir/data/postgresql.conf" ||
    run sh -c 'echo "include = '"'millrace.conf'"'" >> "$1"' sh "$dir/data/postgresql.conf"
if ! run "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; then
    run "$bin/pg_ctl" -D "$dir/data" -l "$dir/postgres.log" -w -t 60 start >/dev/null ||
        { tail -20 "$dir/postgres.log" >&2; exit 1; }
fi
found=$(run "$bin/psql" -h "$sockets" -U millrace -d postgres -qAt \
    -c "SELECT 1 FROM pg_database WHERE datname = 'millrace'")
[ -n "$found" ] || run "$bin/createdb" -h "$sockets" -U millrace millrace
echo "$sockets millrace"
