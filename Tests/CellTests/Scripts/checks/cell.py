# SPDX-License-Identifier: Apache-2.0
"""The cell under test, as a client of it: basins, streams and sessions."""

import asyncio
import json
import time
import uuid
from urllib.parse import quote, urlsplit

from . import same, true
from .wire import Ack, Batch, Connection, Frames, append_input, frame, record, terminal

PROTO = "application/protobuf"
S2S = "s2s/proto"


class Cell:
    def __init__(self, origin, token, pid=None, dormancy=60):
        self.origin = origin
        parts = urlsplit(origin)
        self.host, self.port = parts.hostname, parts.port or 80
        self.token = token
        self.pid = pid
        self.dormancy = dormancy
        self.run = uuid.uuid4().hex[:8]
        self.idle = []
        self.count = 0
        self.basin = None

    async def prepare(self):
        """The basin that most checks share."""
        self.basin = await self.make_basin()

    def fresh(self, what="s"):
        """A name that nobody has."""
        self.count += 1
        return "%s-%s-%04d" % (what, self.run, self.count)

    def headers(self, basin=None, token=True, extra=None):
        out = [("host", "%s:%d" % (self.host, self.port))]
        if token:
            out.append(("authorization", "Bearer " + self.token))
        if basin:
            out.append(("s2-basin", basin))
        return out + list((extra or {}).items())

    async def connect(self):
        return await Connection.open(self.host, self.port)

    async def call(self, method, path, body=b"", *, data=None, basin=None, headers=None,
                   token=True):
        """One unary request; `data` is sent as JSON."""
        extra = dict(headers or {})
        if data is not None:
            body = json.dumps(data).encode()
            extra.setdefault("content-type", "application/json")
        head = self.headers(basin, token, extra)
        while True:
            connection = self.idle.pop() if self.idle else await self.connect()
            is_old = connection.writer.is_closing() or connection.reader.at_eof()
            if is_old:
                connection.close()
                continue
            break
        try:
            reply = await connection.request(method, path, head, body)
        except BaseException:
            connection.vanish()
            raise
        if connection.reusable:
            self.idle.append(connection)
        else:
            connection.close()
        return reply

    async def open(self, method, path, *, basin=None, headers=None, chunked=False):
        """A session: its head is sent, and its reply's head is still to come."""
        extra = dict(headers or {})
        if chunked:
            extra["transfer-encoding"] = "chunked"
        connection = await self.connect()
        connection.send_head(method, path, self.headers(basin, True, extra))
        await connection.writer.drain()
        return connection

    # Basins and streams

    async def make_basin(self, config=None):
        name = self.fresh("conf")
        data = {"basin": name}
        if config is not None:
            data["config"] = config
        reply = await self.call("POST", "/v1/basins", data=data)
        same(reply.status, 201, "create basin")
        return name

    async def make_stream(self, config=None, basin=None, name=None):
        name = name or self.fresh()
        data = {"stream": name}
        if config is not None:
            data["config"] = config
        basin = basin or self.basin
        reply = await self.call("POST", "/v1/streams", data=data, basin=basin)
        true(reply.status == 201, "create stream: expected 201", reply)
        return Stream(self, basin, name)


def error(reply, status, code, what=""):
    """Asserts an error in its usual form."""
    same((reply.status, reply.code), (status, code), what)
    body = reply.json()
    true(isinstance(body.get("message"), str) and body["message"], "no message", body)
    same(reply.headers.get("content-type", "").split(";")[0], "application/json", what)


class Stream:
    def __init__(self, cell, basin, name):
        self.cell = cell
        self.basin = basin
        self.name = name
        self.path = "/v1/streams/" + quote(name, safe="")
        self.records = self.path + "/records"

    async def call(self, method, suffix="", body=b"", **more):
        return await self.cell.call(method, self.path + suffix, body, basin=self.basin, **more)

    # Unary

    async def post(self, records, match=None, token=None, headers=None):
        """An append in protobuf; the reply as it came."""
        extra = {"content-type": PROTO, "accept": PROTO} | (headers or {})
        return await self.call(
            "POST", "/records", append_input(records, match, token), headers=extra)

    async def append(self, records, match=None, token=None):
        """An append that must succeed: bodies, or encoded records."""
        reply = await self.post(records, match, token)
        true(reply.status == 200, "append: expected 200", reply)
        ack = Ack(reply.body)
        same(ack.end[0] - ack.start[0], len(records), "acknowledged")
        return ack

    async def bodies(self, *bodies):
        return await self.append([(body,) for body in bodies])

    async def post_json(self, data, headers=None):
        return await self.call("POST", "/records", data=data, headers=headers)

    async def get(self, query="", headers=None):
        return await self.call("GET", "/records" + ("?" + query if query else ""),
                               headers=headers)

    async def read(self, query=""):
        """A read that must succeed."""
        reply = await self.get(query, {"accept": PROTO})
        true(reply.status == 200, "read ?%s: expected 200" % query, reply)
        same(reply.headers.get("content-type"), PROTO)
        return Batch(reply.body)

    async def tail(self):
        reply = await self.call("GET", "/records/tail")
        true(reply.status == 200, "tail: expected 200", reply)
        tail = reply.json()["tail"]
        return tail["seq_num"], tail["timestamp"]

    # Sessions

    async def append_session(self, headers=None):
        connection = await self.cell.open(
            "POST", self.records, basin=self.basin, chunked=True,
            headers={"content-type": S2S} | (headers or {}))
        return Session(connection)

    async def read_session(self, query="", headers=None):
        target = self.records + ("?" + query if query else "")
        connection = await self.cell.open(
            "GET", target, basin=self.basin, headers={"content-type": S2S} | (headers or {}))
        session = Session(connection)
        await session.begin()
        return session

    async def events(self, query="", headers=None):
        target = self.records + ("?" + query if query else "")
        connection = await self.cell.open(
            "GET", target, basin=self.basin,
            headers={"accept": "text/event-stream"} | (headers or {}))
        session = Events(connection)
        await session.begin()
        return session


