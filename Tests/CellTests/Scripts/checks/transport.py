# SPDX-License-Identifier: Apache-2.0
"""A: routing, and the envelope of every request."""

import gzip
import json

import zstandard

from . import check, same, true
from .cell import PROTO, S2S, error
from .wire import Ack, append_input


@check(1)
async def health_and_ping(cell):
    for path in ("/health", "/ping"):
        reply = await cell.call("GET", path, token=False)
        same((reply.status, reply.body), (200, b"OK"), path)
        true(reply.headers["content-type"].startswith("text/plain"), path, reply.headers)
    metrics = await cell.call("GET", "/metrics", token=False)
    same(metrics.status, 200)
    true(b"# HELP" in metrics.body, "no help in the metrics", metrics.body[:80])


@check(10)
async def deletion_answers_without_a_body(cell):
    basin = await cell.make_basin()
    stream = await cell.make_stream(basin=basin)
    for reply in (await stream.call("DELETE"), await cell.call("DELETE", "/v1/basins/" + basin)):
        same((reply.status, reply.body), (202, b""))
        same(reply.headers.get("content-length"), "0")
        same(reply.headers.get("content-type"), None)


@check(11)
async def unknown_paths_and_methods(cell):
    for path in ("/", "/v1", "/v1/", "/v2/basins", "/v1/basinss", "/v1/streams/a/b",
                 "/v1/streams/a/records/tail/x", "/v1/locations/other", "/health/x"):
        same((await cell.call("GET", path, basin=cell.basin)).status, 404, path)
    for method, path in (("PUT", "/v1/basins"), ("POST", "/v1/basins/abcdefgh"),
                         ("DELETE", "/v1/streams"), ("PATCH", "/v1/streams/a/records"),
                         ("POST", "/v1/streams/a/records/tail"), ("POST", "/v1/locations")):
        reply = await cell.call(method, path, basin=cell.basin)
        same(reply.status, 405, method + " " + path)


@check(12)
async def empty_names_are_no_aliases(cell):
    for method, path in (("DELETE", "/v1/access-tokens/"), ("GET", "/v1/access-tokens/"),
                         ("GET", "/v1/metrics/?set=storage&start=0&end=1"), ("GET", "/v1/streams/"),
                         ("DELETE", "/v1/streams/"), ("GET", "/v1/basins/"),
                         ("GET", "/v1/streams//records")):
        reply = await cell.call(method, path, basin=cell.basin)
        true(400 <= reply.status < 500, method + " " + path, reply)


@check(13)
async def a_slash_in_a_name(cell):
    basin = await cell.make_basin()
    reply = await cell.call("PUT", "/v1/streams/a%2Fb%20c", basin=basin)
    same((reply.status, reply.json()["name"]), (201, "a/b c"))
    page = await cell.call("GET", "/v1/streams?prefix=a/", basin=basin)
    same([s["name"] for s in page.json()["streams"]], ["a/b c"])
    same((await cell.call("GET", "/v1/streams/a/b%20c", basin=basin)).status, 404)
    # A plus sign in a path means itself.
    reply = await cell.call("PUT", "/v1/streams/x+y", basin=basin)
    same(reply.json()["name"], "x+y")
    same((await cell.call("GET", "/v1/streams/x%2By", basin=basin)).status, 200)


@check(14)
async def names_in_unicode(cell):
    basin = await cell.make_basin()
    for name in ("日本語", "🎉 party", "é\u0301", "a:@&=+$!'()*~,;b", "%2F", "..."):
        stream = await cell.make_stream(basin=basin, name=name)
        await stream.bodies(name.encode())
        same((await stream.read("seq_num=0")).bodies, [name.encode()], name)
        page = await cell.call("GET", "/v1/streams?limit=1000", basin=basin)
        true(name in [s["name"] for s in page.json()["streams"]], "not listed: " + name)


@check(15)
async def plus_and_nothing_in_a_query(cell):
    basin = await cell.make_basin()
    for name in ("a b", "a+b", "c"):
        await cell.make_stream(basin=basin, name=name)

    async def names(query):
        reply = await cell.call("GET", "/v1/streams?" + query, basin=basin)
        return [s["name"] for s in reply.json()["streams"]]
    same(await names("prefix=a+b"), ["a b"])
    same(await names("prefix=a%2Bb"), ["a+b"])
    same(await names("prefix="), ["a b", "a+b", "c"])
    same(await names("foo=bar&&x"), ["a b", "a+b", "c"])


