# SPDX-License-Identifier: Apache-2.0
"""A: HTTP/2 without TLS and with prior knowledge, on the same port."""

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.settings

from . import check, same, true
from .cell import PROTO, S2S
from .wire import Ack, Batch, Frames, append_input, frame


class Exchange:
    def __init__(self):
        self.status = None
        self.headers = {}
        self.data = bytearray()
        self.ended = False
        self.reset = None


class Client:
    """One connection. With `acknowledges` off, no window is ever given back."""

    def __init__(self, cell, window=None, acknowledges=True):
        self.cell = cell
        self.window = window
        self.acknowledges = acknowledges
        self.exchanges = {}
        self.changed = asyncio.Condition()
        self.pongs = 0
        self.goaway = None
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.cell.host, self.cell.port)
        self.h2.initiate_connection()
        if self.window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: self.window})
            if self.window > 65_535:
                self.h2.increment_flow_control_window(self.window - 65_535)
        self.flush()
        self.task = asyncio.create_task(self.receive())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        self.writer.close()

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def receive(self):
        try:
            while data := await self.reader.read(65_536):
                for event in self.h2.receive_data(data):
                    self.handle(event)
                self.flush()
                async with self.changed:
                    self.changed.notify_all()
        except ConnectionError:
            # A server that stops listening to what is still being sent.
            pass
        self.goaway = self.goaway or "closed"
        async with self.changed:
            self.changed.notify_all()

    def handle(self, event):
        if isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        exchange = self.exchanges.get(getattr(event, "stream_id", None))
        if exchange is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            exchange.headers = dict(event.headers)
            exchange.status = int(exchange.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            exchange.data += event.data
            if self.acknowledges and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            exchange.ended = True
        elif isinstance(event, h2.events.StreamReset):
            exchange.reset = event.error_code

    async def until(self, condition, what, timeout=20):
        async def wait():
            async with self.changed:
                await self.changed.wait_for(condition)
        try:
            await asyncio.wait_for(wait(), timeout)
        except asyncio.TimeoutError:
            true(False, "waited in vain for " + what)

    def open(self, method, path, headers=(), basin=None, ends=True):
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"),
                (":authority", "%s:%d" % (self.cell.host, self.cell.port))]
        head += self.cell.headers(basin)[1:] + list(headers)
        self.exchanges[number] = Exchange()
        self.h2.send_headers(number, head, end_stream=ends)
        self.flush()
        return number

    async def send(self, number, data, ends=False):
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self.until(
                    lambda: self.h2.local_flow_control_window(number) > 0
                    or self.exchanges[number].ended, "a window")
                if self.exchanges[number].ended:
                    return
                continue
            self.h2.send_data(number, data[:room])
            data = data[room:]
            self.flush()
            await self.writer.drain()
        if ends:
            self.h2.end_stream(number)
            self.flush()

    async def reply(self, number, timeout=20):
        exchange = self.exchanges[number]
        await self.until(lambda: exchange.ended or exchange.reset is not None, "an end", timeout)
        same(exchange.reset, None, "reset with a code")
        return exchange


@check(2)
async def both_versions_on_one_port(cell):
    same((await cell.call("GET", "/v1/basins?limit=1")).status, 200)
    async with Client(cell) as client:
        reply = await client.reply(client.open("GET", "/v1/basins?limit=1"))
        same((reply.status, reply.headers.get("content-type")), (200, "application/json"))
        reply = await client.reply(client.open("GET", "/v1/nothing"))
        same(reply.status, 404)


@check(5)
async def a_hundred_streams_at_once(cell):
    stream = await cell.make_stream()
    async with Client(cell) as client:
        await client.until(lambda: client.h2.remote_settings.max_concurrent_streams >= 100,
                           "100 concurrent streams")
        numbers = [client.open("GET", stream.records + "?seq_num=0&count=1&wait=30",
                               [("content-type", S2S)], stream.basin) for _ in range(99)]
        await client.until(lambda: all(client.exchanges[n].data for n in numbers), "heartbeats")
        same({client.exchanges[n].status for n in numbers}, {200})
        reply = await client.reply(client.open("GET", stream.records + "/tail", (), stream.basin))
        same(reply.status, 200)
        await stream.bodies(b"to all")
        for number in numbers:
            frames = Frames().feed(bytes((await client.reply(number)).data))
            same(Batch(frames[-1][1]).bodies, [b"to all"])


