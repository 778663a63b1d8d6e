# SPDX-License-Identifier: Apache-2.0
"""Reads a whole stream of COUNT records, written by follow.py, and compares."""

import sys

from common import check, client, read_whole, run, say, stream


async def main():
    name, count = sys.argv[1], int(sys.argv[2])
    async with client() as s2:
        read = await stream(s2, name)
        tail = await read.check_tail()
        check(tail.seq_num == count, "tail", tail)
        await read_whole(read, count)
        say("verified", count)


run(main)
