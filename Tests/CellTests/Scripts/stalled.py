# SPDX-License-Identifier: Apache-2.0
"""Peers that stop reading: stalled.py clients|peer ORIGIN TOKEN [options]

Whoever stops taking what it is sent must cost the sender a bounded amount of memory, which is read
here from outside, and nobody else anything.

`clients` stalls hundreds of readers of one frontend, `--pid`. `peer` freezes a whole frontend,
`--pid`, while others go through the one at ORIGIN; the channels are `--channel`.
"""

import argparse
import asyncio
import os
import signal
import sys
import time

from checks.cell import PROTO, S2S, Cell
from checks.http2 import Client

MIB = 1 << 20
LARGE = 1_000_000


def say(*words):
    print(*words, flush=True)


def need(condition, *words):
    if not condition:
        say("FAILED", *words)
        sys.exit(1)


def memory(pid):
    """Bytes of a process that are its own and in memory."""
    with open("/proc/%d/status" % pid) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) << 10


class Watch:
    """The most memory that processes have had while it runs, and the most of one gauge."""

    def __init__(self, pids, cell=None, gauge=None):
        self.pids = pids
        self.cell = cell
        self.gauge = gauge
        self.most = {pid: 0 for pid in pids}
        self.gauge_most = 0

    async def __aenter__(self):
        self.task = asyncio.create_task(self.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()

    async def run(self):
        while True:
            for pid in self.pids:
                self.most[pid] = max(self.most[pid], memory(pid))
            if self.gauge:
                self.gauge_most = max(self.gauge_most, await gauge(self.cell, self.gauge))
            await asyncio.sleep(0.05)


async def gauge(cell, name):
    text = (await cell.call("GET", "/metrics", token=False)).body.decode()
    return next(float(line.split()[1]) for line in text.splitlines()
                if line.split()[0].endswith("_frontend_" + name))


async def until(condition, what, limit=30):
    end = time.monotonic() + limit
    while not await condition():
        need(time.monotonic() < end, "waited in vain for", what)
        await asyncio.sleep(0.1)


def body(n, size):
    return b"%06d" % n + b"." * (size - 6)


async def fill(stream, first, last, size):
    for n in range(first, last):
        await stream.bodies(body(n, size))


async def read_all(stream, count, size):
    """As a client that takes what it is sent."""
    session = await stream.read_session("seq_num=0&count=%d" % count)
    found = 0
    while found < count:
        for each in (await session.data(60)).bodies:
            need(each == body(found, size), "record", found, each[:20])
            found += 1
    session.close()


# Clients of one frontend.

def targets(stream):
    """Every form of a read, from the stream's start."""
    start = stream.records + "?seq_num=0"
    yield start, [("content-type", S2S)]
    yield start, [("accept", "text/event-stream")]
    yield start, [("accept", "text/event-stream"), ("s2-format", "base64")]
    yield start, [("accept", PROTO)]
    yield start, []
    # What comes next, which is not there yet.
    for kind in ([("content-type", S2S)], [("accept", "text/event-stream")]):
        yield stream.records + "?tail_offset=0", kind


async def stall_http2(cell, stream, count):
    """Streams whose window is empty from the start, thirty on a connection."""
    clients, opened, forms = [], [], list(targets(stream))
    while len(opened) < count:
        client = await Client(cell, window=0, acknowledges=False).__aenter__()
        clients.append(client)
        for _ in range(30):
            target, head = forms[len(opened) % len(forms)]
            opened.append((client, client.open("GET", target, head, stream.basin), head))
    for client, number, head in opened:
        exchange = client.exchanges[number]
        # An answer in one piece may have to wait for its turn.
        if dict(head).get("content-type") == S2S:
            await client.until(lambda: exchange.status == 200 or exchange.reset is not None,
                               "a response", 60)
    return clients


async def stall_http1(cell, stream, count):
    """Sockets that nobody reads."""
    connections, forms = [], list(targets(stream))
    for n in range(count):
        target, head = forms[n % len(forms)]
        connection = await cell.connect()
        connection.writer.transport.pause_reading()
        connection.send_head("GET", target, cell.headers(stream.basin, True, dict(head)))
        connections.append(connection)
    return connections


async def clients(options):
    cell = Cell(options.origin, options.token, options.pid)
    await cell.prepare()
    stream, other = await cell.make_stream(), await cell.make_stream()
    size = options.record
    before, after = 24_000_000 // size, 38_400_000 // size
    await fill(stream, 0, before, size)
    # What a busy frontend needs anyway.
    await asyncio.gather(*(read_all(stream, before, size) for _ in range(3)))
    usual = memory(options.pid)
    async with Watch([options.pid], cell, "response_bytes") as watch:
        stalled = await stall_http2(cell, stream, 300)
        sockets = await stall_http1(cell, stream, 60)
        # Those at the tail are sent more than they take, too.
        await fill(stream, before, after, size)
        await asyncio.sleep(3)
        start = time.monotonic()
        await asyncio.wait_for(read_all(stream, after, size), 120)
        took = time.monotonic() - start
        await asyncio.wait_for(other.bodies(b"alive"), 30)
    grown = (watch.most[options.pid] - usual) / MIB
    held = watch.gauge_most / MIB
    evicted = await gauge(cell, "read_evictions_total")
    say("grown %.1f MiB, held %.1f MiB, 38 MB read in %.1f s, %d evicted"
        % (grown, held, took, evicted))
    need(held > options.limit / 2, "the readers hold nothing, so that nothing is shown")
    # Beyond its limit a frontend may hold a single range, and what is made of it.
    need(held <= options.limit + 8, "MiB held for readers", held)
    need(grown <= options.bound, "MiB of growth", grown)
    for client in stalled:
        client.task.cancel()
        client.writer.transport.abort()
    for connection in sockets:
        connection.vanish()

    async def is_gone():
        return await gauge(cell, "response_bytes") == 0 and await gauge(cell, "read_sessions") == 0
    await until(is_gone, "the vanished clients' bytes")
    await read_all(stream, after, size)


# A frontend of the channels.

async def appended(streams, count):
    async def one(stream):
        await fill(stream, 0, count, LARGE)
    await asyncio.gather(*(one(stream) for stream in streams))


async def peer(options):
    live = Cell(options.origin, options.token)
    frozen = Cell(options.frozen, options.token)
    await live.prepare()
    count = 18

    async def follow(cell, stream):
        session = await cell_stream(cell, stream).read_session("tail_offset=0")
        await session.batch()
        return session

    async def take(session):
        found = 0
        while found < count:
            for each in (await session.data(60)).bodies:
                need(each == body(found, LARGE), "record", found, each[:20])
                found += 1
        session.close()

    async def round(is_frozen):
        streams = [await live.make_stream() for _ in range(12)]
        near = [await follow(live, stream) for stream in streams]
        far = [await follow(frozen, stream) for stream in streams]
        async with Watch(options.channel) as watch:
            if is_frozen:
                os.kill(options.pid, signal.SIGSTOP)
            try:
                await asyncio.gather(appended(streams, count), *(take(s) for s in near))
            finally:
                if is_frozen:
                    os.kill(options.pid, signal.SIGCONT)
        # Whoever followed through the frozen one misses nothing either.
        await asyncio.gather(*(take(session) for session in far))
        return watch.most
    usual = await round(False)
    usual = {pid: max(most, usual[pid]) for pid, most in (await round(False)).items()}
    most = await round(True)
    # Each round's streams may all be on one channel, and not on that of the round before.
    grown = [(most[pid] - max(usual.values())) / MIB for pid in options.channel]
    say("usual %s MiB, grown %s MiB" % (
        [most >> 20 for most in usual.values()], ["%.1f" % g for g in grown]))
    need(max(grown) <= options.bound, "MiB of growth", grown)


def cell_stream(cell, stream):
    """The stream through another frontend."""
    return type(stream)(cell, stream.basin, stream.name)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["clients", "peer"])
    parser.add_argument("origin")
    parser.add_argument("token")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--bound", type=float, required=True, help="MiB by which memory may grow")
    parser.add_argument("--record", type=int, help="bytes of a record that is read")
    parser.add_argument("--limit", type=float, help="MiB that a frontend may hold for readers")
    parser.add_argument("--frozen", help="the origin of the frontend that is frozen")
    parser.add_argument("--channel", type=int, action="append", help="a channel's process")
    return parser.parse_args()


if __name__ == "__main__":
    parsed = arguments()
    asyncio.run(asyncio.wait_for({"clients": clients, "peer": peer}[parsed.mode](parsed), 160))
    say("OK")
