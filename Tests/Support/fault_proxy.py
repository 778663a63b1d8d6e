#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A proxy in front of an S3 server that does what networks and servers do at their worst.

    fault_proxy.py UPSTREAM_HOST:PORT [LISTEN_PORT]

Prints the port that it listens on, and ends when its standard input does. Everything is passed on
as it is, Host included, so that signatures hold. Faults are rules, set by PUT /__faults:

    [{"method": "PUT", "key": "text in the path", "action": "...", "times": 1, "skip": 0, ...}]

Each request takes the first rule that matches and has `times` left (absent: always), after `skip`
matches went through unharmed. Actions:

    reset_before    the connection is reset, the request goes nowhere
    reset_after     the request is carried out, then the connection is reset
    stall_before    nothing is passed on, nothing answered
    stall_after     the request is carried out, its reply never comes
    cut             half of the reply's body, then the end of the connection
    status          a reply of our own: "status", "code", optional "date"
    status_after    the same, but the request was carried out
    range           the whole object's size in Content-Range becomes "size"
    accept          a 412 of the server becomes a 200, as if it ignored If-None-Match
    close_idle      passed on; then the connection is closed without notice

GET /__faults tells how many requests matched rules, and how many went upstream.
"""
import asyncio
import json
import os
import re
import socket
import struct
import sys

rules, seen = [], {"faults": 0, "upstream": 0}
upstream_host, upstream_port = sys.argv[1].rsplit(":", 1)


async def read_message(reader, is_head=False):
    """A message's head and body, or None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    headers = {}
    for line in head.split(b"\r\n")[1:]:
        if b":" in line:
            name, value = line.split(b":", 1)
            headers[name.strip().lower()] = value.strip()
    if is_head or head.split(b" ", 2)[1] in (b"204", b"304"):
        return head, b""
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            body += size + chunk
            if int(size.split(b";")[0], 16) == 0:
                return head, body
    return head, await reader.readexactly(int(headers.get(b"content-length", b"0")))


def matching(method, path):
    for rule in rules:
        if rule.get("method", method) != method or rule.get("key", "") not in path:
            continue
        if rule.get("skip", 0) > 0:
            rule["skip"] -= 1
            return None
        if rule.get("times", 1) > 0:
            if "times" in rule:
                rule["times"] -= 1
            seen["faults"] += 1
            return rule
    return None


async def forward(head, body, method):
    seen["upstream"] += 1
    reader, writer = await asyncio.open_connection(upstream_host, int(upstream_port), limit=2**26)
    try:
        writer.write(head + body)
        await writer.drain()
        return await read_message(reader, is_head=method == "HEAD")
    finally:
        writer.close()


def reset(writer):
    """Ends the connection with RST: what was sent and not read is lost."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def own_reply(rule):
    body = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>injected</Message></Error>" % (
        rule.get("code", "").encode())
    if not rule.get("code"):
        body = b""
    date = b"Date: %s\r\n" % rule["date"].encode() if "date" in rule else b""
    return b"HTTP/1.1 %d Injected\r\n%sContent-Length: %d\r\n\r\n" % (
        rule["status"], date, len(body)) + body


def control(method, body):
    global rules
    if method == "PUT":
        rules = json.loads(body)
        seen.update(faults=0, upstream=0)
    text = json.dumps(seen).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text


async def serve_one(head, body, writer):
    """Answers one request; false where the connection ends."""
    method, path = head.split(b" ", 2)[:2]
    method, path = method.decode(), path.decode()
    if path == "/__faults":
        writer.write(control(method, body))
        return True
    rule = matching(method, path) or {"action": "pass"}
    action = rule["action"]
    if action == "reset_before":
        reset(writer)
        return False
    if action == "stall_before":
        await asyncio.sleep(60)
        return False
    if action == "status":
        writer.write(own_reply(rule))
        return True
    reply = await forward(head, body, method)
    if reply is None:
        return False
    if action == "reset_after":
        reset(writer)
        return False
    if action == "stall_after":
        await asyncio.sleep(60)
        return False
    if action == "status_after":
        writer.write(own_reply(rule))
        return True
    if action == "cut":
        writer.write(reply[0] + reply[1][:len(reply[1]) // 2])
        return False
    if action == "range":
        reply = re.sub(rb"(?i)(content-range: .*/)\S+", rb"\g<1>%s" % rule["size"].encode(),
                       reply[0]), reply[1]
    if action == "accept" and reply[0].split(b" ", 2)[1] == b"412":
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""
    writer.write(reply[0] + reply[1])
    return action != "close_idle"


async def serve(reader, writer):
    try:
        while message := await read_message(reader):
            if not await serve_one(*message, writer):
                break
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


async def main():
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=2**26)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started us holds the other end; when it dies, so do we.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # At once: connections that stall must not hold us up.
    os._exit(0)


asyncio.run(main())
