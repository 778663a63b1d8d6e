# SPDX-License-Identifier: Apache-2.0
"""Streams of every fate, all at once: kept, trimmed, expired, emptied, deleted, made again.

Says ROUND n after each round of appends, and waits for a line behind round KILL: then the harness
breaks something. Says WORKED once all is written; readers go on reading. After another line it
reads everything that must be left, whole, through both frontends, and finds nothing else.

    lifecycle.py ROUNDS KILL FRONTEND FRONTEND
"""

import asyncio
import random
import sys

from common import check, client, run, say
from s2_sdk import (AppendInput, CommandRecord, ReadLimit, ReadUnwrittenError, Record,
                    S2ClientError, S2Error, S2ServerError, SeqNum, SeqNumMismatchError,
                    StreamConfig)

ROUNDS, KILL = int(sys.argv[1]), int(sys.argv[2])
FRONTENDS = sys.argv[3:]
BASIN, OTHER = "life-basin", "life-other-basin"
BATCH = 20


class Track:
    """One stream, and what it must hold."""

    def __init__(self, s2, name, basin=BASIN, pad=0, batch=BATCH, config=None):
        self.basin, self.name, self.pad, self.batch = s2.basin(basin), name, pad, batch
        self.stream = self.basin.stream(name)
        self.config = config
        self.bodies = []
        self.acked = 0
        self.trimming = self.trimmed = 0
        self.is_aged = config is not None and config.retention_policy is not None

    async def create(self):
        await self.basin.create_stream(self.name, config=self.config)

    async def append(self, records):
        """Exactly once, whatever becomes of the channel."""
        due = self.acked
        self.bodies += [bytes(record.body) for record in records]
        for _ in range(100):
            try:
                ack = await self.stream.append(AppendInput(records, match_seq_num=due))
                check(ack.start.seq_num == due, self.name, "expected", due, "got", ack)
                self.acked = len(self.bodies)
                return
            except (S2Error, S2ClientError) as error:
                tail = (await self.stream.check_tail()).seq_num
                say("retry", self.name, type(error).__name__, error, "tail", tail, "due", due)
                check(tail in (due, due + len(records)), self.name, "tail", tail, "due", due)
                # The records are there: that try or an earlier one was ours, nobody else writes.
                if tail > due:
                    self.acked = len(self.bodies)
                    return
                check(not isinstance(error, SeqNumMismatchError), self.name, error)
                await asyncio.sleep(0.2)
        check(False, self.name, "cannot be appended to")

    async def grow(self):
        first = self.acked
        await self.append([Record(b"%s %d " % (self.name.encode(), first + n) + b"." * self.pad)
                           for n in range(self.batch)])

    async def trim(self, to):
        self.trimming = to
        await self.append([CommandRecord.trim(to)])
        self.trimmed = to

    def take(self, batch, due):
        """Checks a batch that begins at or behind `due`; returns where the next one begins."""
        for record in batch.records:
            may_skip = self.is_aged or record.seq_num <= self.trimming
            check(record.seq_num == due or may_skip and record.seq_num > due,
                  self.name, "expected", due, "got", record.seq_num)
            due = record.seq_num + 1
            check(bytes(record.body) == self.bodies[record.seq_num], self.name, record)
        return due

    async def read(self, s2=None):
        """All that is there, as of now."""
        stream = s2.basin(self.basin.name).stream(self.name) if s2 else self.stream
        due, end = self.trimmed, self.acked
        while due < end:
            try:
                batch = await stream.read(
                    start=SeqNum(due), limit=ReadLimit(count=end - due), wait=0)
            except ReadUnwrittenError:
                check(self.is_aged, self.name, "ends at", due, "of", end)
                return
            if not batch.records and self.is_aged:
                return
            check(batch.records, self.name, "has nothing at", due)
            due = self.take(batch, due)


async def follow(track, total):
    """A reader that is there from the beginning to the end."""
    due = 0
    async for batch in track.stream.read_session(start=SeqNum(0)):
        due = track.take(batch, due)
        if due == total:
            return say("followed", due)


