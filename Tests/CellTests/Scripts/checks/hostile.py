# SPDX-License-Identifier: Apache-2.0
"""Clients that mean no good, or know no better: the server stays healthy, others are served."""

import asyncio
import os
import random
import struct

from . import check, same, true
from .cell import PROTO, S2S
from .wire import append_input, frame


def resident(cell):
    """The frontend's memory, in MiB; 0 where its process is not known."""
    if cell.pid is None:
        return 0
    with open("/proc/%d/statm" % cell.pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


async def healthy(cell, stream=None):
    reply = await asyncio.wait_for(cell.call("GET", "/health", token=False), 5)
    same((reply.status, reply.body), (200, b"OK"), "health")
    stream = stream or await cell.make_stream()
    before = (await stream.tail())[0]
    same((await asyncio.wait_for(stream.bodies(b"alive"), 5)).start[0], before)


async def said(cell, data, timeout=20):
    """All that the server answers to these bytes, until it closes."""
    connection = await cell.connect()
    connection.writer.write(data)
    try:
        return await asyncio.wait_for(connection.reader.read(1 << 20), timeout)
    except ConnectionError:
        return b""
    finally:
        connection.vanish()


@check("x01", last=True)
async def requests_that_are_none(cell):
    auth = "authorization: Bearer %s\r\n" % cell.token
    for line in ("GET\r\n\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                 "GET /v1/basins HTTP/1.1\r\nno colon\r\n\r\n",
                 "GET /v1/basins HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
                 "POST /v1/basins HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
                 "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                 "POST /v1/basins HTTP/1.1\r\nhost: x\r\n" + auth +
                 "transfer-encoding: chunked\r\n\r\nzz\r\n",
                 "GET /v1/basins HTTP/1.1\r\nhost: x\r\n bad: fold\r\n\r\n",
                 "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS hello"):
        answer = await said(cell, line.encode("latin-1"))
        true(answer == b"" or answer.split(b"\r\n")[0].split()[1] in (b"400", b"505", b"413"),
             repr(line), answer[:100])
    rng = random.Random(1)
    for _ in range(50):
        await asyncio.wait_for(fling(cell, rng.randbytes(rng.randrange(1, 3000))), 20)
    await healthy(cell)


async def fling(cell, data):
    connection = await cell.connect()
    connection.writer.write(data)
    await asyncio.sleep(0)
    connection.vanish()


@check("x02", last=True)
async def heads_beyond_all_bounds(cell):
    start = b"GET /v1/basins HTTP/1.1\r\nhost: x\r\n"
    for data in (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
                 start + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
                 start + b"".join(b"h%d: v\r\n" % n for n in range(20_000)) + b"\r\n"):
        answer = await said(cell, data)
        true(answer == b"" or answer.split()[1] in (b"400", b"413", b"414", b"431"),
             "a head of %d bytes" % len(data), answer[:100])
    await healthy(cell)


@check("x03", last=True)
async def http2_header_bombs(cell):
    from .http2 import Client
    async with Client(cell) as client:
        headers = [("x-%d" % n, "v" * 4000) for n in range(100)]
        number = client.open("GET", "/v1/basins", headers)
        exchange = client.exchanges[number]
        await client.until(
            lambda: client.goaway or exchange.ended or exchange.reset is not None, "a refusal")
        true(exchange.status in (None, 400, 431), "400 KB of headers", exchange.status)
    # References to one large entry of the header table: small on the wire, large in memory.
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"")
    entry = b"\x40\x01x\x7f" + integer(3800 - 127) + b"v" * 3800
    block = entry + b"\xbe" * 15_000
    before = resident(cell)
    for _ in range(4):
        head = b"\x82\x84\x86" + block
        frames = h2_frame(1, 1, 1, head[:16_000])
        for at in range(16_000, len(head), 16_000):
            frames += h2_frame(9, 4 if at + 16_000 >= len(head) else 0, 1, head[at:at + 16_000])
        await said(cell, preface + frames, 5)
        # A block that never ends.
        endless = h2_frame(1, 1, 1, b"\x82") + h2_frame(9, 0, 1, b"\x00" * 16_000) * 200
        await said(cell, preface + endless, 5)
    true(resident(cell) - before < 200, "MiB of growth", resident(cell) - before)
    await healthy(cell)


def integer(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def h2_frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
        ">I", stream) + payload


