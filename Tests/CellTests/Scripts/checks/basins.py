# SPDX-License-Identifier: Apache-2.0
"""B: creating, ensuring, deleting and listing basins."""

import uuid
from datetime import datetime

from . import check, same, true
from .cell import error

PATH = "/v1/basins"


def token():
    return {"s2-request-token": uuid.uuid4().hex}


async def create(cell, name, config=None, headers=None, **more):
    data = {"basin": name} | more
    if config is not None:
        data["config"] = config
    return await cell.call("POST", PATH, data=data, headers=headers)


async def ensure(cell, name, body=None, headers=None):
    if body is None:
        return await cell.call("PUT", PATH + "/" + name, headers=headers)
    return await cell.call("PUT", PATH + "/" + name, data=body, headers=headers)


@check(32)
async def create_with_only_a_name(cell):
    name = cell.fresh("conf")
    reply = await create(cell, name)
    same((reply.status, reply.headers.get("s2-provision-result")), (201, "created"))
    info = reply.json()
    same((info["name"], info["deleted_at"]), (name, None))
    true("location" in info, "no location", info)
    created = datetime.fromisoformat(info["created_at"].replace("Z", "+00:00"))
    true(created.utcoffset() is not None, "no zone", info)
    config = (await cell.call("GET", PATH + "/" + name)).json()
    same(config.get("create_stream_on_append"), False, "34")
    same(config.get("create_stream_on_read"), False, "34")
    same(config.get("default_stream_config"), None, "34")
    page = (await cell.call("GET", PATH + "?prefix=" + name)).json()
    same(page, {"basins": [info], "has_more": False})


@check(41)
async def names_that_are_refused(cell):
    for name in ("short", "x" * 49, "Uppercase-1", "under_score", "-leading", "trailing-", "",
                 "sp ace-12", "dots.dots", "ünïcödé-1", "new\nline-1", "nul\0name"):
        error(await create(cell, name), 400, "bad_json", name)
    for name in ("short", "x" * 49, "Uppercase-1", "-leading", "trailing-", "a%20bcdefgh",
                 "%FFbcdefgh", "abcdefg%00"):
        for method in ("GET", "DELETE", "PUT"):
            error(await cell.call(method, PATH + "/" + name), 400, "bad_path", name)


@check(42)
async def names_of_8_and_48_bytes(cell):
    for size in (8, 48):
        name = (uuid.uuid4().hex + uuid.uuid4().hex)[:size]
        same((await create(cell, name)).status, 201, name)


@check(43)
async def a_name_that_is_taken(cell):
    name = cell.fresh("conf")
    same((await create(cell, name, headers=token())).status, 201)
    error(await create(cell, name, headers=token()), 409, "resource_already_exists")
    error(await create(cell, name), 409, "resource_already_exists")


@check(44)
async def creation_is_replayed(cell):
    name, head = cell.fresh("conf"), token()
    config = {"create_stream_on_append": True, "default_stream_config": {"storage_class": None}}
    first = await create(cell, name, config, head)
    second = await create(cell, name, config, head)
    true(second.status in (200, 201), "replay", second)
    same(second.headers.get("s2-provision-result"), "noop")
    same(second.json(), first.json())
    error(await create(cell, name, {}, head), 409, "resource_already_exists", "45")
    error(await create(cell, name, None, head), 409, "resource_already_exists", "45")
    error(await create(cell, name, config), 409, "resource_already_exists", "45")
    other = cell.fresh("conf")
    same((await create(cell, other, config)).status, 201)
    error(await create(cell, other, config), 409, "resource_already_exists", "45: no tokens")


@check(46)
async def request_tokens_that_are_too_long(cell):
    head = {"s2-request-token": "t" * 37}
    error(await create(cell, cell.fresh("conf"), headers=head), 400, "bad_header")
    head = {"s2-request-token": "t" * 36}
    same((await create(cell, cell.fresh("conf"), headers=head)).status, 201)
    head = {"s2-request-token": "t" * 37}
    reply = await cell.call("POST", "/v1/streams", data={"stream": "a"}, basin=cell.basin,
                            headers=head)
    error(reply, 400, "bad_header")


@check(48)
async def deleting_basins_refuse_all_changes(cell):
    name = await cell.make_basin()
    stream = await cell.make_stream(basin=name)
    same((await cell.call("DELETE", PATH + "/" + name)).status, 202, "50")
    reply = await create(cell, name)
    true(reply.status == 201 or (reply.status, reply.code) == (409, "basin_deletion_pending"),
         "create", reply)
    if reply.status == 201:
        return
    error(await ensure(cell, name), 409, "basin_deletion_pending", "70")
    path = PATH + "/" + name
    error(await cell.call("PATCH", path, data={"create_stream_on_read": True}), 409,
          "basin_deletion_pending", "63")
    reply = await cell.call("POST", "/v1/streams", data={"stream": "new"}, basin=name)
    error(reply, 409, "basin_deletion_pending", "92")
    reply = await cell.call("PUT", "/v1/streams/new", basin=name)
    error(reply, 409, "basin_deletion_pending", "92")
    reply = await stream.call("PATCH", data={"storage_class": "standard"})
    true(reply.status in (404, 409), "reconfigure a stream", reply)
    true((await cell.call("DELETE", path)).status in (202, 404), "52: again")
    page = (await cell.call("GET", PATH + "?prefix=" + name)).json()["basins"]
    true(not page or (page[0]["deleted_at"] and page[0].get("state") in (None, "deleting")),
         "53: listed as alive", page)
    true((await cell.call("GET", path)).status in (200, 404), "get config")


