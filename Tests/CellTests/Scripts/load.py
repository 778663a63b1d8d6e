# SPDX-License-Identifier: Apache-2.0
"""Appends to some streams, whatever breaks; then looks for all that was acknowledged.

    load.py COUNT [FRONTEND …]

Goes on until each stream has COUNT records acknowledged, and some more of them after the line
`broken` came on stdin: that is when the harness has broken something. Asked to `count`, it says how
many each stream has. After a failure each stream goes to the next of the frontends.

Every record is unique and sent once: what failed is not sent again, so each acknowledged record
must be found exactly where its acknowledgement says, and whatever else is found must have been
sent.
"""

import asyncio
import sys

from common import check, client, lines, run, say, stream
from s2_sdk import AppendInput, ReadLimit, Record, S2ClientError, S2Error, SeqNum

NAMES = ["load-%d" % n for n in range(4)]
TOTAL = int(sys.argv[1])
FRONTENDS = sys.argv[2:] or [None]
BATCH = 10
broken = asyncio.Event()


class Writer:
    def __init__(self, name):
        self.name = name
        self.sent = 0
        self.acked = {}
        self.acked_since_broken = 0
        self.failures = 0

    def is_done(self, count):
        return len(self.acked) >= count and self.acked_since_broken >= 10 * BATCH

    async def write(self, count):
        while not self.is_done(count):
            try:
                frontend = FRONTENDS[self.failures % len(FRONTENDS)]
                async with client(frontend, attempts=1) as s2:
                    target = s2.basin("cell-test-basin").stream(self.name)
                    async with target.append_session(max_unacked_batches=20) as session:
                        await self.session(session, count)
            except (S2Error, S2ClientError, OSError, asyncio.TimeoutError) as error:
                self.failures += 1
                say("lost", self.name, type(error).__name__, error)
                await asyncio.sleep(0.2)

    async def session(self, session, count):
        pending = []
        while not self.is_done(count):
            bodies = [b"%s/%08d" % (self.name.encode(), self.sent + n) for n in range(BATCH)]
            self.sent += BATCH
            ticket = await session.submit(AppendInput([Record(b) for b in bodies]))
            pending.append((bodies, ticket))
            if len(pending) >= 10:
                await self.take(pending.pop(0))
            # What is only waited for is not to be read back for long.
            if len(self.acked) >= count:
                await asyncio.sleep(0.02)
        while pending:
            await self.take(pending.pop(0))

    async def take(self, item):
        bodies, ticket = item
        ack = await ticket
        for n, sent in enumerate(bodies):
            check(ack.start.seq_num + n not in self.acked, "acknowledged twice", ack)
            self.acked[ack.start.seq_num + n] = sent
        if broken.is_set():
            self.acked_since_broken += len(bodies)
        before, after = len(self.acked) - len(bodies), len(self.acked)
        if before < TOTAL // 3 <= after:
            say("LOADED", self.name)

    async def verify(self):
        async with client(FRONTENDS[-1], attempts=10) as s2:
            read = s2.basin("cell-test-basin").stream(self.name)
            tail = (await read.check_tail()).seq_num
            check(tail >= max(self.acked) + 1, "tail", tail, "acknowledged", max(self.acked))
            seen, expected = set(), 0
            async for batch in read.read_session(start=SeqNum(0), limit=ReadLimit(count=tail)):
                for record in batch.records:
                    check(record.seq_num == expected, "expected", expected, "got", record.seq_num)
                    check(record.body not in seen, "twice", record)
                    check(int(record.body.split(b"/")[1]) < self.sent, "never sent", record)
                    want = self.acked.get(expected)
                    check(want in (None, record.body), "acknowledged", want, "found", record)
                    seen.add(record.body)
                    expected += 1
            check(expected == tail, "read", expected, "of", tail)
            say("verified", self.name, "acked", len(self.acked), "found", tail, "failures",
                self.failures)


async def obey(writers):
    async for line in lines():
        if line == "broken":
            return broken.set()
        say("COUNTED", *(len(writer.acked) for writer in writers))


async def main():
    async with client() as s2:
        for name in NAMES:
            await stream(s2, name)
    writers = [Writer(name) for name in NAMES]
    await asyncio.gather(obey(writers), *(writer.write(TOTAL) for writer in writers))
    say("failures", sum(writer.failures for writer in writers))
    for writer in writers:
        await writer.verify()


run(main)