@check("005b")
async def streams_before_the_server_has_spoken(cell):
    """No client knows a limit before it is told one."""
    async with Client(cell) as client:
        numbers = [client.open("GET", "/v1/nothing") for _ in range(150)]
        same({(await client.reply(n)).status for n in numbers}, {404})
        same(client.goaway, None)


@check(6)
async def pings_on_an_idle_connection(cell):
    async with Client(cell) as client:
        for n in range(3):
            client.h2.ping(b"12345678")
            client.flush()
            await client.until(lambda: client.pongs > n, "a ping's acknowledgement", 5)


@check(7)
async def request_windows_are_replenished(cell):
    stream = await cell.make_stream()
    async with Client(cell) as client:
        number = client.open("POST", stream.records, [("content-type", S2S)], stream.basin, False)
        for n in range(12):
            await client.send(number, frame(append_input([(bytes([n]) * 300_000,)])))
        await client.send(number, b"", ends=True)
        reply = await client.reply(number, 40)
        frames = Frames().feed(bytes(reply.data))
        same([Ack(payload).start[0] for _, payload in frames], list(range(12)))
    same((await stream.tail())[0], 12)


async def five_mebibytes(cell):
    stream = await cell.make_stream()
    for n in range(6):
        await stream.bodies(bytes([65 + n]) * 1_000_000)
    return stream


@check(8)
async def response_windows_are_respected(cell):
    stream = await five_mebibytes(cell)
    target = stream.records + "?seq_num=0&count=6"
    kind = [("content-type", S2S)]
    async with Client(cell, window=10 << 20) as client:
        reply = await client.reply(client.open("GET", target, kind, stream.basin), 40)
        batches = [Batch(payload) for _, payload in Frames().feed(bytes(reply.data))]
        same([body[:1] for b in batches for body in b.bodies], [b"%c" % c for c in b"ABCDEF"])
    async with Client(cell, window=1000, acknowledges=False) as client:
        number = client.open("GET", target, kind, stream.basin)
        await client.until(lambda: len(client.exchanges[number].data) >= 1000, "a small window")
        # The client's library objects if the window is overrun; a stalled one stops nobody else.
        reply = await client.reply(client.open("GET", "/v1/nothing"))
        same(reply.status, 404)
        same(len(client.exchanges[number].data), 1000)
        client.h2.increment_flow_control_window(500, number)
        client.flush()
        await client.until(lambda: len(client.exchanges[number].data) >= 1500, "a larger window")


@check(9)
async def clean_ends(cell):
    stream = await cell.make_stream()
    await stream.bodies(b"a", b"b")
    kind = [("content-type", S2S)]
    async with Client(cell) as client:
        numbers = [
            client.open("GET", stream.records + "?seq_num=0&count=2", kind, stream.basin),
            client.open("GET", stream.records + "?tail_offset=0&wait=1", kind, stream.basin),
            client.open("GET", stream.records + "?seq_num=0&count=2",
                        [("accept", "text/event-stream")], stream.basin),
            client.open("POST", stream.records, kind, stream.basin, False)]
        await client.send(numbers[3], frame(append_input([(b"c",)], match=0)))
        for number in numbers:
            reply = await client.reply(number)
            same((reply.status, reply.ended), (200, True))
        failed = Frames().feed(bytes(client.exchanges[numbers[3]].data))
        same(failed[-1][0], 0x80)


@check("009b")
async def unary_requests_with_bodies(cell):
    stream = await cell.make_stream()
    async with Client(cell) as client:
        for n in range(3):
            number = client.open("POST", stream.records, [
                ("content-type", PROTO), ("accept", PROTO)], stream.basin, False)
            await client.send(number, append_input([(b"x" * 500_000,)]), ends=True)
            reply = await client.reply(number)
            same((reply.status, Ack(bytes(reply.data)).start[0]), (200, n))
        number = client.open("DELETE", stream.path, (), stream.basin)
        reply = await client.reply(number)
        same((reply.status, bytes(reply.data)), (202, b""))


@check("009c")
async def a_reset_request_leaves_the_rest_alone(cell):
    stream = await cell.make_stream()
    async with Client(cell) as client:
        kept = client.open("GET", stream.records + "?seq_num=0", [("content-type", S2S)],
                           stream.basin)
        for _ in range(20):
            number = client.open("GET", stream.records + "?seq_num=0",
                                 [("content-type", S2S)], stream.basin)
            await client.until(lambda: client.exchanges[number].data, "a heartbeat")
            client.h2.reset_stream(number, 8)
            client.flush()
        await stream.bodies(b"still there")
        await client.until(lambda: b"still there" in client.exchanges[kept].data, "a record")
        same(client.goaway, None)
