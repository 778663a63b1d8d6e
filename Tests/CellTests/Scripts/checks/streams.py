# SPDX-License-Identifier: Apache-2.0
"""C: creating, ensuring, deleting and listing streams."""

import asyncio
import uuid
from datetime import datetime

from . import check, same, true
from .cell import Stream, error

PATH = "/v1/streams"


async def create(cell, basin, name, config=None, token=None):
    data = {"stream": name}
    if config is not None:
        data["config"] = config
    head = {"s2-request-token": token} if token else None
    return await cell.call("POST", PATH, data=data, basin=basin, headers=head)


@check(80)
async def create_minimal(cell):
    name = cell.fresh()
    reply = await create(cell, cell.basin, name)
    same((reply.status, reply.headers.get("s2-provision-result")), (201, "created"))
    info = reply.json()
    same((info["name"], info["deleted_at"], info["cipher"]), (name, None, None))
    datetime.fromisoformat(info["created_at"].replace("Z", "+00:00"))
    page = (await cell.call("GET", PATH + "?prefix=" + name, basin=cell.basin)).json()
    same(page, {"streams": [info], "has_more": False}, "81")


@check(87)
async def names_that_are_refused(cell):
    for name in ("", "x" * 513, ".", "..", "nul\0", "é" * 257):
        error(await create(cell, cell.basin, name), 400, "bad_json", name)
    for path in ("%2E", "%2e%2e", "x" * 513, "%FF", "a%00b"):
        for method, suffix in (("GET", ""), ("PUT", ""), ("GET", "/records"),
                               ("GET", "/records/tail")):
            reply = await cell.call(method, "/v1/streams/" + path + suffix, basin=cell.basin)
            error(reply, 400, "bad_path", path)


@check(88)
async def a_name_of_512_bytes(cell):
    basin = await cell.make_basin()
    for name in ("x" * 512, "é" * 256):
        stream = await cell.make_stream(basin=basin, name=name)
        await stream.bodies(b"a")
        same((await stream.tail())[0], 1)


@check(89)
async def a_name_that_is_taken(cell):
    name = cell.fresh()
    same((await create(cell, cell.basin, name)).status, 201)
    error(await create(cell, cell.basin, name), 409, "resource_already_exists")
    other = await cell.make_basin()
    same((await create(cell, other, name)).status, 201, "another basin")


@check(90)
async def creation_is_replayed(cell):
    basin, name, token = await cell.make_basin(), cell.fresh(), uuid.uuid4().hex
    config = {"storage_class": "standard"}
    first = await create(cell, basin, name, config, token)
    same(first.status, 201)
    await cell.call("PATCH", "/v1/basins/" + basin, data={
        "default_stream_config": {"retention_policy": {"infinite": {}}}})
    again = await create(cell, basin, name, config, token)
    true(again.status in (200, 201), "replay", again)
    same((again.headers["s2-provision-result"], again.json()), ("noop", first.json()))
    taken = (409, "resource_already_exists")
    error(await create(cell, basin, name, config, uuid.uuid4().hex), *taken)
    error(await create(cell, basin, name, {}, token), *taken)
    error(await create(cell, basin, name, config), *taken)


@check(92)
async def unknown_basins_and_streams(cell):
    none = cell.fresh("none")
    error(await create(cell, none, "a"), 404, "basin_not_found")
    error(await cell.call("PUT", PATH + "/a", basin=none), 404, "basin_not_found")
    error(await cell.call("GET", PATH, basin=none), 404, "basin_not_found")
    for method, data in (("GET", None), ("DELETE", None), ("PATCH", {})):
        reply = await cell.call(method, PATH + "/a", data=data, basin=none)
        true(reply.status == 404 and reply.code in ("basin_not_found", "stream_not_found"),
             method, reply)
        reply = await cell.call(method, PATH + "/" + none, data=data, basin=cell.basin)
        error(reply, 404, "stream_not_found", "93 95 107: " + method)


