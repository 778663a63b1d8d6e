# SPDX-License-Identifier: Apache-2.0
"""The official Python client's sessions and producers."""

import asyncio
import time
from datetime import timedelta

from s2_sdk import (AppendInput, Batching, CommandRecord, FencingTokenMismatchError, ReadLimit,
                    ReadUnwrittenError, Record, S2ServerError, SeqNum, SeqNumMismatchError,
                    StreamConfig, TailOffset, Timestamp, Timestamping, TimestampingMode,
                    append_inputs, append_record_batches, metered_bytes)

from . import check, same, true
from .sdk import batch, client, new_stream


async def records_of(session, count=None):
    found = []
    async for part in session:
        found += part.records
        if count is not None and len(found) >= count:
            break
    await session.close()
    return found


async def caught_up(session, timeout=10):
    tail = await asyncio.wait_for(session.caught_up(), timeout)
    # A heartbeat follows at once, and the client forgets to close if it comes at that moment:
    # before Python 3.12, `wait_for` loses such a cancellation.
    await asyncio.sleep(1.5)
    return tail


@check("sdk_20")
async def append_sessions(cell):
    async with new_stream(cell) as stream:
        async with stream.append_session() as session:
            tickets = [await session.submit(batch(*[b"%d" % n] * (n + 1))) for n in range(10)]
            acks = [await t for t in tickets]
        seq = 0
        for n, ack in enumerate(acks):
            same((ack.start.seq_num, ack.end.seq_num), (seq, seq + n + 1))
            seq += n + 1
        async with stream.append_session(max_unacked_batches=1) as session:
            for n in range(10):
                await session.submit(batch(b"one by one", match_seq_num=seq + n))
        same((await stream.check_tail()).seq_num, seq + 10)
        async with stream.append_session():
            pass
        async with stream.append_session(max_unacked_bytes=1 << 20) as session:
            tickets = [await session.submit(batch(b"x" * 700_000)) for _ in range(10)]
            for n, ticket in enumerate(tickets):
                same((await ticket).start.seq_num, seq + 10 + n)


@check("sdk_21")
async def append_sessions_that_fail(cell):
    async with new_stream(cell) as stream:
        for bad, kind in ((batch(b"x", match_seq_num=99), SeqNumMismatchError),
                          (batch(b"x", fencing_token="no"), FencingTokenMismatchError)):
            session = stream.append_session()
            tickets = [await session.submit(batch(b"good")) for _ in range(4)]
            tickets.append(await session.submit(bad))
            results = await asyncio.gather(*tickets, return_exceptions=True)
            same([type(r).__name__ for r in results], ["AppendAck"] * 4 + [kind.__name__])
            try:
                await session.close()
                true(False, "a failed session was closed as if nothing were")
            except kind:
                pass
    async with client(cell) as s2:
        session = s2.basin(cell.basin).stream("none").append_session()
        tickets = [await session.submit(batch(b"x"))]
        results = await asyncio.gather(*tickets, return_exceptions=True)
        same([(r.status_code, r.code) for r in results], [(404, "stream_not_found")], "238")
        try:
            await session.close()
        except S2ServerError as error:
            same(error.code, "stream_not_found")


@check("sdk_22")
async def producers(cell):
    async with new_stream(cell) as stream:
        batching = Batching(max_records=7, linger=timedelta(milliseconds=20))
        async with stream.producer(batching=batching, match_seq_num=0) as producer:
            tickets = [await producer.submit(Record(b"%d" % n)) for n in range(30)]
            await producer.flush()
            same([(await t).seq_num for t in tickets], list(range(30)))
            await producer.flush()
            ticket = await producer.submit(Record(b"more"))
            same((await ticket).seq_num, 30)
        found = await stream.read(start=SeqNum(0))
        same([r.body for r in found.records], [b"%d" % n for n in range(30)] + [b"more"])
        producer = stream.producer(match_seq_num=5)
        ticket = await producer.submit(Record(b"x"))
        try:
            await ticket
            true(False, "a wrong match was accepted")
        except SeqNumMismatchError as error:
            same(error.expected_seq_num, 31, "246")
        try:
            await producer.close()
        except SeqNumMismatchError:
            pass
        await stream.append(AppendInput([CommandRecord.fence("p")]))
        async with stream.producer(fencing_token="p") as producer:
            same((await (await producer.submit(Record(b"y")))).seq_num, 32)


@check("sdk_23")
async def batching(cell):
    async def source():
        for n in range(25):
            yield Record(b"%d" % n)
    async with new_stream(cell) as stream:
        tens = Batching(max_records=10, linger=timedelta(0))
        sizes = [len(part) async for part in append_record_batches(source(), batching=tens)]
        same(sizes, [10, 10, 5])
        async with stream.append_session() as session:
            async for one in append_inputs(source(), match_seq_num=0, batching=tens):
                await session.submit(one)
        same((await stream.check_tail()).seq_num, 25)


