#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sees to it that the packages which Millrace needs are there (Debian 12).
#   install-packages.sh           to build and run a cell
#   install-packages.sh --tests   also what the tests need
# Installs what is missing as root or by sudo; without either prints the command and exits with 1.
set -euo pipefail

packages=(libcurl4-openssl-dev libpq-dev libssl-dev libzstd-dev zlib1g-dev pkg-config postgresql
    python3 python3-venv curl)
if [ "${1:-}" = --tests ]; then
    packages+=(radosgw ceph-mon ceph-osd ceph-common binutils iproute2)
fi

if ! command -v swift >/dev/null; then
    echo "Swift 6.3 or later is needed: https://www.swift.org/install/linux" >&2
    exit 1
fi
if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian; these packages (or your system's own) must be there:" >&2
    echo "    ${packages[*]}" >&2
    exit 0
fi

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
    else
        echo "Packages are missing. As root, run:" >&2
        echo "    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi

# Debian would create a database cluster and start it on port 5432; the cell brings its own.
case " ${missing[*]} " in *" postgresql "*)
    "${as_root[@]}" sh -c '
        conf=/etc/postgresql-common/createcluster.conf
        mkdir -p /etc/postgresql-common
        if [ -f $conf ]; then
            sed -i "s/^#*\s*create_main_cluster.*/create_main_cluster = false/" $conf
        fi
        grep -qs "^create_main_cluster = false" $conf || echo "create_main_cluster = false" >> $conf'
esac

echo "installing: ${missing[*]}" >&2
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    -o Dpkg::Options::=--force-confold --no-install-recommends "${missing[@]}" >/dev/null