class Session:
    """Frames both ways over one HTTP/1.1 exchange."""

    def __init__(self, connection):
        self.connection = connection
        self.reply = None
        self.splitter = Frames()
        self.queue = []
        self.source = None

    async def begin(self):
        """Waits for the reply's head."""
        self.reply = await asyncio.wait_for(self.connection.read_head(), 10)
        self.source = self.connection.parts(self.reply)
        if self.reply.status != 200:
            self.reply.body = b"".join([part async for part in self.source])
        return self.reply

    async def next(self, timeout=20):
        """(flags, payload), or None at a clean end."""
        if self.reply is None:
            await self.begin()
        true(self.reply.status == 200, "a session was refused", self.reply)
        while not self.queue:
            try:
                part = await asyncio.wait_for(anext(self.source, None), timeout)
            except asyncio.TimeoutError:
                true(False, "nothing came within %s s" % timeout)
            if part is None:
                same(self.splitter.buffer, b"", "bytes after the last frame")
                return None
            self.queue += self.splitter.feed(part)
        return self.queue.pop(0)

    async def send(self, records, match=None, token=None):
        await self.raw(frame(append_input(records, match, token)))

    async def raw(self, data):
        await self.connection.send_chunk(data)

    async def end(self):
        await self.connection.end_chunks()

    async def ack(self, timeout=20):
        found = await self.next(timeout)
        true(found is not None, "the session ended instead of an ack")
        if found[0] & 0x80:
            true(False, "a terminal frame instead of an ack", terminal(*found))
        return Ack(unpack(*found))

    async def batch(self, timeout=20):
        """A batch, which may be a heartbeat."""
        found = await self.next(timeout)
        true(found is not None, "the session ended instead of a batch")
        if found[0] & 0x80:
            true(False, "a terminal frame instead of a batch", terminal(*found))
        batch = Batch(unpack(*found))
        true(batch.records or batch.tail is not None, "an empty batch without a tail")
        return batch

    async def data(self, timeout=20):
        """The next batch that has records."""
        end = time.monotonic() + timeout
        while True:
            batch = await self.batch(max(0.1, end - time.monotonic()))
            if batch.records:
                return batch

    async def until_end(self, timeout=20):
        """All batches up to a clean end."""
        batches = []
        while (found := await self.next(timeout)) is not None:
            true(not found[0] & 0x80, "a terminal frame instead of a clean end", found[1])
            batches.append(Batch(unpack(*found)))
        return batches

    async def failure(self, timeout=20):
        """(status, body) of the terminal frame, after which the session must end."""
        found = await self.next(timeout)
        true(found is not None, "a clean end instead of a terminal frame")
        true(found[0] & 0x80, "no terminal frame", found)
        true(await self.next(timeout) is None, "something came after a terminal frame")
        return terminal(*found)

    def close(self):
        self.connection.close()

    def vanish(self):
        self.connection.vanish()


def unpack(flags, payload):
    """The message of a frame, which says how it is compressed."""
    coding = flags >> 5 & 3
    if coding == 1:
        import zstandard
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if coding == 2:
        import gzip
        return gzip.decompress(payload)
    true(coding == 0, "an unknown compression", flags)
    return payload


class Events(Session):
    """Server-sent events over one HTTP/1.1 exchange."""

    def __init__(self, connection):
        super().__init__(connection)
        self.text = b""

    async def event(self, timeout=20):
        """A dictionary of the event's lines, or None at the end."""
        true(self.reply.status == 200, "a session was refused", self.reply)
        while b"\n\n" not in self.text:
            try:
                part = await asyncio.wait_for(anext(self.source, None), timeout)
            except asyncio.TimeoutError:
                true(False, "no event within %s s" % timeout)
            if part is None:
                same(self.text, b"", "bytes after the last event")
                return None
            self.text += part
        text, self.text = self.text.split(b"\n\n", 1)
        lines = [line.split(b": ", 1) for line in text.split(b"\n")]
        return {name.decode(): value.decode() for name, value in lines}

    async def named(self, name, timeout=20):
        """The next event of this name; pings may come before."""
        while True:
            event = await self.event(timeout)
            true(event is not None, "the end instead of " + name)
            if event.get("event") == name:
                return event
            same(event.get("event"), "ping", "waiting for " + name)

    async def all(self, timeout=20):
        events = []
        while (event := await self.event(timeout)) is not None:
            events.append(event)
        return events


def one(body=b"", headers=(), timestamp=None):
    return record(body, headers, timestamp)
