#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An S3 server for tests: Ceph's radosgw on one monitor and one storage daemon that keeps all in
# memory. It verifies signatures and honours If-None-Match, which is why it is this one. Loopback
# only; any number may run at once, each in its own folder.
#
#   s3.sh start DIR    starts it and writes DIR/env: source that file, and the tests find it
#   s3.sh stop DIR     ends it and removes what it kept
#
# Needs radosgw, ceph-mon, ceph-osd, ceph-common and python3.
set -euo pipefail

readonly ACCESS_KEY=MILLRACEKEY SECRET_KEY=millracesecret REGION=us-east-1 BUCKET=millrace-test

fail() {
    echo "s3.sh: $*" >&2
    exit 1
}

# A port below the ephemeral range on which nobody listens now.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    fail "no free port"
}

# Tries a command for up to 20 s.
insist() {
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "s3.sh: gave up: $*" >&2
    return 1
}

write_conf() {
    cat >"$D/ceph.conf" <<CONF
[global]
fsid = $FSID
mon host = [v1:127.0.0.1:$MON_PORT]
ms bind msgr2 = false
ms type = async+posix
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
auth supported = none
keyring = $D/keyring
run dir = $D/run
pid file = $D/run/\$name.pid
admin socket =
log file = $D/log/\$name.log
log to stderr = false
err to stderr = false
mon cluster log file = $D/log/cluster.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon osd min up ratio = 0
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
# Without these two a start takes 13 s.
paxos propose interval = 0.01
paxos min wait = 0.01
mon tick interval = 1
osd beacon report interval = 5
[mon]
mon data = $D/mon
debug mon = 0
[osd]
osd data = $D/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd memory target = 1073741824
osd class load list = *
osd class default list = *
[client]
rgw dns name = localhost
rgw thread pool size = 32
rgw enable usage log = false
rgw enable ops log = false
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw run sync thread = false
CONF
}

start_daemons() {
    FSID=$(cat /proc/sys/kernel/random/uuid)
    MON_PORT=$(free_port)
    RGW_PORT=$(free_port)
    mkdir -p "$D"/{mon,osd,run,log}
    write_conf
    local conf="$D/ceph.conf" uuid
    ceph-authtool --create-keyring "$D/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$D/keyring" --gen-key -n client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    monmaptool --create --clobber --fsid "$FSID" --addv a "[v1:127.0.0.1:$MON_PORT]" "$D/monmap"
    ceph-mon -c "$conf" -i a --mkfs --monmap "$D/monmap" --keyring "$D/keyring" || return 1
    ceph-mon -c "$conf" -i a || return 1
    insist timeout 10 ceph -c "$conf" --connect-timeout 5 quorum_status || return 1
    uuid=$(cat /proc/sys/kernel/random/uuid)
    insist timeout 10 ceph -c "$conf" --connect-timeout 5 osd new "$uuid" 0 || return 1
    ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" || return 1
    ceph-osd -c "$conf" -i 0 || return 1
    insist is_osd_up || return 1
    # tcp_nodelay: else a reply may wait 40 ms for an acknowledgement.
    radosgw -c "$conf" -n client.admin \
        --rgw-frontends "beast endpoint=127.0.0.1:$RGW_PORT tcp_nodelay=1" \
        --pid-file "$D/run/rgw.pid" --log-file "$D/log/rgw.log" || return 1
    insist is_listening || return 1
    insist timeout 10 radosgw-admin -c "$conf" -n client.admin user create --uid=millrace \
        --display-name=millrace --access-key="$ACCESS_KEY" --secret="$SECRET_KEY" || return 1
    insist create_bucket || return 1
}

is_osd_up() { timeout 10 ceph -c "$D/ceph.conf" --connect-timeout 5 osd stat | grep -q '1 up'; }
is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$RGW_PORT") 2>/dev/null; }

create_bucket() {
    python3 - "$RGW_PORT" "$BUCKET" "$ACCESS_KEY" "$SECRET_KEY" "$REGION" <<'PYTHON'
import datetime, hashlib, hmac, http.client, sys
port, bucket, access, secret, region = sys.argv[1:]
host = f"127.0.0.1:{port}"
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
empty = hashlib.sha256(b"").hexdigest()
headers = {"host": host, "x-amz-content-sha256": empty, "x-amz-date": now}
names = ";".join(headers)
lines = "".join(f"{k}:{v}\n" for k, v in headers.items())
canonical = f"PUT\n/{bucket}\n\n{lines}\n{names}\n{empty}"
scope = f"{now[:8]}/{region}/s3/aws4_request"
text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
key = f"AWS4{secret}".encode()
for part in scope.split("/"):
    key = hmac.new(key, part.encode(), hashlib.sha256).digest()
signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={access}/{scope},"
                            f"SignedHeaders={names},Signature={signature}")
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
connection.request("PUT", f"/{bucket}", headers=headers)
reply = connection.getresponse()
sys.exit(0 if reply.status == 200 else f"creating the bucket: {reply.status} {reply.read()}")
PYTHON
}

stop_daemons() {
    local file pid
    for file in "$D"/run/{rgw,osd.0,mon.a}.pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        # Only what runs on our configuration is ours: numbers are used again.
        if grep -qaF "$D/ceph.conf" "/proc/$pid/cmdline" 2>/dev/null; then
            kill -9 "$pid" 2>/dev/null || true
        fi
    done
    rm -rf "$D"/{mon,osd,run,log,monmap,keyring,ceph.conf,env}
}

start() {
    local tool
    for tool in ceph ceph-mon ceph-osd ceph-authtool monmaptool radosgw radosgw-admin python3; do
        command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install" \
            "radosgw ceph-mon ceph-osd ceph-common python3"
    done
    mkdir -p "$D"
    [ ! -e "$D/env" ] || fail "$D is in use: s3.sh stop $D"
    # Somebody may take a port between the look and its use: then once more, on others.
    for _ in 1 2 3; do
        # `if`, so that a failure inside comes here and does not end the script.
        if start_daemons >"$D/start.log" 2>&1; then
            write_env
            return
        fi
        tail -n 8 "$D/start.log" "$D"/log/*.log >&2 2>/dev/null || true
        stop_daemons
    done
    fail "radosgw does not start"
}

write_env() {
    cat >"$D/env.new" <<ENV
export MILLRACE_TEST_S3_ENDPOINT=http://127.0.0.1:$RGW_PORT
export MILLRACE_TEST_S3_BUCKET=$BUCKET
export MILLRACE_TEST_S3_ACCESS_KEY=$ACCESS_KEY
export MILLRACE_TEST_S3_SECRET_KEY=$SECRET_KEY
export MILLRACE_TEST_S3_REGION=$REGION
ENV
    mv "$D/env.new" "$D/env"
}

[ $# -eq 2 ] || fail "usage: s3.sh start|stop DIR"
mkdir -p "$2"
D=$(cd "$2" && pwd)
case $1 in
start) start ;;
stop) stop_daemons ;;
*) fail "usage: s3.sh start|stop DIR" ;;
esac
