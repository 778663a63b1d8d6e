# SPDX-License-Identifier: Apache-2.0
"""G: read sessions; where it matters, over both forms of them."""

import asyncio
import time

from . import check, same, true
from .cell import error
from .wire import Batch, metered, record


async def stream_of(cell, *batches):
    stream = await cell.make_stream()
    for batch in batches:
        await stream.bodies(*batch)
    return stream


async def collect(session, count):
    """The next `count` records."""
    records = []
    while len(records) < count:
        batch = await session.data()
        records += batch.records
    same(len(records), count, "more than were due")
    return records


@check(198)
async def a_count_ends_the_session(cell):
    stream = await stream_of(cell, [b"a"], [b"b"])
    for query, wanted in (("seq_num=0&count=2", 2), ("seq_num=0&count=1", 1),
                          ("seq_num=0&count=5", 2), ("tail_offset=2&count=2", 2),
                          ("seq_num=0&bytes=17", 1), ("seq_num=0&until=1", 0),
                          ("seq_num=0&count=0", 0), ("seq_num=0&bytes=5", 0),
                          ("timestamp=0&count=1", 1), ("seq_num=0&count=2&wait=30", 2)):
        session = await stream.read_session(query)
        batches = await session.until_end()
        same([s for b in batches for s in b.seqs], list(range(wanted)), query)
        if wanted:
            same(len(batches), 1, "one batch holds them all, " + query)
        session.close()


@check(199)
async def following(cell):
    stream = await stream_of(cell, [b"a", b"b"])
    session = await stream.read_session("seq_num=0")
    same([r[3] for r in await collect(session, 2)], [b"a", b"b"])
    for n in range(5):
        ack = await stream.bodies(b"live %d" % n, b"more")
        start = time.monotonic()
        batch = await session.data()
        true(time.monotonic() - start < 4, "late", time.monotonic() - start)
        same((batch.bodies, batch.tail), ([b"live %d" % n, b"more"], ack.tail), "207")
        same(batch.records[-1][1], ack.end[1], "207")
    session.close()


@check(200)
async def the_first_heartbeat(cell):
    empty, stream = await cell.make_stream(), await stream_of(cell, [b"a"])
    tail = await stream.tail()
    for one, query, wanted in ((empty, "seq_num=0", (0, 0)), (stream, "seq_num=1", tail),
                               (stream, "", tail), (stream, "tail_offset=0", tail),
                               (stream, "seq_num=99&clamp=true", tail),
                               (stream, "timestamp=99999999999999&clamp=true", tail),
                               (stream, "seq_num=1&count=5&wait=9", tail)):
        session = await one.read_session(query)
        start = time.monotonic()
        batch = await session.batch()
        true(time.monotonic() - start < 4, "201: late, " + query, time.monotonic() - start)
        same((batch.records, batch.tail), ([], wanted), query)
        session.close()


@check("200b")
async def heartbeats_go_on(cell):
    stream = await stream_of(cell, [b"a"])
    session, events = await stream.read_session("seq_num=1"), await stream.events("seq_num=1")
    same((await session.batch()).tail, await stream.tail())
    same((await events.event())["event"], "ping")
    start = time.monotonic()
    batch = await session.batch(15.5)
    same((batch.records, batch.tail), ([], await stream.tail()))
    true(time.monotonic() - start > 3, "too soon", time.monotonic() - start)
    same((await events.event(15.5))["event"], "ping")


@check(202)
async def setups_that_fail(cell):
    stream = await stream_of(cell, [b"a"])
    number, at = await stream.tail()
    for query in ("seq_num=2", "seq_num=99", "timestamp=99999999999999", "seq_num=2&wait=5",
                  "tail_offset=0&count=1", "seq_num=1&until=5", "seq_num=9&clamp=true&bytes=10"):
        for session in (await stream.read_session(query), await stream.events(query)):
            same((session.reply.status, session.reply.json()),
                 (416, {"tail": {"seq_num": number, "timestamp": at}}), query)
            same(session.reply.headers["content-type"], "application/json")
            session.close()
    for kind in ({"content-type": "s2s/proto"}, {"accept": "text/event-stream"}):
        for basin, code in ((cell.basin, "stream_not_found"), ("no-such-basin", "basin_not_found")):
            reply = await cell.call("GET", "/v1/streams/none/records?seq_num=0", basin=basin,
                                    headers=kind)
            error(reply, 404, code, "223")


