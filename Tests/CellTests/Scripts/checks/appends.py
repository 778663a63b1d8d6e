# SPDX-License-Identifier: Apache-2.0
"""D: check tail, and appends in one request."""

import asyncio
import base64
import time

from . import check, same, true
from .cell import PROTO, error
from .wire import Ack, append_input, fence, field, metered, record, trim

MIB = 1 << 20


def mismatch(reply, **body):
    same((reply.status, reply.json()), (412, body))
    same(reply.headers["content-type"], "application/json")


@check(118)
async def tails(cell):
    stream = await cell.make_stream()
    same(await stream.tail(), (0, 0))
    ack = await stream.bodies(b"a", b"b")
    same(await stream.tail(), ack.end, "119")
    ack = await stream.bodies(b"c")
    same(await stream.tail(), (3, ack.end[1]), "119")
    reply = await cell.call("GET", "/v1/streams/none/records/tail", basin=cell.basin)
    error(reply, 404, "stream_not_found", "120")


@check(121)
async def acks(cell):
    stream = await cell.make_stream()
    before = int(time.time() * 1000)
    ack = await stream.bodies(b"a")
    after = int(time.time() * 1000)
    same((ack.start[0], ack.end[0], ack.tail[0]), (0, 1, 1))
    same((ack.start[1], ack.tail), (ack.end[1], ack.end))
    true(before - 2 <= ack.start[1] <= after + 2, "not the time of the append", ack)
    reply = await stream.post_json({"records": [{"body": "b"}, {"body": "c"}]})
    same(reply.status, 200)
    found = reply.json()
    same({k: v["seq_num"] for k, v in found.items()}, {"start": 1, "end": 3, "tail": 3})
    last = found["end"]["timestamp"]
    for size in (1, 5, 10):
        ack = await stream.bodies(*[b"x"] * size)
        true(ack.start[1] >= last and ack.end[1] >= ack.start[1], "122: time goes back", ack)
        last = ack.end[1]
    same(ack.end[0], 19, "122")


@check(123)
async def bodies_and_headers(cell):
    stream = await cell.make_stream()
    records = [(b"",), (b"x", [(b"k", b"v"), (b"k", b""), (b"a", b"\xff\0")]),
               (b"", [(b"only", b"header")]), (bytes(range(256)),)]
    await stream.append(records)
    batch = await stream.read("seq_num=0")
    same([(r[3], r[2]) for r in batch.records],
         [(r[0], r[1] if len(r) > 1 else []) for r in records], "124")
    data = (await stream.get("seq_num=0&count=1")).json()
    same(set(data["records"][0]), {"seq_num", "timestamp"}, "nothing for what is empty")


@check(125)
async def json_and_protobuf_are_the_same(cell):
    stream = await cell.make_stream()
    text = 'quote " backslash \\ newline \n tab \t unicode é 日 🎉 control \u0001 null \0 end'
    head = [["k\n", "v🎉"], ["k2", ""]]
    reply = await stream.post_json({"records": [{"body": text, "headers": head}]})
    same(reply.status, 200)
    found = (await stream.read("seq_num=0")).records[0]
    same((found[3], found[2]), (text.encode(), [(n.encode(), v.encode()) for n, v in head]))
    await stream.append([(text.encode(), found[2])])
    data = (await stream.get("seq_num=0")).json()["records"]
    for one in data:
        same((one["body"], one["headers"]), (text, head))
    reply = await stream.post_json({"records": [{"body": "via"}]}, {"accept": PROTO})
    same((reply.headers["content-type"], Ack(reply.body).start[0]), (PROTO, 2))
    reply = await stream.call("POST", "/records", append_input([(b"x",)]),
                              headers={"content-type": PROTO})
    same((reply.headers["content-type"], reply.json()["start"]["seq_num"]),
         ("application/json", 3))
    reply = await stream.post_json({"records": [{"headers": None, "body": None,
                                                 "timestamp": None}],
                                    "match_seq_num": None, "fencing_token": None})
    true(reply.status in (200, 400), "nulls", reply)