@check(49)
async def unknown_basins(cell):
    path = PATH + "/" + cell.fresh("none")
    error(await cell.call("GET", path), 404, "basin_not_found", "49")
    error(await cell.call("DELETE", path), 404, "basin_not_found", "51")
    error(await cell.call("PATCH", path, data={}), 404, "basin_not_found", "62")
    error(await cell.call("PATCH", path, data={"create_stream_on_read": True}), 404,
          "basin_not_found", "62")


@check(54)
async def a_basin_with_streams_is_deleted(cell):
    name = await cell.make_basin()
    stream = await cell.make_stream(basin=name)
    await stream.bodies(b"a")
    same((await cell.call("DELETE", PATH + "/" + name)).status, 202)


@check(64)
async def ensure_creates_updates_and_does_nothing(cell):
    name = cell.fresh("conf")
    wish = {"config": {"create_stream_on_append": True,
                       "default_stream_config": {"storage_class": "standard"}}}

    async def ensured(body):
        reply = await ensure(cell, name, body)
        return reply.status, reply.headers.get("s2-provision-result"), reply.json()
    status, result, info = await ensured(wish)
    same((status, result, info["name"]), (201, "created", name))
    same(await ensured(wish), (200, "noop", info), "66")
    same(await ensured({"config": {"create_stream_on_read": True}}), (200, "updated", info), "65")
    config = (await cell.call("GET", PATH + "/" + name)).json()
    same((config["create_stream_on_append"], config["create_stream_on_read"],
          config["default_stream_config"]), (False, True, None), "65: replaced as a whole")


@check(67)
async def ensure_without_a_body(cell):
    kind = {"content-type": "application/json"}
    for body, head in ((b"", {}), (b"", kind), (b"null", kind), (b"{}", kind),
                       (b'{"config":null,"location":null}', kind)):
        name = await cell.make_basin({"create_stream_on_append": True})
        reply = await cell.call("PUT", PATH + "/" + name, body, headers=head)
        same((reply.status, reply.headers.get("s2-provision-result")), (200, "updated"), body)
        config = (await cell.call("GET", PATH + "/" + name)).json()
        same(config["create_stream_on_append"], False, body)
    error(await cell.call("PUT", PATH + "/" + name, b"{}"), 400, "bad_json", "no content type")


@check(68)
async def explicit_zeros_are_the_same_twice(cell):
    name = cell.fresh("conf")
    wish = {"config": {"default_stream_config": {"delete_on_empty": {"min_age_secs": 0},
                                                 "timestamping": {"uncapped": False}}}}
    same((await ensure(cell, name, wish)).status, 201)
    same((await ensure(cell, name, wish)).headers["s2-provision-result"], "noop")


@check(69)
async def a_replay_survives_ensure(cell):
    name, head = cell.fresh("conf"), token()
    first = await create(cell, name, {"create_stream_on_read": True}, head)
    same((await ensure(cell, name, {"config": {}})).headers["s2-provision-result"], "updated")
    again = await create(cell, name, {"create_stream_on_read": True}, head)
    true(again.status in (200, 201), "replay", again)
    same((again.headers["s2-provision-result"], again.json()), ("noop", first.json()))


@check(71)
async def listing(cell):
    stem = cell.fresh("list")
    names = ["%s-%s" % (stem, c) for c in ("a", "b", "ba", "c", "z9")]
    for name in reversed(names):
        same((await create(cell, name)).status, 201)

    async def page(query):
        reply = await cell.call("GET", PATH + "?" + query)
        true(reply.status == 200, query, reply)
        data = reply.json()
        return [b["name"] for b in data["basins"]], data["has_more"]
    same(await page("prefix=nobody-has-this"), ([], False), "71")
    same(await page("prefix=" + stem), (names, False), "72")
    same(await page("prefix=%s-b" % stem), (names[1:3], False), "72")
    same(await page("prefix=%s-b&start_after=%s" % (stem, names[1])), (names[2:3], False), "73")
    same(await page("prefix=%s&start_after=%s" % (stem, names[1])), (names[2:], False), "73")
    same(await page("prefix=%s&start_after=%s-aa" % (stem, stem)), (names[1:], False), "73")
    same(await page("prefix=%s&limit=1" % stem), (names[:1], True), "74")
    for limit in (0, 1500):
        same(await page("prefix=%s&limit=%d" % (stem, limit)), (names, False), "74")
    seen, after = [], ""
    while True:
        found, more = await page("prefix=%s&limit=2&start_after=%s" % (stem, after))
        seen += found
        if not more:
            break
        after = found[-1]
    same(seen, names, "75")
    same(await page("prefix=%s&limit=5" % stem), (names, False), "75: exactly full")
    same(await page("prefix=%s&start_after=a" % stem), (names, False), "77")
    same(await page("prefix=%s&start_after=zzzz" % stem), ([], False), "77")
    true(len((await page(""))[0]) >= len(names), "71: all")
    for query in ("prefix=-a", "prefix=A", "start_after=_", "prefix=" + "x" * 49, "prefix=a%00"):
        error(await cell.call("GET", PATH + "?" + query), 400, "bad_query", query)
    same((await page("prefix=%s-&start_after=%s-" % (stem, stem)))[0], names, "trailing dash")


@check("078")
async def locations_are_kept(cell):
    name = cell.fresh("conf")
    error(await create(cell, name, location="no spaces allowed"), 400, "bad_json")
    error(await create(cell, name, location=""), 400, "bad_json")
    error(await create(cell, name, location="x" * 65), 400, "bad_json")
    reply = await create(cell, name, location=None)
    same(reply.status, 201)
