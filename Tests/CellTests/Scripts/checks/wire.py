# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 by hand, and the API's binary forms: nothing here hides what a server sends."""

import asyncio
import json
import struct


class Reply:
    def __init__(self, status, headers, body=b""):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        try:
            return self.json().get("code")
        except (ValueError, AttributeError):
            return None

    def __repr__(self):
        return "%d %r" % (self.status, self.body[:200])


class Connection:
    """One HTTP/1.1 connection; requests one after the other."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.reusable = True

    @classmethod
    async def open(cls, host, port, limit=1 << 22):
        return cls(*await asyncio.open_connection(host, port, limit=limit))

    def send_head(self, method, target, headers):
        lines = ["%s %s HTTP/1.1" % (method, target)]
        lines += ["%s: %s" % pair for pair in headers]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def send_chunk(self, data):
        if data:
            self.writer.write(b"%x\r\n" % len(data) + data + b"\r\n")
            await self.writer.drain()

    async def end_chunks(self):
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def read_head(self):
        while True:
            line = await self.reader.readline()
            if not line:
                raise ConnectionError("closed before a response")
            status = int(line.split()[1])
            headers = {}
            while True:
                line = (await self.reader.readline()).rstrip(b"\r\n").decode("latin-1")
                if not line:
                    break
                name, value = line.split(":", 1)
                headers[name.strip().lower()] = value.strip()
            if status >= 200:
                break
        self.reusable = headers.get("connection", "").lower() != "close"
        return Reply(status, headers)

    async def parts(self, reply):
        """The body as it comes."""
        if reply.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                line = await self.reader.readline()
                if not line.endswith(b"\n"):
                    raise ConnectionError("the body was cut off")
                size = int(line.split(b";")[0], 16)
                data = await self.reader.readexactly(size + 2)
                if size == 0:
                    return
                yield data[:-2]
        elif "content-length" in reply.headers:
            left = int(reply.headers["content-length"])
            while left:
                data = await self.reader.read(min(left, 1 << 20))
                if not data:
                    raise ConnectionError("the body was cut off")
                left -= len(data)
                yield data
        elif reply.status not in (204, 304):
            self.reusable = False
            while data := await self.reader.read(1 << 20):
                yield data

    async def request(self, method, target, headers, body=b""):
        headers = list(headers)
        if body or method in ("POST", "PUT", "PATCH"):
            headers.append(("content-length", str(len(body))))
        self.send_head(method, target, headers)
        self.writer.write(body)
        reply = await self.read_head()
        reply.body = b"".join([part async for part in self.parts(reply)])
        return reply

    def close(self):
        self.writer.close()

    def vanish(self):
        self.writer.transport.abort()


# Protobuf

def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """(number, value) for each field."""
    position, out = 0, []

    def number():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(data):
        key = number()
        if key & 7 == 0:
            out.append((key >> 3, number()))
        elif key & 7 == 2:
            size = number()
            if position + size > len(data):
                raise ValueError("truncated")
            out.append((key >> 3, data[position:position + size]))
            position += size
        else:
            raise ValueError("wire type %d" % (key & 7))
    return out


def record(body=b"", headers=(), timestamp=None):
    out = b"" if timestamp is None else field(1, timestamp)
    for name, value in headers:
        out += field(2, (field(1, name) if name else b"") + (field(2, value) if value else b""))
    return out + (field(3, body) if body else b"")


def append_input(records, match=None, token=None):
    out = b"".join(field(1, r if isinstance(r, bytes) else record(*r)) for r in records)
    if match is not None:
        out += field(2, match)
    if token is not None:
        out += field(3, token.encode())
    return out


def fence(token):
    return record(token.encode(), [(b"", b"fence")])


def trim(seq):
    return record(struct.pack(">Q", seq), [(b"", b"trim")])


def position(data):
    found = dict(fields(data))
    return found.get(1, 0), found.get(2, 0)


class Ack:
    """Start, end and tail, each (seq_num, timestamp)."""

    def __init__(self, data):
        found = dict(fields(data))
        for number, name in ((1, "start"), (2, "end"), (3, "tail")):
            if number not in found:
                raise ValueError("an ack without its " + name)
            setattr(self, name, position(found[number]))

    def __repr__(self):
        return "Ack(%r, %r, %r)" % (self.start, self.end, self.tail)


class Batch:
    """Records as (seq_num, timestamp, headers, body); the tail, or None."""

    def __init__(self, data):
        self.records, self.tail = [], None
        for number, value in fields(data):
            if number == 1:
                parts = fields(value)
                one = dict(parts)
                headers = [(dict(fields(v)).get(1, b""), dict(fields(v)).get(2, b""))
                           for n, v in parts if n == 3]
                self.records.append((one.get(1, 0), one.get(2, 0), headers, one.get(4, b"")))
            elif number == 2:
                self.tail = position(value)

    @property
    def seqs(self):
        return [r[0] for r in self.records]

    @property
    def bodies(self):
        return [r[3] for r in self.records]

    def __repr__(self):
        return "Batch(%r…%d records, tail %r)" % (self.records[:2], len(self.records), self.tail)


def metered(body=b"", headers=()):
    return 8 + 2 * len(headers) + sum(len(n) + len(v) for n, v in headers) + len(body)


# Session frames

def frame(payload, flags=0):
    return struct.pack(">I", len(payload) + 1)[1:] + bytes([flags]) + payload


class Frames:
    """Splits what comes into (flags, payload)."""

    def __init__(self):
        self.buffer = b""

    def feed(self, data):
        self.buffer += data
        out = []
        while len(self.buffer) >= 3:
            size = int.from_bytes(self.buffer[:3], "big")
            if size < 1:
                raise ValueError("an empty frame")
            if len(self.buffer) < 3 + size:
                break
            out.append((self.buffer[3], self.buffer[4:3 + size]))
            self.buffer = self.buffer[3 + size:]
        return out


def terminal(flags, payload):
    """(status, body) of a terminal frame."""
    if not flags & 0x80:
        raise ValueError("not a terminal frame")
    return int.from_bytes(payload[:2], "big"), json.loads(payload[2:])