@check(127)
async def base64_format(cell):
    stream = await cell.make_stream()
    raw, name = b"\xff\xfe\0binary\x80", b"\x81"
    text = base64.b64encode
    for alias in ("base64", "json-binsafe", " base64 "):
        reply = await stream.post_json({"records": [{
            "body": text(raw).decode(), "headers": [[text(name).decode(), ""]]}]},
            {"s2-format": alias})
        same(reply.status, 200, alias)
        data = (await stream.get("tail_offset=1", {"s2-format": alias})).json()["records"][0]
        same((data["body"], data["headers"]), (text(raw).decode(), [[text(name).decode(), ""]]))
    same({(r[3], r[2][0]) for r in (await stream.read("seq_num=0")).records}, {(raw, (name, b""))})
    for alias in ("raw", "json", ""):
        head = {"s2-format": alias} if alias else {}
        data = (await stream.get("seq_num=0&count=1", head)).json()["records"][0]
        same(data["body"], "\ufffd\ufffd\0binary\ufffd", "raw is lossy")
    for alias in ("base32", "RAW ME"):
        error(await stream.get("seq_num=0", {"s2-format": alias}), 400, "bad_header", "128")
        error(await stream.post_json({"records": [{}]}, {"s2-format": alias}), 400, "bad_header")
    for body in ("a", "ab=", "a b=", "!!!!", "YQ", "YR=="):
        reply = await stream.post_json({"records": [{"body": body}]}, {"s2-format": "base64"})
        true((reply.status, reply.code) == (422, "invalid") or (body == "YR==" and
             reply.status == 200), "129: %r" % body, reply)