@check(203)
async def waiting_at_the_tail(cell):
    stream = await stream_of(cell, [b"a"])

    async def timed(open, query, low, high):
        session = await open(query)
        start = time.monotonic()
        if open == stream.read_session:
            same([b.records for b in await session.until_end() if b.records], [], query)
        else:
            events = await session.all()
            same(events[-1], {"data": "[DONE]"}, query)
            same([e["event"] for e in events[:-1]], ["ping"], query)
        took = time.monotonic() - start
        true(low <= took <= high, query, took)
    await asyncio.gather(*(timed(open, query, 2.75, 6) for open in
                           (stream.read_session, stream.events)
                           for query in ("tail_offset=0&wait=3", "tail_offset=0&wait=3&count=4",
                                         "seq_num=9&clamp=true&wait=3")))


@check(204)
async def records_extend_the_wait(cell):
    stream = await stream_of(cell, [b"a"])
    session = await stream.read_session("seq_num=0&wait=6")
    await collect(session, 1)
    start = time.monotonic()
    for n in range(2):
        await asyncio.sleep(3.2)
        await stream.bodies(b"%d" % n)
        await collect(session, 1)
    same([b.records for b in await session.until_end() if b.records], [])
    took = time.monotonic() - start
    true(12.1 <= took < 16, "3.2 + 3.2 + 6 s", took)


@check(205)
async def heartbeats_do_not_extend_the_wait(cell):
    stream = await stream_of(cell, [b"a"])
    session = await stream.read_session("seq_num=1&wait=16")
    start = time.monotonic()
    batches = await session.until_end(20)
    true(len(batches) >= 2, "no heartbeat besides the first", batches)
    took = time.monotonic() - start
    true(15.7 <= took < 19, "16 s", took)


@check(206)
async def caught_up_with_the_acks_tail(cell):
    stream = await cell.make_stream()
    ack = await stream.bodies(b"a", b"b")
    for query in ("tail_offset=2", "seq_num=0", "timestamp=0"):
        session = await stream.read_session(query)
        batch = await session.batch()
        same((batch.seqs, batch.tail), ([0, 1], ack.tail), query + ": of the batch")
        batch = await session.batch()
        same((batch.seqs, batch.tail), ([], ack.tail), query + ": of the heartbeat")
        session.close()


@check(208)
async def limits_within_a_live_batch(cell):
    size = metered(b"12345")
    for query, wanted in (("count=2&wait=20", 2), ("bytes=%d&wait=20" % (2 * size + 3), 2),
                          ("bytes=%d&wait=20" % (size - 1), 0), ("until=1000&wait=20", 2),
                          ("count=3&wait=20", 3), ("until=900&wait=20", 0),
                          ("bytes=%d&wait=20" % (3 * size), 3)):
        stream = await cell.make_stream()
        session = await stream.read_session("seq_num=0&" + query)
        events = await stream.events("seq_num=0&" + query)
        same((await session.batch()).records, [])
        same((await events.event())["event"], "ping")
        await stream.append([record(b"12345", timestamp=900), record(b"12345", timestamp=950),
                             record(b"12345", timestamp=1000)])
        batches = [b for b in await session.until_end() if b.records]
        same([b.seqs for b in batches], [list(range(wanted))] if wanted else [], query)
        found = [e.get("event", e["data"]) for e in await events.all()]
        same(found, (["batch"] if wanted else []) + ["[DONE]"], query)


@check(209)
async def a_consumer_that_stalls(cell):
    stream = await cell.make_stream()
    session = await stream.read_session("seq_num=0&count=55")
    same(session.reply.status, 416, "without wait")
    session = await stream.read_session("seq_num=0&count=55&wait=20")
    slow = await stream.read_session("seq_num=0")
    same((await session.batch()).records, [])
    # Enough to fill every buffer on the way while nobody reads.
    for n in range(60):
        await stream.bodies(b"%02d" % n + b"x" * 400_000)
    await asyncio.sleep(1)
    records = []
    while (found := await session.next()) is not None:
        true(not found[0] & 0x80, "failed", found[1])
        records += Batch(found[1]).records
    same([r[3][:2] for r in records], [b"%02d" % n for n in range(55)])
    same([r[0] for r in records], list(range(55)))
    records = await collect(slow, 60)
    same([r[0] for r in records], list(range(60)))
    await stream.bodies(b"and on")
    same((await slow.data()).bodies, [b"and on"])