@check("sdk_24")
async def read_sessions_to_their_end(cell):
    async with new_stream(cell) as stream:
        records = [Record(b"%d" % n * 10, timestamp=100 * n) for n in range(10)]
        await stream.append(AppendInput(records))
        size = metered_bytes(records[:3])

        async def seqs(**query):
            session = stream.read_session(**query)
            return [r.seq_num for r in await asyncio.wait_for(records_of(session), 15)]
        same(await seqs(start=SeqNum(7), limit=ReadLimit(count=3)), [7, 8, 9])
        same(await seqs(start=SeqNum(7), limit=ReadLimit(count=9)), [7, 8, 9])
        same(await seqs(start=Timestamp(701), limit=ReadLimit(count=9)), [8, 9])
        same(await seqs(start=TailOffset(2), limit=ReadLimit(count=1)), [8])
        same(await seqs(start=SeqNum(0), limit=ReadLimit(bytes=size)), [0, 1, 2])
        same(await seqs(start=SeqNum(1), until_timestamp=300), [1, 2])
        same(await seqs(start=SeqNum(5), wait=0), [5, 6, 7, 8, 9])
        start = time.monotonic()
        same(await seqs(start=SeqNum(99), clamp_to_tail=True, wait=2), [])
        true(1.75 < time.monotonic() - start < 6, "wait", time.monotonic() - start)
        start = time.monotonic()
        same(await seqs(start=SeqNum(9), limit=ReadLimit(count=5), wait=2), [9])
        true(1.75 < time.monotonic() - start < 6, "wait", time.monotonic() - start)
        for query in ({"start": SeqNum(99)}, {"start": Timestamp(901)}):
            try:
                await seqs(**query)
                true(False, "read beyond the tail")
            except ReadUnwrittenError as error:
                same((error.tail.seq_num, error.tail.timestamp), (10, 900))
        try:
            await seqs(start=Timestamp(9), until_timestamp=9)
            true(False, "a contradiction was accepted")
        except S2ServerError as error:
            same((error.status_code, error.code), (422, "invalid"))


@check("sdk_25")
async def read_sessions_that_follow(cell):
    async with new_stream(cell) as stream:
        session = stream.read_session(start=SeqNum(0))
        async with session:
            same((await caught_up(session, 1)).seq_num, 0, "201: within 1 s")
            ack = None
            for n in range(20):
                ack = await stream.append(batch(b"%d" % n))
                part = await asyncio.wait_for(anext(session), 10)
                same(([r.body for r in part.records], part.tail), ([b"%d" % n], ack.tail))
                same(await caught_up(session), ack.tail)
                true(session.is_caught_up(), "not caught up")
        for start in (TailOffset(2), SeqNum(18), SeqNum(99)):
            session = stream.read_session(start=start, clamp_to_tail=True)
            async with session:
                if start != SeqNum(99):
                    part = await asyncio.wait_for(anext(session), 10)
                    same([r.seq_num for r in part.records], [18, 19])
                same(await caught_up(session), ack.tail, "206")


@check("sdk_26")
async def commands_are_left_out(cell):
    async with new_stream(cell) as stream:
        await stream.append(AppendInput([Record(b"a"), CommandRecord.fence("t"), Record(b"b")]))
        session = stream.read_session(start=SeqNum(0), ignore_command_records=True, wait=0)
        same([r.body for r in await records_of(session)], [b"a", b"b"])
        await stream.append(AppendInput([CommandRecord.trim(0)]))
        session = stream.read_session(start=SeqNum(3), ignore_command_records=True)
        async with session:
            same((await caught_up(session)).seq_num, 4)


@check("sdk_27")
async def many_sessions_on_one_connection(cell):
    async with client(cell) as s2:
        basin = s2.basin(cell.basin)
        names = [cell.fresh("sdk") for _ in range(20)]
        await asyncio.gather(*(basin.create_stream(name) for name in names))

        async def one(name):
            stream = basin.stream(name)
            reader = asyncio.create_task(
                records_of(stream.read_session(start=SeqNum(0)), 100))
            async with stream.producer() as producer:
                for n in range(100):
                    await producer.submit(Record(b"%d" % n))
            found = await asyncio.wait_for(reader, 30)
            same([r.body for r in found], [b"%d" % n for n in range(100)])
        await asyncio.gather(*(one(name) for name in names))


@check("sdk_28")
async def timestamps(cell):
    config = StreamConfig(timestamping=Timestamping(TimestampingMode.CLIENT_REQUIRE))
    async with new_stream(cell, config) as stream:
        session = stream.append_session()
        ticket = await session.submit(AppendInput([Record(b"a", timestamp=5)]))
        same((await ticket).start.timestamp, 5)
        ticket = await session.submit(batch(b"b"))
        try:
            await ticket
            true(False, "no timestamp, and accepted")
        except S2ServerError as error:
            same((error.status_code, error.code), (422, "invalid"))
        try:
            await session.close()
        except S2ServerError:
            pass
        same((await stream.check_tail()).timestamp, 5)


@check("sdk_29")
async def a_consumer_that_stalls(cell):
    """It must find everything once it goes on."""
    async with new_stream(cell) as stream, client(cell) as other:
        # Not on the writer's connection, whose window the client lets the stalled session fill.
        reader = other.basin(cell.basin).stream(stream.name)
        session = reader.read_session(start=SeqNum(0))
        async with session:
            await caught_up(session)
            async with stream.append_session() as appending:
                for n in range(60):
                    await appending.submit(batch(b"%d" % n * 200_000))
            same((await stream.check_tail()).seq_num, 60)
            found = []
            while len(found) < 60:
                found += (await asyncio.wait_for(anext(session), 15)).records
            await caught_up(session)
            same([(r.seq_num, r.body[:2]) for r in found],
                 [(n, (b"%d" % n * 2)[:2]) for n in range(60)])