@check(130)
async def batch_limits(cell):
    stream = await cell.make_stream()
    same((await stream.append([(b"x",)] * 1000)).end[0], 1000)
    error(await stream.post([(b"x",)] * 1001), 422, "invalid", "131")
    error(await stream.post([]), 422, "invalid", "131")
    error(await stream.post_json({"records": []}), 422, "invalid", "131")
    error(await stream.post_json({"records": [{}] * 1001}), 422, "invalid", "131")
    same((await stream.bodies(b"x" * (MIB - 8))).end[0], 1001, "132: a record of 1 MiB")
    error(await stream.post([(b"x" * (MIB - 7),)]), 422, "invalid", "132")
    half = b"y" * (MIB // 2 - 8)
    await stream.bodies(half, half)
    error(await stream.post([(half,), (half + b"z",)]), 422, "invalid", "132")
    head = [(b"k" * 10, b"v" * 10)]
    body = b"x" * (MIB - metered(b"", head))
    await stream.append([(body, head)])
    error(await stream.post([(body + b"x", head)]), 422, "invalid", "132: headers count")
    same((await stream.tail())[0], 1004)


@check(133)
async def matching_the_sequence_number(cell):
    stream = await cell.make_stream()
    mismatch(await stream.post([(b"a",)], match=1), seq_num_mismatch=0)
    await stream.append([(b"a",), (b"b",)], match=0)
    await stream.append([(b"c",)], match=2)
    for wrong in (0, 2, 4, 2**64 - 1):
        mismatch(await stream.post([(b"x",)], match=wrong), seq_num_mismatch=3)
    reply = await stream.post_json({"records": [{"body": "x"}], "match_seq_num": 0})
    mismatch(reply, seq_num_mismatch=3)
    reply = await stream.post_json({"records": [{"body": "x"}], "match_seq_num": 3})
    same(reply.status, 200)
    same((await stream.tail())[0], 4)


@check(135)
async def fencing(cell):
    stream = await cell.make_stream()
    await stream.append([fence("t")])
    await stream.append([(b"a",)], token="t")
    mismatch(await stream.post([(b"x",)], token="u"), fencing_token_mismatch="t")
    mismatch(await stream.post([(b"x",)], token=""), fencing_token_mismatch="t")
    await stream.bodies(b"b")
    mismatch(await stream.post([(b"x",)], match=0, token="u"), fencing_token_mismatch="t")
    mismatch(await stream.post([fence("v")], token="u"), fencing_token_mismatch="t")
    await stream.append([fence("ü🎉")], token="t")
    mismatch(await stream.post_json({"records": [{}], "fencing_token": "t"}),
             fencing_token_mismatch="ü🎉")
    await stream.append([fence("")])
    await stream.bodies(b"c")
    mismatch(await stream.post([(b"x",)], token="t"), fencing_token_mismatch="")
    await stream.append([(b"d",)], token="")
    await stream.append([(b"e",), fence("mid"), (b"f",)], token="")
    await stream.append([(b"g",)], token="mid")
    same((await stream.tail())[0], 11)


@check(142)
async def fencing_tokens_that_are_too_long(cell):
    stream = await cell.make_stream()
    reply = await stream.post_json({"records": [{}], "fencing_token": "t" * 37})
    error(reply, 400, "bad_json")
    error(await stream.post([(b"",)], token="t" * 37), 422, "invalid")
    error(await stream.post([fence("é" * 19)]), 422, "invalid", "150")
    error(await stream.post([record(b"\xff", [(b"", b"fence")])]), 422, "invalid", "no UTF-8")
    await stream.append([fence("é" * 18)])
    await stream.append([(b"a",)], token="é" * 18)


@check(143)
async def trimming(cell):
    stream = await cell.make_stream()
    await stream.bodies(*[b"%d" % n for n in range(10)])
    same((await stream.append([trim(5)])).end[0], 11)
    same((await stream.read("seq_num=0")).seqs[0], 5, "146")
    await stream.append([trim(3)])
    same((await stream.read("seq_num=0")).seqs[0], 5, "147")
    same((await stream.read("seq_num=2&count=1")).seqs, [5], "195")
    same((await stream.tail())[0], 12)
    await stream.append([fence("t")])
    await stream.append([trim(6)], token="t")
    mismatch(await stream.post([trim(7)], token="u"), fencing_token_mismatch="t")
    same((await stream.read("seq_num=0")).seqs, list(range(6, 14)))
    for beyond in (2**64 - 1, 10**6):
        ack = await stream.append([trim(beyond)])
        reply = await stream.get("seq_num=0", {"accept": PROTO})
        same((reply.status, len(reply.body)), (200, 0), "195: all trimmed")
        same(await stream.tail(), ack.end)
    await stream.bodies(b"after")
    same((await stream.read("seq_num=0")).bodies, [b"after"], "144")


@check(148)
async def commands_that_are_wrong(cell):
    stream = await cell.make_stream()
    for wrong in (record(b"", [(b"", b"unknown")]), record(b"", [(b"", b"")]),
                  record(b"", [(b"", b"FENCE")]),
                  record(b"x", [(b"", b"fence"), (b"k", b"v")]),
                  record(b"x", [(b"k", b"v"), (b"", b"v")]),
                  record(b"x", [(b"", b"fence"), (b"", b"fence")]),
                  record(b"", [(b"", b"trim")]), record(b"1234567", [(b"", b"trim")]),
                  record(b"123456789", [(b"", b"trim")]), fence("x" * 37)):
        error(await stream.post([(b"good",), wrong]), 422, "invalid", wrong)
    reply = await stream.post_json({"records": [{"headers": [["", "x"]]}]})
    error(reply, 422, "invalid")
    same(await stream.tail(), (0, 0))
    await stream.append([trim(2), fence("tok")])
    data = (await stream.get("seq_num=0")).json()["records"]
    if data[0]["seq_num"] == 0:
        same((data[0]["headers"], data[0]["body"]), ([["", "trim"]], "\0" * 7 + "\x02"))
    same((data[-1]["headers"], data[-1]["body"]), ([["", "fence"]], "tok"))


@check(158)
async def unknown_streams_and_basins(cell):
    for name, code in ((cell.basin, "stream_not_found"), ("no-such-basin", "basin_not_found")):
        for data, body in (({"records": [{}]}, b""), (None, append_input([(b"",)]))):
            head = {} if data else {"content-type": PROTO}
            reply = await cell.call("POST", "/v1/streams/none/records", body, data=data,
                                    basin=name, headers=head)
            error(reply, 404, code)


@check(159)
async def concurrent_writers(cell):
    stream = await cell.make_stream()

    async def write(n):
        return [await stream.bodies(*[b"%d.%d" % (n, k)] * 3) for k in range(5)]
    acks = [a for one in await asyncio.gather(*(write(n) for n in range(12))) for a in one]
    same(sorted(a.start[0] for a in acks), list(range(0, 180, 3)))
    bodies = (await stream.read("seq_num=0")).bodies
    same(len(bodies), 180)
    for at in range(0, 180, 3):
        same(len(set(bodies[at:at + 3])), 1, "a batch was split")
    true(all(a.tail[0] >= a.end[0] for a in acks), "a tail before its end")


@check(160)
async def protobuf_presence(cell):
    stream = await cell.make_stream({"timestamping": {"mode": "client-require"}})
    await stream.append([record(b"a", timestamp=0)], match=0, token="")
    mismatch(await stream.post([record(b"", timestamp=0)], match=0), seq_num_mismatch=1)
    unknown = field(9, 5) + field(10, b"xyz")
    body = append_input([record(b"b", timestamp=5) + unknown]) + unknown
    reply = await stream.call("POST", "/records", body, headers={"content-type": PROTO})
    same(reply.status, 200, "unknown fields are ignored")
    fixed = b"\x5d\1\2\3\4\x61\1\2\3\4\5\6\7\x08"
    reply = await stream.call("POST", "/records", body + fixed, headers={"content-type": PROTO})
    same(reply.status, 200, "of every wire type")
    for junk in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x08\1", b"\x0f",
                 append_input([(b"x",)])[:-1], b"\x0a\x02\x08\x80" + b"\x80" * 12,
                 field(1, b"\x1a\x02\xff") , append_input([record(b"", timestamp=1)]) +
                 field(3, b"\xff\xfe"), b"\x0b\x0c"):
        reply = await stream.call("POST", "/records", junk, headers={"content-type": PROTO})
        true((reply.status, reply.code) == (400, "bad_proto"), repr(junk), reply)
    same((await stream.tail())[0], 3)