@check(16)
async def limits_that_are_no_numbers(cell):
    for path in ("/v1/basins", "/v1/streams"):
        for limit in ("abc", "-1", "1.5", ""):
            reply = await cell.call("GET", "%s?limit=%s" % (path, limit), basin=cell.basin)
            error(reply, 400, "bad_query", path + " " + limit)
    stream = await cell.make_stream()
    for query in ("seq_num=-1", "seq_num=x", "count=1.0", "bytes=", "wait=4294967296",
                  "clamp=maybe", "until=0x10", "timestamp=18446744073709551616"):
        error(await stream.get(query), 400, "bad_query", query)


@check(18)
async def json_needs_its_content_type(cell):
    stream = await cell.make_stream()
    body = b'{"records":[{"body":"a"}]}'
    for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/jsonp"}):
        error(await stream.call("POST", "/records", body, headers=kind), 400, "bad_json", kind)
        reply = await cell.call("POST", "/v1/basins", b'{"basin":"whatever-1"}', headers=kind)
        error(reply, 400, "bad_json", kind)
    same(await stream.tail(), (0, 0))


@check(19)
async def broken_json(cell):
    kind = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"nul", b"{}", b'{"basin":5}', b'{"basin":null}', b'"x"',
                 b'{"basin":"good-name-1"} x', b'{"basin":"good-name-1","config":[]}',
                 b'{"basin":"good-name-1","config":{"create_stream_on_append":"yes"}}',
                 b'{"basin":"\xff\xfe-abcdefgh"}', b'{"basin":"good-name-1",}', b"\x00"):
        reply = await cell.call("POST", "/v1/basins", body, headers=kind)
        error(reply, 400, "bad_json", body)
    stream = await cell.make_stream()
    for body in (b"", b"{", b"{}", b'{"records":{}}', b'{"records":[1]}', b'{"records":null}',
                 b'{"records":[{"body":5}]}', b'{"records":[{"headers":[["a"]]}]}',
                 b'{"records":[{"headers":[["a","b","c"]]}]}', b'{"records":[{"headers":["a"]}]}',
                 b'{"records":[{"headers":[["a",1]]}]}', b'{"records":[{"timestamp":-1}]}',
                 b'{"records":[{"timestamp":1.5}]}', b'{"records":[{"timestamp":"1"}]}',
                 b'{"records":[{"body":"a"}],"match_seq_num":"0"}',
                 b'{"records":[{"body":"a"}],"fencing_token":1}'):
        reply = await stream.call("POST", "/records", body, headers=kind)
        error(reply, 400, "bad_json", body)
    same(await stream.tail(), (0, 0))


@check(20)
async def unknown_json_fields(cell):
    name = cell.fresh("conf")
    data = {"basin": name, "scope": "aws:us-east-1", "foo": [1, {"a": None}],
            "config": {"bar": 1, "default_stream_config": {"baz": {}}}}
    same((await cell.call("POST", "/v1/basins", data=data)).status, 201)
    stream = await cell.make_stream(basin=name)
    reply = await stream.post_json({"records": [{"body": "a", "x": 1}], "y": 2})
    same(reply.status, 200)


@check(21)
async def content_types_of_json(cell):
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/foo+json"):
        body = json.dumps({"basin": cell.fresh("conf")}).encode()
        reply = await cell.call("POST", "/v1/basins", body, headers={"content-type": kind})
        same(reply.status, 201, kind)


CODINGS = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


@check(22)
async def compressed_appends(cell):
    stream = await cell.make_stream()
    seq = 0
    for coding, compress in CODINGS.items():
        text = json.dumps({"records": [{"body": coding * 700}]}).encode()
        reply = await stream.call("POST", "/records", compress(text), headers={
            "content-type": "application/json", "content-encoding": coding})
        true(reply.status == 200, coding + " JSON", reply)
        reply = await stream.call(
            "POST", "/records", compress(append_input([(coding.encode() * 700,)])), headers={
                "content-type": PROTO, "accept": PROTO, "content-encoding": coding})
        true(reply.status == 200, coding + " protobuf", reply)
        seq += 2
        same(Ack(reply.body).end[0], seq)
    bodies = (await stream.read("seq_num=0")).bodies
    same(bodies, [b"gzip" * 700] * 2 + [b"zstd" * 700] * 2)


@check(23)
async def codings_that_are_broken_or_unknown(cell):
    stream = await cell.make_stream()
    body = append_input([(b"x" * 2000,)])
    for coding, compress in CODINGS.items():
        head = {"content-type": PROTO, "content-encoding": coding}
        for data in (body, compress(body)[:-5], b"", compress(b"\xff" * 2000)):
            reply = await stream.call("POST", "/records", data, headers=head)
            true(reply.status in (400, 422), "%s of %r" % (coding, data[:10]), reply)
        bomb = compress(bytes(64 << 20))
        reply = await stream.call("POST", "/records", bomb, headers=head)
        true(reply.status in (400, 413), "a bomb in " + coding, reply)
    reply = await stream.call("POST", "/records", body, headers={
        "content-type": PROTO, "content-encoding": "br"})
    same(reply.status, 415)
    same(await stream.tail(), (0, 0))