@check(210)
async def order_while_a_producer_writes(cell):
    stream = await cell.make_stream()
    sessions = [await stream.read_session("seq_num=0") for _ in range(3)]
    late = []

    async def produce():
        for n in range(100):
            await stream.bodies(*[b"%d" % k for k in range(n % 5 + 1)])
            if n % 20 == 10:
                late.append(await stream.read_session("seq_num=0"))
    await produce()
    total = (await stream.tail())[0]
    for session in sessions + late:
        records = await collect(session, total)
        same([r[0] for r in records], list(range(total)))
        session.close()


@check(220)
async def readers_that_vanish(cell):
    stream = await stream_of(cell, [b"a"])
    kept = await stream.read_session("seq_num=1")
    for n in range(30):
        session = await (stream.events if n % 2 else stream.read_session)("seq_num=0")
        await session.next() if not n % 2 else await session.event()
        session.vanish()
    await stream.bodies(b"b")
    same((await kept.data()).bodies, [b"b"])
    kept.close()


@check(222)
async def a_followed_stream_is_deleted(cell):
    stream = await stream_of(cell, [b"a"])
    session, events = await stream.read_session("seq_num=0"), await stream.events("seq_num=0")
    await collect(session, 1)
    await session.batch()
    await events.named("batch")
    await events.named("ping")
    same((await stream.call("DELETE")).status, 202)
    status, body = await session.failure()
    true((status, body["code"]) in ((409, "stream_deletion_pending"), (503, "unavailable"),
                                    (404, "stream_not_found")), "S2S", status, body)
    event = await events.named("error")
    true(b"code" in event["data"].encode(), "SSE", event)
    same(await events.event(), None, "no [DONE]")


@check(224)
async def no_wait_and_no_limits(cell):
    stream = await stream_of(cell, [b"a", b"b"])
    for query, wanted in (("seq_num=2&wait=0", []), ("wait=0", []), ("seq_num=0&wait=0", [0, 1])):
        session = await stream.read_session(query)
        same(session.reply.status, 200, query)
        batches = await session.until_end(3)
        same([s for b in batches for s in b.seqs], wanted, query)
        events = await (await stream.events(query)).all(3)
        same(events[-1], {"data": "[DONE]"}, query)


@check("198b")
async def long_catch_up(cell):
    """Batches within their bounds, without a gap, the tail on the last one only."""
    stream = await cell.make_stream()
    for n in range(8):
        await stream.bodies(*[b"%d" % (n * 500 + k) + b"x" * 600 for k in range(500)])
    session = await stream.read_session("seq_num=0&wait=1")
    batches = await session.until_end()
    records = [r for b in batches for r in b.records]
    same([r[0] for r in records], list(range(4000)))
    for batch in batches:
        true(len(batch.records) <= 1000, "too many records", len(batch.records))
        true(sum(metered(r[3], r[2]) for r in batch.records) <= 1 << 20, "too large a batch")
        if batch.tail is not None:
            same(batch.tail[0], 4000)


@check(219, slow="wait")
async def half_a_minute_of_silence(cell):
    stream = await stream_of(cell, [b"a"])
    session = await stream.read_session("seq_num=1")
    end = time.monotonic() + 40
    while time.monotonic() < end:
        await session.batch(16)
    await stream.bodies(b"b")
    same((await session.data()).bodies, [b"b"])


@check(221, slow="dormancy")
async def an_idle_follower_outlives_dormancy(cell):
    stream = await stream_of(cell, [b"a"])
    session = await stream.read_session("seq_num=1")
    end = time.monotonic() + 2.5 * cell.dormancy
    while time.monotonic() < end:
        same((await session.batch(16)).records, [])
    ack = await stream.bodies(b"b")
    batch = await session.data()
    same((batch.bodies, batch.tail, ack.start[0]), ([b"b"], ack.tail, 1))
