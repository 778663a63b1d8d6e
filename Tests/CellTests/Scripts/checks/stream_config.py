# SPDX-License-Identifier: Apache-2.0
"""C: the configuration of streams."""

import asyncio

from . import check, same, true
from .cell import error
from .wire import record

SYSTEM = {"storage_class": "express", "retention_policy": {"age": 604_800},
          "timestamping": {"mode": "client-prefer", "uncapped": False},
          "delete_on_empty": {"min_age_secs": 0}}
OTHER = {"storage_class": "standard", "retention_policy": {"infinite": {}},
         "timestamping": {"mode": "arrival", "uncapped": True},
         "delete_on_empty": {"min_age_secs": 3600}}


async def config(stream):
    reply = await stream.call("GET")
    true(reply.status == 200, "get config", reply)
    return reply.json()


async def patch(stream, data):
    reply = await stream.call("PATCH", data=data)
    true(reply.status == 200, "patch %r" % data, reply)
    same(reply.json(), await config(stream), "PATCH and GET")
    return reply.json()


@check(82)
async def system_defaults(cell):
    same(await config(await cell.make_stream()), SYSTEM)
    same(await config(await cell.make_stream({})), SYSTEM)


@check(83)
async def configuration_is_echoed(cell):
    same(await config(await cell.make_stream(OTHER)), OTHER)
    for change in ({"storage_class": "standard"}, {"storage_class": "express"},
                   {"retention_policy": {"age": 1}}, {"retention_policy": {"infinite": {}}},
                   {"delete_on_empty": {"min_age_secs": 5}}):
        same(await config(await cell.make_stream(change)), SYSTEM | change, "84")
    for mode in ("client-prefer", "client-require", "arrival"):
        for uncapped in (False, True):
            wish = {"timestamping": {"mode": mode, "uncapped": uncapped}}
            same(await config(await cell.make_stream(wish)), SYSTEM | wish, "84")


@check(85)
async def defaults_are_inherited_leaf_by_leaf(cell):
    basin = await cell.make_basin({"default_stream_config": OTHER})
    same(await config(await cell.make_stream(basin=basin)), OTHER)
    stream = await cell.make_stream(
        {"storage_class": "express", "timestamping": {"mode": "client-require"}}, basin)
    expected = OTHER | {"storage_class": "express",
                        "timestamping": {"mode": "client-require", "uncapped": True}}
    same(await config(stream), expected)
    stream2 = await cell.make_stream({"delete_on_empty": {"min_age_secs": 0}}, basin)
    same((await config(stream2))["delete_on_empty"], {"min_age_secs": 0}, "112")
    stream3 = await cell.make_stream({"delete_on_empty": {}}, basin)
    same((await config(stream3))["delete_on_empty"], {"min_age_secs": 0}, "112: {}")
    await cell.call("PATCH", "/v1/basins/" + basin, data={"default_stream_config": None})
    same(await config(stream), expected, "86")
    same(await config(await cell.make_stream(basin=basin)), SYSTEM, "86: new ones")


@check(102)
async def each_leaf_is_reconfigured_alone(cell):
    stream = await cell.make_stream()
    expected = dict(SYSTEM)
    for change in ({"storage_class": "standard"}, {"retention_policy": {"infinite": {}}},
                   {"retention_policy": {"age": 100}}, {"timestamping": {"mode": "arrival"}},
                   {"timestamping": {"uncapped": True}}, {"delete_on_empty": {"min_age_secs": 9}},
                   {"delete_on_empty": {"min_age_secs": 0}}):
        for key, value in change.items():
            expected[key] = (expected[key] | value) if key == "timestamping" else value
        same(await patch(stream, change), expected, change)
    for change in ({}, {"timestamping": {}}, {"foo": 1}):
        same(await patch(stream, change), expected, "103 104")


@check(105)
async def null_falls_back_to_the_basin_then_the_system(cell):
    basin = await cell.make_basin({"default_stream_config": {"storage_class": "standard",
                                                             "timestamping": {"uncapped": True}}})
    for key in SYSTEM:
        stream = await cell.make_stream(OTHER | {"storage_class": "express"}, basin)
        inherited = SYSTEM | {"storage_class": "standard",
                              "timestamping": {"mode": "client-prefer", "uncapped": True}}
        found = await patch(stream, {key: None})
        same(found[key], inherited[key], key)
    stream = await cell.make_stream(OTHER, basin)
    found = await patch(stream, {"timestamping": {"mode": None}})
    same(found["timestamping"], {"mode": "client-prefer", "uncapped": True})


@check(107)
async def reconfigurations_that_make_no_sense(cell):
    stream = await cell.make_stream()
    error(await stream.call("PATCH", data={"retention_policy": {"age": 0}}), 422, "invalid")
    error(await stream.call("PUT", data={"retention_policy": {"age": 0}}), 422, "invalid")
    for body in ([], "x", 5, None):
        reply = await stream.call("PATCH", data=body)
        error(reply, 400, "bad_json", body)
    error(await stream.call("PATCH", "", b""), 400, "bad_json", "no body")
    same(await config(stream), SYSTEM)


@check(108)
async def a_live_stream_is_reconfigured_at_once(cell):
    for method in ("PATCH", "PUT"):
        stream = await cell.make_stream()
        session = await stream.append_session()
        await session.send([(b"a",)])
        await session.ack()
        reply = await stream.call(method, data={"timestamping": {"mode": "client-require"}})
        same(reply.status, 200, method)
        await session.send([record(b"b", timestamp=1)])
        await session.ack()
        await session.send([(b"c",)])
        status, body = await session.failure()
        same((status, body["code"]), (422, "invalid"), method)
        same((await stream.tail())[0], 2, method)


@check(109)
async def reconfiguring_loses_no_append(cell):
    stream = await cell.make_stream()
    done = asyncio.Event()

    async def reconfigure():
        n = 0
        while not done.is_set():
            n += 1
            await patch(stream, {"retention_policy": {"age": 1000 + n}})
    task = asyncio.create_task(reconfigure())
    session = await stream.append_session()
    for n in range(60):
        await session.send([(b"%d" % n,)])
        same((await session.ack()).start[0], n)
    done.set()
    await task
    same((await stream.read("seq_num=0")).bodies, [b"%d" % n for n in range(60)])
    session.close()
