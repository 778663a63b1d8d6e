# SPDX-License-Identifier: Apache-2.0
"""F: reads in one request."""

import asyncio
import time

from . import check, same, true
from .cell import PROTO, error
from .wire import Batch, metered, record

MIB = 1 << 20


def beyond(reply, tail, what=""):
    same((reply.status, reply.json()),
         (416, {"tail": {"seq_num": tail[0], "timestamp": tail[1]}}), what)


async def counted(cell, count, size=10):
    """A stream of so many records, whose bodies begin with their numbers."""
    stream = await cell.make_stream()
    for first in range(0, count, 1000):
        await stream.bodies(*[b"%06d" % n + b"x" * (size - 6)
                              for n in range(first, min(count, first + 1000))])
    return stream


@check(169)
async def records_in_order(cell):
    stream = await cell.make_stream()
    head = [(b"a", b"b")]
    acks = [await stream.append([(b"x%d" % n, head)]) for n in range(5)]
    found = (await stream.read("seq_num=0")).records
    same(found, [(n, acks[n].start[1], head, b"x%d" % n) for n in range(5)])
    data = (await stream.get("seq_num=3")).json()
    same(data["records"], [
        {"seq_num": n, "timestamp": acks[n].start[1], "headers": [["a", "b"]], "body": "x%d" % n}
        for n in (3, 4)])
    if "tail" in data:
        same(data["tail"], {"seq_num": 5, "timestamp": acks[4].end[1]})


@check(170)
async def counts_and_bytes(cell):
    stream = await counted(cell, 5)
    size = metered(b"x" * 10)
    for query, wanted in (
            ("seq_num=0&count=3", [0, 1, 2]), ("seq_num=0&count=5", range(5)),
            ("seq_num=0&count=100", range(5)), ("seq_num=3&count=1", [3]),
            ("seq_num=0&count=0", []), ("seq_num=0&bytes=0", []),
            ("seq_num=0&bytes=%d" % (size - 1), []), ("seq_num=0&bytes=%d" % size, [0]),
            ("seq_num=0&bytes=%d" % (size * 2 + 1), [0, 1]), ("seq_num=2&bytes=%d" % size, [2]),
            ("seq_num=0&bytes=100000", range(5)), ("seq_num=0&count=2&bytes=%d" % size, [0]),
            ("seq_num=0&count=1&bytes=%d" % (3 * size), [0]),
            ("seq_num=0&count=18446744073709551615&bytes=18446744073709551615", range(5)),
            ("tail_offset=2", [3, 4]), ("tail_offset=2&count=1", [3]),
            ("tail_offset=100", range(5)), ("tail_offset=18446744073709551615", range(5)),
            ("timestamp=0", range(5)), ("timestamp=0&bytes=%d" % size, [0]),
            ("seq_num=0&until=0", []), ("seq_num=0&until=1", []),
            ("seq_num=1&clamp=true", range(1, 5)), ("seq_num=1&clamp=false", range(1, 5)),
            ("seq_num=0&wait=5", range(5)), ("seq_num=0&count=0&wait=5", [])):
        batch = await stream.read(query)
        same(batch.seqs, list(wanted), query)
        if batch.tail is not None and batch.records:
            same(batch.tail[0], batch.seqs[-1] + 1, query)
        data = (await stream.get(query)).json()
        same([r["seq_num"] for r in data["records"]], list(wanted), "JSON " + query)


@check(171)
async def the_cap_of_1000_records(cell):
    stream = await counted(cell, 1100)
    for query in ("seq_num=0&count=5000", "seq_num=0", "seq_num=50", "tail_offset=1050"):
        batch = await stream.read(query)
        same(len(batch.records), 1000, query)
        same(batch.tail, None, query)
    same((await stream.read("seq_num=200")).seqs, list(range(200, 1100)), "194")


@check(173)
async def the_cap_of_1_mib(cell):
    stream = await cell.make_stream()
    for n in range(5):
        await stream.bodies(b"%d" % n * 400_000)
    for query in ("seq_num=0&bytes=10000000", "seq_num=0"):
        same((await stream.read(query)).seqs, [0, 1], query)
    same((await stream.read("seq_num=4")).seqs, [4])
    whole = await cell.make_stream()
    await whole.bodies(b"x" * (MIB - 8))
    await whole.bodies(b"y" * (MIB - 8))
    same((await whole.read("seq_num=0")).seqs, [0])
    same((await whole.read("seq_num=1")).bodies, [b"y" * (MIB - 8)])


