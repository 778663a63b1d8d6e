# SPDX-License-Identifier: Apache-2.0
"""Readers that read a whole stream of COUNT records again and again: catch_up.py NAME COUNT READERS

Says READ after each time, and ends after a line on stdin. Nothing is tried twice: whatever fails is
a failure of this script.
"""

import asyncio
import sys

from common import body, check, client, lines, run, say
from s2_sdk import ReadLimit, SeqNum

NAME, COUNT, READERS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def read(is_over):
    while not is_over.is_set():
        async with client(attempts=1) as s2:
            stream = s2.basin("cell-test-basin").stream(NAME)
            due = 0
            async for batch in stream.read_session(start=SeqNum(0), limit=ReadLimit(count=COUNT)):
                for record in batch.records:
                    check(record.seq_num == due, "expected", due, "got", record.seq_num)
                    check(record.body == body(due), "body of", due)
                    due += 1
            check(due == COUNT, "read", due)
        say("READ")


async def main():
    is_over = asyncio.Event()
    readers = [asyncio.create_task(read(is_over)) for _ in range(READERS)]

    async def await_line():
        await anext(lines())
        is_over.set()
    await asyncio.gather(await_line(), *readers)


run(main)