async def old_reader(track, total, resume):
    """A reader that stands still in the middle while all around it is collected."""
    due = 0
    async for batch in track.stream.read_session(start=SeqNum(0)):
        due = track.take(batch, due)
        await resume.wait()
        if due == total:
            return say("the old reader got", due)


async def keep_reading(tracks, done):
    """Readers that come and go all the time."""
    reads, source = 0, random.Random(7)
    while not done.is_set():
        await source.choice(tracks).read()
        reads += 1
        await asyncio.sleep(0.02)
    say("read", reads, "streams meanwhile")


async def line():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def fails(awaitable, *codes):
    try:
        await awaitable
    except S2ServerError as error:
        check(error.code in codes, error.code, "instead of", codes)
        return
    check(False, "no error where one of", codes, "is due")


async def recreate(track):
    """Deletes a stream, and makes one of the same name once the name is free."""
    await track.basin.delete_stream(track.name)
    await fails(track.stream.check_tail(), "stream_deletion_pending", "stream_not_found")
    while True:
        try:
            await track.create()
            break
        except S2ServerError as error:
            check(error.code in ("stream_deletion_pending", "resource_already_exists"), error.code)
            await asyncio.sleep(0.1)
    track.bodies, track.acked = [], 0


async def main():
    async with client(FRONTENDS[0], attempts=12) as s2, client(FRONTENDS[1], attempts=12) as s2b:
        for basin in (BASIN, OTHER):
            await s2.create_basin(basin)
        kept = [Track(s2, "kept-%d" % n) for n in range(4)]
        large = Track(s2, "large", pad=6_500, batch=150)
        trimmed = [Track(s2, "trimmed-%d" % n) for n in range(2)]
        silent = Track(s2, "silent")
        aged = Track(s2, "aged", config=StreamConfig(retention_policy=2))
        fleeting = [Track(s2, "fleeting-%d" % n, config=StreamConfig(delete_on_empty_min_age=1))
                    for n in range(2)]
        doomed, again = Track(s2, "doomed"), Track(s2, "again")
        others = [Track(s2, "other-%d" % n, basin=OTHER) for n in range(3)]
        writing = kept + [large, silent, aged, fleeting[0], doomed, again] + trimmed + others
        for track in writing + fleeting[1:]:
            await track.create()
        done, resume = asyncio.Event(), asyncio.Event()
        readers = [
            asyncio.create_task(follow(kept[0], ROUNDS * BATCH)),
            asyncio.create_task(keep_reading(kept[1:] + trimmed + [aged], done)),
        ]
        for number in range(ROUNDS):
            await asyncio.gather(*(track.grow() for track in writing))
            # A round per flush, so that there are small segments to merge.
            await asyncio.sleep(0.5)
            for track in trimmed:
                await track.trim(track.acked - BATCH // 2)
            say("ROUND", number)
            if number == KILL - 1:
                # It plans with segments that are merged while it stands still.
                readers.append(asyncio.create_task(
                    old_reader(large, ROUNDS * large.batch, resume)))
            if number == KILL:
                await line()
            if number == KILL + 1:
                await doomed.basin.delete_stream(doomed.name)
                writing.remove(doomed)
                await recreate(again)
                await s2.delete_basin(OTHER)
                writing = [track for track in writing if track not in others]
        for track in (silent, fleeting[0]):
            await track.trim(track.acked + 1)
        say("WORKED")
        await line()
        resume.set()
        done.set()
        await asyncio.gather(*readers)
        live = kept + trimmed + [large, again, aged, silent]
        for track in live:
            for through in (s2, s2b):
                await track.read(through)
        names = [info.name async for info in s2.basin(BASIN).list_all_streams()]
        check(names == sorted(track.name for track in live), "streams", names)
        names = [info.name async for info in s2.list_all_basins()]
        check(names == [BASIN], "basins", names)
        await fails(s2.basin(OTHER).create_stream("other-0"), "basin_not_found")
        await fails(doomed.stream.check_tail(), "stream_not_found")
        say("verified", len(live), "streams")


run(main)
