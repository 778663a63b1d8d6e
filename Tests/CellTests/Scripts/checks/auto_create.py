# SPDX-License-Identifier: Apache-2.0
"""E: streams that come into being when they are first used."""

import asyncio
import json

from . import check, same, true
from .cell import Stream, error

DEFAULTS = {"storage_class": "standard", "retention_policy": {"age": 1234}}


async def basin_that_creates(cell, on, **more):
    return await cell.make_basin(
        {"create_stream_on_" + on: True, "default_stream_config": DEFAULTS} | more)


def new(cell, basin):
    return Stream(cell, basin, cell.fresh())


async def must_have(stream, wish):
    reply = await stream.call("GET")
    true(reply.status == 200, "the stream is there", reply)
    found = reply.json()
    same({k: found[k] for k in wish}, wish)


@check(161)
async def on_append(cell):
    basin = await basin_that_creates(cell, "append")
    stream = new(cell, basin)
    same((await stream.bodies(b"a")).start[0], 0)
    await must_have(stream, DEFAULTS)
    stream = new(cell, basin)
    same((await stream.post_json({"records": [{"body": "x"}]})).status, 200)
    await must_have(stream, DEFAULTS)
    stream = new(cell, basin)
    session = await stream.append_session()
    same((await session.begin()).status, 200)
    await must_have(stream, DEFAULTS)
    await session.send([(b"a",)])
    same((await session.ack()).start[0], 0)
    session.close()
    stream = new(cell, basin)
    error(await stream.get("seq_num=0"), 404, "stream_not_found", "164: read")
    error(await stream.call("GET", "/records/tail"), 404, "stream_not_found", "164: tail")
    page = (await cell.call("GET", "/v1/streams", basin=basin)).json()["streams"]
    same(len(page), 3, "168")
    same({s["cipher"] for s in page}, {None}, "168")


@check(162)
async def on_read(cell):
    basin = await basin_that_creates(cell, "read")
    stream = new(cell, basin)
    reply = await stream.get("seq_num=0")
    same((reply.status, reply.json()), (416, {"tail": {"seq_num": 0, "timestamp": 0}}))
    await must_have(stream, DEFAULTS)
    stream = new(cell, basin)
    same(await stream.tail(), (0, 0), "163")
    await must_have(stream, DEFAULTS)
    for opening in ("read_session", "events"):
        stream = new(cell, basin)
        session = await getattr(stream, opening)("seq_num=0")
        same(session.reply.status, 200, opening)
        await must_have(stream, DEFAULTS)
        session.close()
    error(await new(cell, basin).post([(b"a",)]), 404, "stream_not_found", "164: append")
    session = await new(cell, basin).append_session()
    error(await session.begin(), 404, "stream_not_found", "164: append session")


@check(164)
async def flags_off(cell):
    basin = await cell.make_basin()
    stream = new(cell, basin)
    for reply in (await stream.post([(b"a",)]), await stream.get("seq_num=0"),
                  await stream.call("GET", "/records/tail")):
        error(reply, 404, "stream_not_found")
    stream = new(cell, cell.fresh("none"))
    for reply in (await stream.post([(b"a",)]), await stream.get("seq_num=0"),
                  await stream.call("GET", "/records/tail")):
        error(reply, 404, "basin_not_found", "an unknown basin")


@check(166)
async def races_end_with_one_stream(cell):
    basin = await cell.make_basin({"create_stream_on_append": True, "create_stream_on_read": True})
    for _ in range(3):
        stream = new(cell, basin)
        acks = await asyncio.gather(*(stream.bodies(b"%d" % n) for n in range(12)))
        same(sorted(ack.start[0] for ack in acks), list(range(12)))
        stream = new(cell, basin)
        tails = await asyncio.gather(*(stream.tail() for _ in range(12)))
        same(set(tails), {(0, 0)})
        stream = new(cell, basin)
        mixed = await asyncio.gather(
            *(stream.bodies(b"x") for _ in range(6)), *(stream.tail() for _ in range(6)))
        same(sorted(a.start[0] for a in mixed[:6]), list(range(6)))


@check(167)
async def invalid_requests_create_nothing(cell):
    basin = await cell.make_basin({"create_stream_on_append": True, "create_stream_on_read": True})
    stream = new(cell, basin)
    error(await stream.get("timestamp=10&until=5"), 422, "invalid")
    error(await stream.get("timestamp=10&until=10"), 422, "invalid")
    error(await stream.get("seq_num=1&timestamp=2"), 422, "invalid")
    error(await stream.get("seq_num=x"), 400, "bad_query")
    error(await stream.get("seq_num=0", {"s2-format": "x"}), 400, "bad_header")
    error(await stream.post([]), 422, "invalid")
    error(await stream.post_json({"records": []}), 422, "invalid")
    error(await stream.post_json({}), 400, "bad_json")
    page = (await cell.call("GET", "/v1/streams", basin=basin)).json()["streams"]
    same(page, [])


@check("168b")
async def requests_may_bring_a_configuration(cell):
    basin = await cell.make_basin({"create_stream_on_append": True, "create_stream_on_read": True,
                                   "default_stream_config": DEFAULTS})
    wish = {"retention_policy": {"infinite": {}}, "timestamping": {"mode": "arrival"}}
    head = {"s2-stream-config": json.dumps(wish)}
    expected = {"storage_class": "standard", "retention_policy": {"infinite": {}},
                "timestamping": {"mode": "arrival", "uncapped": False}}
    stream = new(cell, basin)
    same((await stream.post([(b"a",)], headers=head)).status, 200)
    await must_have(stream, expected)
    stream = new(cell, basin)
    same((await stream.call("GET", "/records/tail", headers=head)).status, 200)
    await must_have(stream, expected)
    stream = new(cell, basin)
    session = await stream.append_session(head)
    same((await session.begin()).status, 200)
    await must_have(stream, expected)
    session.close()
    stream = new(cell, basin)
    same((await stream.get("seq_num=0", head)).status, 416)
    await must_have(stream, expected)
    other = {"s2-stream-config": '{"storage_class":"express"}'}
    same((await stream.post([(b"a",)], headers=other)).status, 200)
    await must_have(stream, expected)
    for text in ("{", "[]", '{"timestamping":5}'):
        error(await stream.post([(b"a",)], headers={"s2-stream-config": text}), 400, "bad_header")
