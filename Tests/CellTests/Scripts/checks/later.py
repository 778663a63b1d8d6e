# SPDX-License-Identifier: Apache-2.0
"""I and J: encryption, access tokens, metrics and locations, which are not built yet."""

from . import check, same
from .cell import error

LATER = (501, "not_implemented")


@check(250)
async def ciphers(cell):
    for cipher in ("aegis-256", "aes-256-gcm"):
        config = {"stream_cipher": cipher}
        data = {"basin": cell.fresh("conf"), "config": config}
        error(await cell.call("POST", "/v1/basins", data=data), *LATER)
        path = "/v1/basins/" + cell.basin
        error(await cell.call("PATCH", path, data=config), *LATER)
        error(await cell.call("PUT", path, data={"config": config}), *LATER)
    reply = await cell.call("PATCH", "/v1/basins/" + cell.basin, data={"stream_cipher": None})
    same((reply.status, reply.json()["stream_cipher"]), (200, None))
    error(await cell.call("PATCH", path, data={"stream_cipher": "rot13"}), 400, "bad_json")


@check(256)
async def keys_of_plain_streams_are_ignored(cell):
    stream = await cell.make_stream()
    for key in ("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=", "x", " padded "):
        head = {"s2-encryption-key": key}
        same((await stream.post([(b"a",)], headers=head)).status, 200)
        same((await stream.get("seq_num=0", head)).status, 200)
        session = await stream.append_session(head)
        same((await session.begin()).status, 200)
        session.close()
    for key in ("", "   ", "x" * 45):
        head = {"s2-encryption-key": key}
        error(await stream.post([(b"a",)], headers=head), 400, "bad_header", "257: %r" % key)
        error(await stream.get("seq_num=0", head), 400, "bad_header", "257: %r" % key)
        for session in (await stream.append_session(head),
                        await stream.read_session("seq_num=0", head)):
            error(session.reply or await session.begin(), 400, "bad_header", "257: %r" % key)


@check(275)
async def access_tokens(cell):
    path = "/v1/access-tokens"
    scope = {"basins": {"prefix": ""}, "ops": ["append"]}
    error(await cell.call("GET", path), *LATER)
    error(await cell.call("GET", path + "?prefix=a&limit=5"), *LATER)
    error(await cell.call("POST", path, data={"id": "t", "scope": scope}), *LATER)
    error(await cell.call("DELETE", path + "/t"), *LATER)
    error(await cell.call("GET", path + "?limit=x"), 400, "bad_query")
    error(await cell.call("GET", path + "?prefix=a%00"), 400, "bad_query")
    for data in ({"scope": scope}, {"id": 5, "scope": scope}, {"id": "", "scope": scope},
                 {"id": "x" * 97, "scope": scope}, {"id": "..", "scope": scope}, {"id": "t"}):
        error(await cell.call("POST", path, data=data), 400, "bad_json", data)
    error(await cell.call("DELETE", path + "/" + "x" * 97), 400, "bad_path")


@check("275b")
async def metrics(cell):
    for path, name in (("", "active-basins"), ("", "account-ops"),
                       ("/some-basin", "append-ops"), ("/some-basin/a%2Fb", "storage")):
        target = "/v1/metrics%s?set=%s" % (path, name)
        error(await cell.call("GET", target + "&start=0&end=3600&interval=hour"), *LATER)
        error(await cell.call("GET", target + "&start=x&end=3600"), 400, "bad_query")
        error(await cell.call("GET", "/v1/metrics%s?start=0&end=1" % path), 400, "bad_query")
        error(await cell.call("GET", "/v1/metrics%s?set=none&start=0&end=1" % path), 400,
              "bad_query")
        error(await cell.call("GET", target + "&start=10&end=5"), 422, "invalid")
    error(await cell.call("GET", "/v1/metrics/BAD?set=storage&start=0&end=1"), 400, "bad_path")


@check("275c")
async def locations(cell):
    path = "/v1/locations"
    error(await cell.call("GET", path), *LATER)
    error(await cell.call("GET", path + "/default"), *LATER)
    error(await cell.call("PUT", path + "/default", data="aws:us-east-1"), *LATER)
    for data in (5, {"name": "x"}, "", "no spaces"):
        error(await cell.call("PUT", path + "/default", data=data), 400, "bad_json", data)