@check("x04", last=True)
async def http2_floods(cell):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"")
    before = resident(cell)
    settings = h2_frame(4, 0, 0, struct.pack(">HI", 4, 65_535)) * 20_000
    pings = h2_frame(6, 0, 0, b"12345678") * 20_000
    resets = b"".join(h2_frame(1, 4, n, b"\x82\x84\x86") + h2_frame(3, 0, n, b"\0\0\0\x08")
                      for n in range(1, 10_001, 2))
    empty = h2_frame(1, 4, 1, b"\x83\x84\x86") + h2_frame(0, 0, 1, b"") * 20_000
    for data in (settings, pings, resets, empty, h2_frame(0, 0, 5, b"x"), h2_frame(9, 4, 1, b""),
                 h2_frame(8, 0, 0, b"\0\0\0\0"), h2_frame(5, 4, 1, b"\0\0\0\2\x82"),
                 b"\xff" * 100):
        connection = await cell.connect()
        connection.writer.write(preface + data)
        try:
            # Nobody reads the answers.
            await asyncio.wait_for(connection.writer.drain(), 3)
        except (asyncio.TimeoutError, ConnectionError):
            pass
        await asyncio.sleep(0.2)
        connection.vanish()
    true(resident(cell) - before < 200, "MiB of growth", resident(cell) - before)
    await healthy(cell)


@check("x05", last=True)
async def bodies_beyond_all_bounds(cell):
    stream = await cell.make_stream()
    for head in ({"content-length": str(1 << 40)}, {"content-length": str(100 << 20)},
                 {"content-length": "99999999999999999999"}):
        connection = await cell.open("POST", stream.records, basin=stream.basin,
                                     headers={"content-type": PROTO} | head)
        reply = await asyncio.wait_for(connection.read_head(), 10)
        true(reply.status in (400, 413), str(head), reply.status)
        connection.vanish()
    before = resident(cell)
    connection = await cell.open("POST", stream.records, basin=stream.basin, chunked=True,
                                 headers={"content-type": "application/json"})
    try:
        for _ in range(64):
            await connection.send_chunk(b" " * (1 << 20))
    except ConnectionError:
        pass
    else:
        reply = await asyncio.wait_for(connection.read_head(), 10)
        true(reply.status in (400, 413), "64 MiB of blanks", reply.status)
    connection.vanish()
    deep = b'{"records":' + b"[" * 500_000
    for body in (deep, b'{"a":' * 200_000, b'{"records":[' + b"{}," * 700_000 + b"{}]}",
                 b'{"records":[{"body":"' + b"\\ud800" * 1000 + b'"}]}',
                 b'{"records":[{"timestamp":' + b"9" * 100_000 + b"}]}"):
        reply = await stream.call("POST", "/records", body,
                                  headers={"content-type": "application/json"})
        true(reply.status in (200, 400, 413, 422), repr(body[:30]), reply)
    true(resident(cell) - before < 400, "MiB of growth", resident(cell) - before)
    await healthy(cell, stream)


@check("x06", last=True)
async def random_frames_and_messages(cell):
    stream = await cell.make_stream()
    good = append_input([(b"x" * 50, [(b"k", b"v")])] * 3, match=None, token="")
    rng = random.Random(2)
    appended = 0

    async def one(n):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = bytes(data[:rng.randrange(1, len(data) + 1)])
        reply = await stream.call("POST", "/records", data, headers={"content-type": PROTO})
        true(reply.status in (200, 400, 412, 422), "unary %r" % data, reply)
        session = await stream.append_session()
        await session.raw(frame(data, rng.choice((0, 0, 0x20, 0x40))))
        await session.end()
        found = await session.next()
        true(found is not None, "neither an ack nor a failure", data)
        if found[0] & 0x80:
            true(int.from_bytes(found[1][:2], "big") in (400, 412, 422), "session", found)
        session.close()
        return reply.status == 200
    for first in range(0, 200, 20):
        appended += sum(await asyncio.gather(*(one(n) for n in range(first, first + 20))))
    true(0 < appended < 200, "the noise is too strong or too weak", appended)
    await healthy(cell, stream)


@check("x07", last=True)
async def readers_that_never_read(cell):
    stream = await cell.make_stream()
    for n in range(24):
        await stream.bodies(b"%c" % (65 + n) * 1_000_000)
    before = resident(cell)
    connections = []
    for n in range(30):
        head = ({"content-type": S2S}, {"accept": "text/event-stream"}, {"accept": PROTO})[n % 3]
        connection = await cell.connect()
        connection.writer.transport.pause_reading()
        connection.send_head("GET", stream.records + "?seq_num=0",
                             cell.headers(stream.basin, True, head))
        connections.append(connection)
    await asyncio.sleep(2)
    for n in range(12):
        await stream.bodies(b"%c" % (65 + n) * 1_000_000)
    grown = resident(cell) - before
    true(grown < 30 * 20, "MiB of growth for 30 readers", grown)
    await healthy(cell, stream)
    reader = await stream.read_session("seq_num=0&count=36")
    same([s for b in await reader.until_end(30) for s in b.seqs], list(range(36)))
    for connection in connections:
        connection.vanish()
    await healthy(cell, stream)