@check(24)
async def a_compressed_empty_body(cell):
    for coding, compress in CODINGS.items():
        for kind in ({}, {"content-type": "application/json"}):
            head = kind | {"content-encoding": coding}
            path = "/v1/basins/" + cell.fresh("conf")
            same((await cell.call("PUT", path, compress(b""), headers=head)).status, 201, coding)
            path = "/v1/streams/" + cell.fresh()
            reply = await cell.call("PUT", path, compress(b""), headers=head, basin=cell.basin)
            same(reply.status, 201, coding)


@check(25)
async def compressed_replies_can_be_read(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"x" * 5000)
    for offered in ("gzip", "zstd", "zstd, gzip", "gzip;q=0", "*", "br"):
        for accept in (PROTO, "application/json"):
            head = {"accept-encoding": offered, "accept": accept}
            reply = await stream.get("seq_num=0", head)
            same(reply.status, 200, offered)
            coding = reply.headers.get("content-encoding", "identity")
            true(coding == "identity" or coding in offered, "not offered", coding)
            body = {"identity": bytes, "gzip": gzip.decompress,
                    "zstd": lambda b: zstandard.ZstdDecompressor().decompressobj().decompress(b),
                    }[coding](reply.body)
            true(b"x" * 5000 in body, "the record is not in the body", body[:60])


@check(26)
async def sessions_are_not_buffered(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"x" * 5000)
    offer = {"accept-encoding": "gzip, zstd"}
    sessions = [await stream.events("seq_num=0", offer), await stream.append_session(offer),
                await stream.read_session("seq_num=0", offer)]
    for session, kind in zip(sessions, ("text/event-stream", S2S, S2S)):
        reply = session.reply or await session.begin()
        same(reply.status, 200)
        same(reply.headers.get("content-type"), kind)
        same(reply.headers.get("content-encoding"), None)
        same(reply.headers.get("cache-control"), "no-cache, no-transform")
        same(reply.headers.get("x-accel-buffering"), "no")
        session.close()


@check(27)
async def basin_header_is_needed(cell):
    for method, path in (("GET", "/v1/streams"), ("POST", "/v1/streams"), ("PUT", "/v1/streams/a"),
                         ("GET", "/v1/streams/a"), ("GET", "/v1/streams/a/records"),
                         ("POST", "/v1/streams/a/records"), ("GET", "/v1/streams/a/records/tail")):
        error(await cell.call(method, path), 400, "bad_header", path)


@check(28)
async def basin_header_must_be_a_name(cell):
    for name in ("BAD_NAME", "short", "-leading-dash", "x" * 49, "tr\u00e4iling"):
        for path in ("/v1/streams", "/v1/streams/a/records"):
            error(await cell.call("GET", path, basin=name), 400, "bad_header", name)


@check(29)
async def preflight(cell):
    reply = await cell.call("OPTIONS", "/v1/streams/a/records", token=False, headers={
        "origin": "https://example.com", "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, s2-basin, content-type"})
    true(reply.status in (200, 204), "preflight", reply)
    true(reply.headers.get("access-control-allow-origin") in ("*", "https://example.com"),
         "no origin allowed", reply.headers)
    true("POST" in reply.headers.get("access-control-allow-methods", ""), "POST", reply.headers)
    allowed = reply.headers.get("access-control-allow-headers", "").lower()
    true("s2-basin" in allowed and "authorization" in allowed, "headers", allowed)
    reply = await cell.call("GET", "/v1/basins?limit=1", headers={"origin": "https://example.com"})
    true("access-control-allow-origin" in reply.headers, "not on the request itself")


@check(31)
async def tokens_that_are_not_valid(cell):
    for value in (None, "", "Bearer", "Bearer ", "Bearer nonsense", "Basic " + cell.token,
                  cell.token, "Bearer " + cell.token + "x", "Bearer " + cell.token[:-1]):
        head = {} if value is None else {"authorization": value}
        for path in ("/v1/basins", "/v1/streams", "/v1/streams/a/records", "/v1/access-tokens"):
            reply = await cell.call("GET", path, basin=cell.basin, token=False, headers=head)
            error(reply, 401, "authn", value)
    reply = await cell.call("GET", "/v1/basins?limit=1", token=False,
                            headers={"authorization": "bearer " + cell.token})
    same(reply.status, 200, "the scheme in lower case")