@check(178)
async def starts_by_timestamp(cell):
    stream = await cell.make_stream()
    times = [100, 200, 200, 200, 300, 500]
    for n, at in enumerate(times):
        await stream.append([record(b"%d" % n, timestamp=at)])
    for query, wanted in (
            ("timestamp=0", range(6)), ("timestamp=100", range(6)), ("timestamp=101", range(1, 6)),
            ("timestamp=200", range(1, 6)), ("timestamp=201", [4, 5]), ("timestamp=500", [5]),
            ("timestamp=400", [5]), ("timestamp=200&count=2", [1, 2]),
            ("timestamp=200&bytes=18", [1, 2]), ("timestamp=101&until=300", [1, 2, 3]),
            ("timestamp=300&until=301", [4]), ("timestamp=301&until=400", []),
            ("seq_num=0&until=200", [0]), ("seq_num=0&until=201", range(4)),
            ("seq_num=2&until=200", []), ("seq_num=0&until=501", range(6)),
            ("tail_offset=3&until=300", [3])):
        same((await stream.read(query)).seqs, list(wanted), query)
    beyond(await stream.get("timestamp=501"), (6, 500), "180")
    beyond(await stream.get("timestamp=501&clamp=true"), (6, 500), "180")
    for query in ("timestamp=5&until=5", "timestamp=6&until=5"):
        reply = await stream.get(query)
        error(reply, 422, "invalid", "181")
        true("start `timestamp` exceeds or equal to `until`" in reply.json()["message"],
             "the message", reply)


@check(183)
async def starts_at_and_beyond_the_tail(cell):
    empty, stream = await cell.make_stream(), await counted(cell, 3)
    tail = await stream.tail()
    for query in ("", "seq_num=0", "tail_offset=0", "tail_offset=5", "seq_num=7", "timestamp=1",
                  "seq_num=7&clamp=true", "timestamp=1&clamp=true", "seq_num=0&count=0",
                  "seq_num=0&wait=0"):
        beyond(await empty.get(query), (0, 0), "184: empty, " + query)
    same((await empty.read("timestamp=0")).seqs, [], "t ≤ T")
    for query in ("", "seq_num=3", "tail_offset=0", "seq_num=4", "seq_num=18446744073709551615",
                  "seq_num=3&clamp=true", "seq_num=9&clamp=true", "seq_num=3&bytes=0",
                  "timestamp=18446744073709551615", "tail_offset=0&until=5"):
        for accept in (PROTO, "*/*"):
            beyond(await stream.get(query, {"accept": accept}), tail, "185 186: " + query)
    for query in ("seq_num=9&wait=1", "timestamp=18446744073709551615&wait=1"):
        beyond(await stream.get(query), tail, "not clamped: " + query)


@check(187)
async def waiting_in_vain(cell):
    empty, stream = await cell.make_stream(), await counted(cell, 3)

    async def timed(stream, query):
        start = time.monotonic()
        batch = await stream.read(query)
        took = time.monotonic() - start
        same(batch.seqs, [], query)
        true(0.9 <= took < 4, "%s: about 1 s" % query, took)
    await asyncio.gather(
        timed(stream, "seq_num=9&clamp=true&wait=1"), timed(empty, "seq_num=9&clamp=true&wait=1"),
        timed(empty, "seq_num=0&wait=1"), timed(stream, "tail_offset=0&wait=1"),
        timed(stream, "seq_num=3&wait=1&count=5"), timed(stream, "wait=1"))