@check("x08", last=True)
async def writers_that_never_read(cell):
    """Acks that nobody takes must not pile up without bound: input stops being read instead."""
    stream = await cell.make_stream()
    before = resident(cell)
    connection = await cell.open("POST", stream.records, basin=stream.basin, chunked=True,
                                 headers={"content-type": S2S})
    connection.writer.transport.pause_reading()
    data = frame(append_input([(b"",)])) * 500
    try:
        async with asyncio.timeout(40) as limit:
            while True:
                await asyncio.wait_for(connection.send_chunk(data), 4)
    except (asyncio.TimeoutError, ConnectionError):
        pass
    true(not limit.expired(), "it reads on and on")
    true(resident(cell) - before < 200, "MiB of growth", resident(cell) - before)
    await healthy(cell)
    connection.writer.transport.resume_reading()
    async with asyncio.timeout(20):
        while not b"".join([await connection.reader.read(1 << 20)]).endswith(b"\n"):
            pass
    connection.vanish()
    await healthy(cell)


@check("x09", last=True)
async def clients_that_vanish(cell):
    stream = await cell.make_stream()
    big = append_input([(b"x" * 500_000,)])

    async def one(n):
        kind = n % 5
        if kind == 0:
            connection = await cell.open("POST", stream.records, basin=stream.basin, headers={
                "content-type": PROTO, "content-length": str(len(big))})
            connection.writer.write(big[:-1])
        elif kind == 1:
            connection = await cell.open("POST", stream.records, basin=stream.basin, chunked=True,
                                         headers={"content-type": S2S})
            await connection.send_chunk(frame(big) * 2 + frame(big)[:1000])
        elif kind == 2:
            connection = await cell.open("GET", stream.records + "?seq_num=0&wait=30",
                                         basin=stream.basin, headers={"accept": PROTO})
        elif kind == 3:
            connection = await cell.connect()
            connection.writer.write(b"GET /v1/basins HTTP/1.1\r\nhost")
        else:
            connection = await cell.open("GET", stream.records, basin=stream.basin,
                                         headers={"accept": "text/event-stream"})
        await asyncio.sleep(n % 7 * 0.01)
        connection.vanish()
    for _ in range(4):
        await asyncio.gather(*(one(n) for n in range(50)))
    await healthy(cell)
    # What they sent whole may still be appended: the stream's end moves by itself, never back.
    tail = (await stream.tail())[0]
    start = (await asyncio.wait_for(stream.bodies(b"alive"), 5)).start[0]
    true(start >= tail, "behind the tail", start, tail)
    reader = await stream.read_session("seq_num=0&count=%d" % (start + 1))
    bodies = [b for batch in await reader.until_end(30) for b in batch.bodies]
    same([b for b in bodies if b != b"x" * 500_000], [b"alive"], "torn records")
    same(bodies.index(b"alive"), start)


@check("x10", last=True)
async def many_idle_connections(cell):
    connections = [await cell.connect() for _ in range(500)]
    for connection in connections[::2]:
        connection.writer.write(b"GET /v1/ba")
    await healthy(cell)
    for connection in connections:
        connection.vanish()
    await healthy(cell)


async def gauges(cell):
    """What is open and on its way, as the server itself counts it."""
    text = (await cell.call("GET", "/metrics", token=False)).body.decode()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    found = {words[0].split("_frontend_")[-1]: float(words[1]) for words in lines}
    names = ("append_in_flight_bytes", "append_sessions", "read_sessions", "requests")
    return tuple(found[name] for name in names)


@check("x12", last=True)
async def nothing_is_left_of_the_vanished(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"a")
    before = await gauges(cell)
    sessions = []
    for _ in range(10):
        sessions += [await stream.append_session(), await stream.read_session("seq_num=0"),
                     await stream.events("seq_num=0")]
        await sessions[-3].begin()
        await sessions[-3].send([(b"x" * 1000,)] * 20)
    opened = await gauges(cell)
    same((opened[1] - before[1], opened[2] - before[2]), (10, 20), "sessions")
    for session in sessions:
        session.vanish()
    async with asyncio.timeout(20):
        # What others left behind may go meanwhile as well.
        while any(now > then for now, then in zip(await gauges(cell), before)):
            await asyncio.sleep(0.1)


@check("x11", slow="wait")
async def half_a_request_is_cut_off(cell):
    async def head(data):
        connection = await cell.connect()
        connection.writer.write(data)
        answer = await asyncio.wait_for(connection.reader.read(), 40)
        true(answer == b"" or b" 408 " in answer or b" 400 " in answer, "an answer", answer[:80])

    async def body():
        stream = await cell.make_stream()
        connection = await cell.open("POST", stream.records, basin=stream.basin, headers={
            "content-type": PROTO, "content-length": "100"})
        answer = await asyncio.wait_for(connection.reader.read(), 80)
        true(b" 408 " in answer, "no 408", answer[:80])

    await asyncio.gather(head(b"GE"), head(b"GET /v1/basins HTTP/1.1\r\nhost: x\r\n"), body())