@check(95)
async def deletion(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"a", b"b")
    same((await stream.call("DELETE")).status, 202)
    pending = (409, "stream_deletion_pending")
    reply = await stream.call("GET")
    true((reply.status, reply.code) in (pending, (404, "stream_not_found")), "94", reply)
    true((await stream.call("DELETE")).status in (202, 404), "96")
    page = (await cell.call("GET", PATH + "?prefix=" + stream.name, basin=stream.basin)).json()
    true(not page["streams"] or page["streams"][0]["deleted_at"], "97: alive in the list", page)
    reply = await create(cell, stream.basin, stream.name)
    if reply.status == 201:
        same(await stream.tail(), (0, 0), "100")
        return
    error(reply, *pending, "98: create")
    error(await stream.call("PUT"), *pending, "98: ensure")
    error(await stream.call("PATCH", data={"storage_class": "standard"}), *pending, "98")
    error(await stream.post([(b"x",)]), *pending, "99: append")
    error(await stream.get("seq_num=0"), *pending, "99: read")
    error(await stream.call("GET", "/records/tail"), *pending, "99: tail")
    session = await stream.append_session()
    error(await session.begin(), *pending, "99: append session")
    for session in (await stream.read_session("seq_num=0"), await stream.events("seq_num=0")):
        error(session.reply, *pending, "99: read session")


@check(110)
async def ensure_creates_updates_and_does_nothing(cell):
    stream = Stream(cell, cell.basin, cell.fresh())

    async def ensured(wish):
        reply = await stream.call("PUT", data=wish)
        return reply.status, reply.headers.get("s2-provision-result"), reply.json()
    wish = {"storage_class": "standard", "retention_policy": {"age": 60}}
    status, result, info = await ensured(wish)
    same((status, result, info["name"]), (201, "created", stream.name))
    same(await ensured(wish), (200, "noop", info))
    same(await ensured({"storage_class": "standard"}), (200, "updated", info))
    found = (await stream.call("GET")).json()
    same(found["retention_policy"], {"age": 604_800}, "reset")
    for wish in ({"storage_class": "standard", "timestamping": {"mode": "client-prefer"}},
                 {"storage_class": "standard", "delete_on_empty": {}}):
        same(await ensured(wish), (200, "noop", info), "111: the same in effect")
    kind = {"content-type": "application/json"}
    for body, head, result in ((b"", {}, "updated"), (b"", kind, "noop"), (b"null", kind, "noop"),
                               (b"{}", kind, "noop")):
        reply = await stream.call("PUT", "", body, headers=head)
        same((reply.status, reply.headers["s2-provision-result"]), (200, result), body)


@check(113)
async def listing(cell):
    basin = await cell.make_basin()
    names = ["a", "a/1", "a/2", "a0", "b", "é", "日", "🎉"]
    same(sorted(names, key=str.encode), names, "of the check itself")
    await asyncio.gather(*(cell.make_stream(basin=basin, name=n) for n in reversed(names)))

    async def page(**query):
        from urllib.parse import urlencode
        reply = await cell.call("GET", PATH + "?" + urlencode(query), basin=basin)
        true(reply.status == 200, str(query), reply)
        data = reply.json()
        return [s["name"] for s in data["streams"]], data["has_more"]
    same(await page(), (names, False), "113 114")
    same(await page(prefix="a/"), (["a/1", "a/2"], False))
    same(await page(prefix="a", start_after="a/1"), (["a/2", "a0"], False))
    same(await page(prefix="b", start_after="a"), (["b"], False))
    same(await page(prefix="a", start_after="b"), ([], False))
    same(await page(start_after="🎉"), ([], False))
    same(await page(start_after="b"), (["é", "日", "🎉"], False))
    same(await page(prefix="none"), ([], False))
    same(await page(limit=2), (names[:2], True))
    same(await page(limit=8), (names, False))
    for limit in (0, 1001, 5000):
        same(await page(limit=limit), (names, False))
    seen, after = [], ""
    for _ in range(10):
        found, more = await page(limit=3, start_after=after)
        seen += found
        if not more:
            break
        after = found[-1]
    same(seen, names, "pages")
    for query in ("prefix=a%00", "start_after=" + "x" * 513, "prefix=%FF"):
        error(await cell.call("GET", PATH + "?" + query, basin=basin), 400, "bad_query", query)


@check(115)
async def five_thousand_streams(cell):
    basin = await cell.make_basin()
    gate = asyncio.Semaphore(50)

    async def make(number):
        async with gate:
            await cell.make_stream(basin=basin, name="test/%04d" % number)
    await asyncio.gather(*(make(n) for n in range(5000)))
    seen, after = [], ""
    while True:
        reply = (await cell.call("GET", PATH + "?prefix=test/&start_after=" + after,
                                 basin=basin)).json()
        seen += [s["name"] for s in reply["streams"]]
        if not reply["has_more"]:
            break
        after = seen[-1]
    same(seen, ["test/%04d" % n for n in range(5000)])
