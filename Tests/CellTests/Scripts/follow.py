# SPDX-License-Identifier: Apache-2.0
"""Appends COUNT records in a session while a second client follows; then reads them back."""

import asyncio
import random
import sys

from common import body, check, client, run, say, stream
from s2_sdk import AppendInput, ReadLimit, Record, SeqNum, TailOffset, Timestamp

NAME = sys.argv[1]
COUNT = int(sys.argv[2])
BATCH = 100


async def append():
    async with client() as s2:
        appended = await stream(s2, NAME)
        async with appended.append_session() as session:
            tickets = []
            for first in range(0, COUNT, BATCH):
                records = [Record(body(n)) for n in range(first, min(first + BATCH, COUNT))]
                tickets.append((first, await session.submit(AppendInput(records))))
            for first, ticket in tickets:
                ack = await ticket
                check(ack.start.seq_num == first, "ack", ack, "for", first)
                check(ack.tail.seq_num >= ack.end.seq_num, "tail behind", ack)


async def follow():
    timestamps = []
    async with client() as s2:
        followed = await stream(s2, NAME)
        async for batch in followed.read_session(start=SeqNum(0)):
            for record in batch.records:
                check(record.seq_num == len(timestamps), "expected", len(timestamps), "got", record)
                check(record.body == body(record.seq_num), "body of", record.seq_num)
                check(not timestamps or record.timestamp >= timestamps[-1], "time", record)
                timestamps.append(record.timestamp)
            if len(timestamps) == COUNT:
                return timestamps


async def read_back(timestamps):
    async with client() as s2:
        read = await stream(s2, NAME)
        tail = await read.check_tail()
        check(tail.seq_num == COUNT, "tail", tail)
        check(tail.timestamp == timestamps[-1], "tail", tail)
        starts = [0, 1, COUNT // 2, COUNT - 1] + random.Random(1).sample(range(COUNT), 6)
        for start in starts:
            batch = await read.read(start=SeqNum(start), limit=ReadLimit(count=10))
            found = [(r.seq_num, r.body, r.timestamp) for r in batch.records]
            wanted = range(start, min(start + 10, COUNT))
            check(found == [(n, body(n), timestamps[n]) for n in wanted], "from", start, found)
            batch = await read.read(start=Timestamp(timestamps[start]), limit=ReadLimit(count=1))
            first = next(n for n, t in enumerate(timestamps) if t >= timestamps[start])
            check(batch.records[0].seq_num == first, "time", timestamps[start], batch.records[0])
            batch = await read.read(start=TailOffset(COUNT - start), limit=ReadLimit(count=1))
            check(batch.records[0].seq_num == start, "offset", COUNT - start, batch.records[0])


async def main():
    follower = asyncio.create_task(follow())
    await append()
    timestamps = await follower
    say("followed", len(timestamps))
    await read_back(timestamps)


run(main)
