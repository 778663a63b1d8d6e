# SPDX-License-Identifier: Apache-2.0
"""Reads a whole stream of COUNT records, written by follow.py, and compares."""

import sys

from common import body, check, client, run, say, stream
from s2_sdk import ReadLimit, SeqNum


async def main():
    name, count = sys.argv[1], int(sys.argv[2])
    async with client() as s2:
        read = await stream(s2, name)
        tail = await read.check_tail()
        check(tail.seq_num == count, "tail", tail)
        expected = 0
        async for batch in read.read_session(start=SeqNum(0), limit=ReadLimit(count=count)):
            for record in batch.records:
                check(record.seq_num == expected, "expected", expected, "got", record.seq_num)
                check(record.body == body(expected), "body of", expected)
                expected += 1
        check(expected == count, "read", expected)
        say("verified", expected)


run(main)
