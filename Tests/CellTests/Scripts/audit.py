# SPDX-License-Identifier: Apache-2.0
"""Counts what a cell keeps, from outside: every object in its store, every row in its database.

    audit.py plant    puts an object there that no row names, as a flush that died would
    audit.py count    says what is MISSING and what is LEAKED, and how much of all there is
    audit.py closed STREAM   of the channel that closed this stream: how many it has closed

Nothing of the cell is asked. The store is walked (a folder) or listed (S3); what is legitimate
follows from the rows and from the objects' own directories.
"""

import json
import os
import struct
import subprocess
import sys

from bucket import open_bucket

SHARED = dict(env=os.environ, check=True, capture_output=True, text=True)


def rows(query):
    """The rows of a query, as lists of texts."""
    words = ["psql", "-qXAt", "-F", "\t", "-c", query, os.environ["MILLRACE_METADATA"]]
    lines = subprocess.run(words, **SHARED).stdout.splitlines()
    return [line.split("\t") for line in lines]


def mix(seed):
    mask = (1 << 64) - 1
    state = (seed + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def segment_key(identifier):
    high, low = identifier >> 64, identifier & ((1 << 64) - 1)
    return "seg/%02x/%032x" % (mix(mix(high) ^ low) >> 56, identifier)


def plant(bucket):
    """A copy of a segment object that is in use, under a name of its own; and a doctor's probe."""
    [[known]] = rows("SELECT object FROM millrace.segment LIMIT 1")
    orphan = segment_key(int.from_bytes(os.urandom(16), "big"))
    bucket.put(orphan, bucket.get(known))
    bucket.put("doctor/left-behind", b"probe")
    print("planted", orphan)


def spans(body):
    """(stream, start, end, has a state) of each segment in an object's directory."""
    count = struct.unpack_from("<I", body, len(body) - TRAILER + 8)[0]
    start = len(body) - TRAILER - 80 * count
    for entry in range(count):
        at = start + 80 * entry
        first, end = struct.unpack_from("<QQ", body, at + 16)
        stream = "%016x%016x" % struct.unpack_from("<QQ", body, at)
        yield stream, first, end, body[at + 72] & 1 == 1


TRAILER = 24


def check_logs(keys, missing, leaked):
    """Of logs nothing may be left but seals, and what came in behind a seal too late to count."""
    channels = rows("SELECT id, state, flushed_end, sealed_at FROM millrace.channel")
    by_id = {int(c[0]): c for c in channels}
    seals = 0
    for key in keys:
        channel, index = (int(part) for part in key.split("/")[1:])
        _, state, flushed, sealed = by_id.get(channel, (0, "unknown", "0", ""))
        if sealed and index == int(sealed):
            seals += 1
        elif not sealed or index < int(sealed):
            leaked.append("%s of a log that is %s, flushed up to %s" % (key, state, flushed))
    for identifier, state, _, sealed in channels:
        key = "wal/%020d/%020d" % (int(identifier), int(sealed or 0))
        # A channel's row goes last, when nothing is left of its log.
        if sealed and key not in keys:
            missing.append("the seal " + key)
        if state not in ("active", "retired") and "--stopped" not in sys.argv:
            leaked.append("channel %s is %s" % (identifier, state))
    return seals


def named_objects():
    return {row[0] for row in rows("SELECT DISTINCT object FROM millrace.segment")}


def check_segments(bucket, keys, before, missing, leaked):
    """Every object a row names is there; every other is the last word of a stream that lives.

    A stream is silent while no row names a segment that ends where it does; then its last word is
    in some object, which may have others' records."""
    named = named_objects()
    missing += ["the object " + key for key in sorted((before & named) - keys)]
    tails = dict(rows(
        "SELECT replace(s.id::text, '-', ''), s.tail_seq_num FROM millrace.stream s"
        " WHERE s.deleted_milliseconds IS NULL AND s.tail_seq_num > 0 AND NOT EXISTS ("
        "SELECT FROM millrace.segment g WHERE g.stream = s.id"
        " AND g.end_seq_num = s.tail_seq_num)"))
    words, told = 0, set()
    for key in sorted(keys):
        body = bucket.get(key)
        # Between the listing and now it went.
        if body is None:
            continue
        entries = list(spans(body))
        here = {stream for stream, _, end, has_state in entries
                if has_state and tails.get(stream) == str(end)}
        told |= here
        if key in named | before:
            continue
        if here and all(first == end for _, first, end, _ in entries):
            words += 1
        else:
            leaked.append("%s, %d bytes" % (key, len(body)))
    return {"segment_objects": len(named), "last_words": words, "silent_streams": len(tails),
            "untold_streams": len(tails.keys() - told)}


def check_rows(leaked):
    """Rows that should be gone by now; answers how many objects await their deletion."""
    garbage = 0
    for name, query in [
        ("deleted streams", "SELECT basin || '/' || name FROM millrace.stream"
         " WHERE deleted_milliseconds IS NOT NULL"),
        ("deleted basins", "SELECT name FROM millrace.basin"
         " WHERE deleted_milliseconds IS NOT NULL"),
        ("trimmed segments", "SELECT s.name || ' ' || g.start_seq_num FROM millrace.segment g"
         " JOIN millrace.stream s ON s.id = g.stream WHERE g.end_seq_num <= s.trim_point"),
        ("garbage", "SELECT g.object FROM millrace.garbage g WHERE NOT g.is_gone AND NOT EXISTS"
         " (SELECT FROM millrace.segment s WHERE s.object = g.object)"),
        ("marks", "SELECT channel FROM millrace.log_garbage WHERE marked_end IS NOT NULL"),
        ("empty streams", "SELECT stream FROM millrace.empty_stream"),
        ("closed streamlets of what is retired", "SELECT t.stream || ' ' || t.number"
         " FROM millrace.streamlet t JOIN millrace.channel c ON c.id = t.channel"
         " WHERE t.state = 'closed' AND c.state = 'retired'"),
        # Of a channel that lives, those that its last flush closed are left: one statement's.
        ("channels with many closed streamlets", "SELECT channel FROM millrace.streamlet"
         " WHERE state = 'closed' GROUP BY channel HAVING count(*) > 256"),
    ]:
        if name.endswith("retired") and "--stopped" in sys.argv:
            continue
        found = rows(query)
        leaked += ["%s: %s" % (name, row[0]) for row in found]
        garbage += len(found) if name == "garbage" else 0
    return garbage


def row_count(table):
    return int(rows("SELECT count(*) FROM millrace." + table)[0][0])


def count(bucket):
    # Rows before objects, and again behind them: what comes and goes meanwhile is no fault.
    missing, leaked = [], []
    garbage = check_rows(leaked)
    before = named_objects()
    keys = set(bucket.list())
    logs = {key for key in keys if key.startswith("wal/")}
    segments = {key for key in keys if key.startswith("seg/")}
    seals = check_logs(logs, missing, leaked)
    counts = check_segments(bucket, segments, before, missing, leaked)
    leaked += sorted(keys - logs - segments)
    for what in missing:
        print("MISSING", what)
    for what in leaked:
        print("LEAKED", what)
    print(json.dumps({
        "objects": len(keys), **counts, "seals": seals, "missing": len(missing),
        "leaked": len(leaked), "garbage": garbage, "streams": row_count("stream"),
        "segments": row_count("segment"),
        "streamlets": row_count("streamlet"), "channels": row_count("channel"),
        "logs": row_count("log_garbage"), "cacheys": row_count("cachey"),
        "leases": row_count("lease"), "refused_names": row_count("garbage WHERE is_gone"),
    }, sort_keys=True))


def closed(_):
    print(rows(
        "SELECT count(*) FROM millrace.streamlet WHERE state = 'closed' AND channel = ("
        "SELECT t.channel FROM millrace.streamlet t JOIN millrace.stream s ON s.id = t.stream"
        " WHERE s.name = '%s' AND t.state = 'closed'"
        " ORDER BY t.number DESC LIMIT 1)" % sys.argv[2])[0][0])


if __name__ == "__main__":
    {"plant": plant, "count": count, "closed": closed}[sys.argv[1]](open_bucket(os.environ))
