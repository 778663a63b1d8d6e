# SPDX-License-Identifier: Apache-2.0
"""G: what is special about server-sent events."""

import asyncio
import base64
import json

from . import check, same, true
from .cell import error
from .wire import metered


@check(211)
async def events_while_others_append(cell):
    stream = await cell.make_stream()
    events = await stream.events("seq_num=0")

    async def write():
        for n in range(64):
            await stream.bodies(b"record %d" % n)
    task = asyncio.create_task(write())
    bodies = []
    while len(bodies) < 64:
        data = json.loads((await events.named("batch"))["data"])
        bodies += [r["body"] for r in data["records"]]
    await task
    same(bodies, ["record %d" % n for n in range(64)])


@check(212)
async def ids(cell):
    stream = await cell.make_stream()
    head = [(b"k", b"v")]
    await stream.append([(b"abc", head), (b"d",)])
    size = metered(b"abc", head) + metered(b"d")
    events = await stream.events("seq_num=0")
    event = await events.named("batch")
    same(event["id"], "1,2,%d" % size)
    data = json.loads(event["data"])
    same([r.get("headers") for r in data["records"]], [[["k", "v"]], None])
    ack = await stream.bodies(b"live")
    event = await events.named("batch")
    same(event["id"], "2,3,%d" % (size + metered(b"live")), "cumulative")
    same(json.loads(event["data"])["tail"], {"seq_num": 3, "timestamp": ack.tail[1]})
    second = await stream.events("seq_num=2")
    same((await second.named("batch"))["id"], "2,1,%d" % metered(b"live"), "per connection")


@check(213)
async def resuming(cell):
    stream = await cell.make_stream()
    await stream.bodies(*[b"%02d" % n for n in range(20)])
    size = metered(b"00")

    async def resumed(query, last):
        events = await (await stream.events(query, {"last-event-id": last})).all()
        same(events[-1], {"data": "[DONE]"}, query)
        return [r["seq_num"] for e in events[:-1] if e["event"] == "batch"
                for r in json.loads(e["data"])["records"]]
    same(await resumed("seq_num=0&count=10", "3,4,40"), list(range(4, 10)))
    same(await resumed("timestamp=0&count=10", "3,4,40"), list(range(4, 10)))
    same(await resumed("tail_offset=20&count=10", " 3, 4, 40 "), list(range(4, 10)))
    same(await resumed("seq_num=0&bytes=%d" % (10 * size), "3,4,%d" % (4 * size)),
         list(range(4, 10)))
    same(await resumed("seq_num=0&count=5", "3,9,900"), [])
    same(await resumed("wait=0", "17,1,1"), [18, 19])
    # A limit of zero at the tail.
    for last in ("19,20,200", "18446744073709551615,1,1"):
        session = await stream.events("seq_num=0&count=10", {"last-event-id": last})
        same(session.reply.status, 416, last)


@check(214)
async def malformed_ids(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"a")
    for last in ("", "1", "1,2", "1,2,3,4", "a,b,c", "1,2,-3", "1.0,2,3",
                 "18446744073709551616,1,1"):
        session = await stream.events("seq_num=0", {"last-event-id": last})
        error(session.reply, 400, "bad_header", last)
        session.close()


@check(217)
async def pings(cell):
    stream = await cell.make_stream()
    ack = await stream.bodies(b"a")
    events = await stream.events("seq_num=1")
    event = await events.named("ping")
    data = json.loads(event["data"])
    same((set(data), set(event)), ({"timestamp", "tail"}, {"event", "data"}))
    same(data["tail"], {"seq_num": 1, "timestamp": ack.tail[1]})
    true(abs(data["timestamp"] - ack.tail[1]) < 30_000, "the time", data)


@check(218)
async def bytes_in_base64(cell):
    stream = await cell.make_stream()
    await stream.append([(b"\xff\0\n", [(b"\x80", b"\r\n")])])
    events = await stream.events("seq_num=0&count=1", {"s2-format": "base64"})
    one = json.loads((await events.named("batch"))["data"])["records"][0]
    same(base64.b64decode(one["body"]), b"\xff\0\n")
    same([base64.b64decode(t) for t in one["headers"][0]], [b"\x80", b"\r\n"])
    same(await events.event(), {"data": "[DONE]"}, "215")
    same(await events.event(), None, "215: then closed")
    events = await stream.events("seq_num=0&count=1")
    data = (await events.named("batch"))["data"]
    same(json.loads(data)["records"][0]["headers"], [["\ufffd", "\r\n"]])
    session = await stream.events("seq_num=0", {"s2-format": "hex"})
    error(session.reply, 400, "bad_header")


@check("211b")
async def large_events(cell):
    stream = await cell.make_stream()
    for n in range(3):
        await stream.bodies(b"%d" % n + b"\x01" * 900_000)
    events = await (await stream.events("seq_num=0&count=3")).all(30)
    bodies = [r["body"] for e in events[:-1] for r in json.loads(e["data"])["records"]]
    same([(b[0], len(b)) for b in bodies], [(str(n), 900_001) for n in range(3)])