# Timestamps

def now():
    return int(time.time() * 1000)


@check(151)
async def client_prefer(cell):
    stream = await cell.make_stream()
    past = now() - 10_000
    ack = await stream.append([record(b"a", timestamp=past), record(b"b", timestamp=past + 5)])
    same((ack.start[1], ack.end[1]), (past, past + 5))
    ack = await stream.append([record(b"c", timestamp=past - 5000)])
    same(ack.start[1], past + 5, "156: raised")
    ack = await stream.append([record(b"d", timestamp=now() + 3_600_000)])
    true(ack.start[1] <= now() + 2, "154: capped", ack)
    ack = await stream.append([record(b"e", timestamp=past), record(b"f")])
    true(past + 5 < ack.start[1] <= ack.end[1] <= now() + 2, "never back", ack)
    found = [r[1] for r in (await stream.read("seq_num=0")).records]
    same(found, sorted(found))
    same(await stream.tail(), (6, found[-1]))


@check(152)
async def client_require(cell):
    stream = await cell.make_stream({"timestamping": {"mode": "client-require"}})
    error(await stream.post([(b"a",)]), 422, "invalid")
    error(await stream.post([record(b"a", timestamp=1), record(b"b")]), 422, "invalid", "153")
    same(await stream.tail(), (0, 0), "153")
    same((await stream.append([record(b"a", timestamp=1)])).start, (0, 1))
    mismatch(await stream.post([(b"a",)], match=9), seq_num_mismatch=1)


@check(155)
async def uncapped(cell):
    stream = await cell.make_stream({"timestamping": {"uncapped": True}})
    future = now() + 86_400_000
    same((await stream.append([record(b"a", timestamp=future)])).start[1], future)
    same((await stream.append([(b"b",)])).start[1], future, "then nothing is older")
    largest = 2**64 - 1
    same((await stream.append([record(b"c", timestamp=largest)])).start[1], largest)
    same(await stream.tail(), (3, largest))
    data = (await stream.get("seq_num=2")).json()["records"][0]
    same(data["timestamp"], largest)


@check(157)
async def arrival(cell):
    stream = await cell.make_stream({"timestamping": {"mode": "arrival"}})
    for wrong in (5, now() + 3_600_000):
        ack = await stream.append([record(b"a", timestamp=wrong)])
        true(abs(ack.start[1] - now()) < 5000, "not the arrival", ack)
