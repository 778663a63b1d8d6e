#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The cell's own Postgres: durable, reachable through a private unix socket only.
#   postgres.sh start DIR   creates the database cluster in DIR at the first start; prints the
#                           connection string of the cell's database
#   postgres.sh stop DIR
# What DIR/data holds is never removed: a database that was restored there is started as it is.
# As root it runs as the user postgres, because Postgres refuses to run as root.
set -euo pipefail
command=$1
dir=$2
case $dir in *[\"\$\`\\]* | *$'\n'*)
    # Postgres's own programs hand its path to a shell.
    echo "Postgres cannot be kept in $dir: choose a folder with another name" >&2
    exit 1
esac

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

# A unix socket's path must fit 107 bytes, and a comma would part two hosts.
sockets=$dir/run
if [ "$(printf %s "$sockets" | wc -c)" -gt 85 ] || [[ $sockets == *,* ]]; then
    sockets=/tmp/millrace-$(id -u)-$(printf %s "$dir" | cksum | cut -d' ' -f1)
fi
# In /tmp anybody may have made something of this name, a link to elsewhere for one.
run mkdir -m 0700 "$sockets" 2>/dev/null || true
if [ "$(stat -c '%F of %U' "$sockets" || true)" != "directory of $user" ]; then
    echo "$sockets is not a folder of the user $user" >&2
    exit 1
fi
run chmod 0700 "$sockets"

# An initdb that was interrupted leaves `data.new` only; `data` is whole, and on disk.
if [ ! -e "$dir/data/PG_VERSION" ]; then
    if [ -n "$(ls -A "$dir/data" 2>/dev/null)" ]; then
        echo "$dir/data holds files, but no database: see to them first" >&2
        exit 1
    fi
    run rm -rf "$dir/data.new"
    run sh -c 'exec "$1" -D "$2/data.new" -U millrace -A trust -E UTF8 --no-locale \
        >"$2/initdb.log" 2>&1' sh "$bin/initdb" "$dir" ||
        { run cat "$dir/initdb.log" >&2; exit 1; }
    run sync -f "$dir"
    run mv -T "$dir/data.new" "$dir/data"
    run sync -f "$dir"
fi
run tee "$dir/data/millrace.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '${sockets//\'/\'\'}'
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
        { run tail -20 "$dir/postgres.log" >&2; exit 1; }
fi
found=$(run "$bin/psql" -h "$sockets" -U millrace -d postgres -qAt \
    -c "SELECT 1 FROM pg_database WHERE datname = 'millrace'")
[ -n "$found" ] || run "$bin/createdb" -h "$sockets" -U millrace millrace
echo "host='${sockets//\'/\\\'}' user=millrace dbname=millrace"