@check(189)
async def waiting_for_an_append(cell):
    for stream in (await cell.make_stream(), await counted(cell, 4)):
        first = (await stream.tail())[0]
        tasks = [asyncio.create_task(stream.read(query + "&wait=10")) for query in
                 ("seq_num=%d" % first, "tail_offset=0", "seq_num=99&clamp=true",
                  "seq_num=%d&count=1" % first)]
        await asyncio.sleep(1)
        true(not any(t.done() for t in tasks), "an answer without a record")
        start = time.monotonic()
        ack = await stream.bodies(b"new", b"newer")
        for task, wanted in zip(tasks, (2, 2, 2, 1)):
            batch = await task
            same(batch.bodies, [b"new", b"newer"][:wanted])
            if wanted == 2:
                same(batch.tail, ack.tail, "the tail")
        true(time.monotonic() - start < 3, "late", time.monotonic() - start)
        start = time.monotonic()
        same(len((await stream.read("seq_num=%d&wait=10" % first)).records), 2, "190")
        true(time.monotonic() - start < 3, "190: it waited", time.monotonic() - start)


@check(191, slow="wait")
async def waits_are_capped(cell):
    stream = await cell.make_stream()
    start = time.monotonic()
    same((await stream.read("seq_num=0&wait=3600")).seqs, [])
    true(58 < time.monotonic() - start < 66, "60 s", time.monotonic() - start)


@check(192)
async def contradictions(cell):
    for stream in (await cell.make_stream(), await counted(cell, 2)):
        for query in ("seq_num=0&timestamp=0", "seq_num=0&tail_offset=1",
                      "timestamp=0&tail_offset=1", "seq_num=0&timestamp=0&tail_offset=0"):
            error(await stream.get(query), 422, "invalid", query)
            for session in (await stream.read_session(query), await stream.events(query)):
                error(session.reply, 422, "invalid", query)
    error(await cell.call("GET", "/v1/streams/none/records?seq_num=0", basin=cell.basin), 404,
          "stream_not_found", "193")


@check(195)
async def starts_within_what_is_trimmed(cell):
    from .wire import trim
    stream = await cell.make_stream()
    for n in range(6):
        await stream.append([record(b"%d" % n, timestamp=100 + n)])
    await stream.append([record(b"\0" * 7 + b"\4", [(b"", b"trim")], timestamp=200)])
    for query in ("seq_num=0&count=1", "seq_num=3&count=1", "timestamp=0&count=1",
                  "timestamp=102&count=1", "tail_offset=7&count=1"):
        same((await stream.read(query)).seqs, [4], query)
    same((await stream.read("timestamp=105&count=1")).seqs, [5])
    await stream.append([trim(2**64 - 1)])
    for query in ("seq_num=0", "timestamp=0", "timestamp=105", "tail_offset=2", "seq_num=7"):
        same((await stream.read(query)).seqs, [], query)
    start = time.monotonic()
    same((await stream.read("seq_num=0&wait=1")).seqs, [])
    true(time.monotonic() - start > 0.9, "it did not wait")


@check(196)
async def names_of_protobuf(cell):
    stream = await counted(cell, 2)
    for accept in (PROTO, "application/x-protobuf", "Application/Protobuf; q=1",
                   "application/protobuf, application/json"):
        reply = await stream.get("seq_num=0", {"accept": accept})
        same(reply.headers["content-type"], PROTO, accept)
        same(Batch(reply.body).seqs, [0, 1])
    for accept in ("*/*", "application/json, application/protobuf", "nonsense"):
        reply = await stream.get("seq_num=0", {"accept": accept})
        same(reply.headers["content-type"], "application/json", accept)


@check(197)
async def concurrent_readers(cell):
    stream = await counted(cell, 500, 200)
    batches = await asyncio.gather(*(stream.read("seq_num=0") for _ in range(20)))
    for batch in batches:
        same(batch.records, batches[0].records)
    same(batches[0].seqs, list(range(500)))


@check("197b")
async def records_at_rest_are_the_same(cell):
    """Once the log was flushed, from other objects."""
    stream = await counted(cell, 300, 500)
    fresh = (await stream.read("seq_num=0")).records
    await asyncio.sleep(8)
    same((await stream.read("seq_num=0")).records, fresh)
    same((await stream.read("seq_num=150&count=2")).records, fresh[150:152])
    at = fresh[0][1]
    same((await stream.read("timestamp=%d&count=1" % at)).seqs, [0])
    await stream.bodies(b"more")
    same(len((await stream.read("seq_num=0")).records), 301)
