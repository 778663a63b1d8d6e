# SPDX-License-Identifier: Apache-2.0
"""A: HTTP/1.1, byte by byte."""

import asyncio
import json
import time

from . import check, same, true
from .cell import PROTO, S2S
from .wire import Ack, append_input, frame


@check(3)
async def session_headers_need_no_input(cell):
    stream = await cell.make_stream()
    start = time.monotonic()
    session = await stream.append_session()
    reply = await session.begin()
    same((reply.status, reply.headers.get("content-type")), (200, S2S))
    true(time.monotonic() - start < 4, "the headers took too long")
    session.close()


@check(4)
async def sessions_are_full_duplex(cell):
    stream = await cell.make_stream()
    session = await stream.append_session()
    await session.begin()
    for n in range(5):
        await session.send([(b"%d" % n,)])
        same((await session.ack()).start[0], n)
    await session.end()
    same(await session.next(), None)


@check("003b")
async def keep_alive_and_pipelining(cell):
    connection = await cell.connect()
    head = cell.headers()
    for _ in range(3):
        connection.send_head("GET", "/v1/basins?limit=1", head)
    connection.send_head("GET", "/v1/nothing", head)
    connection.send_head("GET", "/health", head)
    for status in (200, 200, 200, 404, 200):
        reply = await asyncio.wait_for(connection.read_head(), 10)
        reply.body = b"".join([part async for part in connection.parts(reply)])
        same(reply.status, status)
    connection.close()


@check("003c")
async def request_in_single_bytes(cell):
    stream = await cell.make_stream()
    body = append_input([(b"dribble",)])
    lines = ["POST %s HTTP/1.1" % stream.records]
    lines += ["%s: %s" % pair for pair in cell.headers(stream.basin, extra={
        "content-type": PROTO, "accept": PROTO, "content-length": str(len(body))})]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    connection = await cell.connect()
    for byte in data:
        connection.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    reply = await asyncio.wait_for(connection.read_head(), 10)
    same(reply.status, 200)
    connection.close()


@check("003d")
async def expect_continue(cell):
    stream = await cell.make_stream()
    body = append_input([(b"patience",)])
    connection = await cell.open("POST", stream.records, basin=stream.basin, headers={
        "content-type": PROTO, "accept": PROTO, "content-length": str(len(body)),
        "expect": "100-continue"})
    line = await asyncio.wait_for(connection.reader.readline(), 5)
    true(line.startswith(b"HTTP/1.1 100"), "no interim response", line)
    connection.writer.write(body)
    await connection.reader.readline()
    reply = await asyncio.wait_for(connection.read_head(), 10)
    same(reply.status, 200)
    connection.close()


@check("003e")
async def a_chunked_unary_body(cell):
    stream = await cell.make_stream()
    text = json.dumps({"records": [{"body": "chunk" * 100}]}).encode()
    connection = await cell.open("POST", stream.records, basin=stream.basin, chunked=True,
                                 headers={"content-type": "application/json"})
    for n in range(0, len(text), 37):
        await connection.send_chunk(text[n:n + 37])
    await connection.end_chunks()
    same((await asyncio.wait_for(connection.read_head(), 10)).status, 200)
    same((await stream.read("seq_num=0")).bodies, [b"chunk" * 100])
    connection.close()


@check("003f")
async def http_1_0_and_close(cell):
    for line in ("GET /health HTTP/1.0\r\n\r\n",
                 "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"):
        connection = await cell.connect()
        connection.writer.write(line.encode())
        data = await asyncio.wait_for(connection.reader.read(), 10)
        true(b" 200 " in data.split(b"\r\n")[0] and data.endswith(b"OK"), "then closed", data)


@check("003g")
async def a_target_in_absolute_form(cell):
    reply = await cell.call("GET", cell.origin + "/v1/basins?limit=1")
    same((reply.status, len(reply.json()["basins"])), (200, 1))
    same((await cell.call("GET", cell.origin + "/v1/nothing")).status, 404)


@check("004b")
async def a_refused_session_has_a_plain_answer(cell):
    """However much the client goes on sending."""
    connection = await cell.open("POST", "/v1/streams/none/records", basin=cell.basin,
                                 chunked=True, headers={"content-type": S2S})
    reply = await asyncio.wait_for(connection.read_head(), 10)
    reply.body = b"".join([part async for part in connection.parts(reply)])
    same((reply.status, reply.code), (404, "stream_not_found"))
    connection.close()
    body = frame(append_input([(b"x" * 1000,)]))
    for target in ("/v1/streams/none/records", "/v1/nothing"):
        connection = await cell.open("POST", target, basin=cell.basin, chunked=True,
                                     headers={"content-type": S2S})
        for _ in range(20):
            await connection.send_chunk(body)
        reply = await asyncio.wait_for(connection.read_head(), 10)
        same(reply.status, 404, target)
        connection.close()


@check("017a")
async def a_read_with_the_accept_of_protobuf_fails_in_json(cell):
    for accept in (PROTO, "text/event-stream"):
        reply = await cell.call("GET", "/v1/streams/none/records", basin=cell.basin,
                                headers={"accept": accept})
        same((reply.status, reply.code), (404, "stream_not_found"))
        same(reply.headers["content-type"], "application/json")


@check("022b")
async def large_json_bodies(cell):
    """A batch at its limit, in escapes that blow it up sixfold."""
    stream = await cell.make_stream()
    text = b'{"records":[{"body":"' + b"\\u0001" * 1_048_568 + b'"}]}'
    reply = await stream.call("POST", "/records", text,
                              headers={"content-type": "application/json"})
    true(reply.status == 200, "6 MiB of escapes", reply)
    same((await stream.read("seq_num=0")).bodies, [b"\x01" * 1_048_568])


@check("030")
async def many_clients_at_once(cell):
    stream = await cell.make_stream()

    async def client(n):
        connection = await cell.connect()
        for k in range(3):
            reply = await connection.request(
                "POST", stream.records, cell.headers(stream.basin, True, {
                    "content-type": PROTO, "accept": PROTO}),
                append_input([(b"%d/%d" % (n, k),)]))
            same(reply.status, 200)
            Ack(reply.body)
        connection.close()
    await asyncio.gather(*(client(n) for n in range(20)))
    bodies = (await stream.read("seq_num=0")).bodies
    same(sorted(bodies), sorted(b"%d/%d" % (n, k) for n in range(20) for k in range(3)))
