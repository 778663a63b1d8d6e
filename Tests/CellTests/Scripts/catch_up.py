# SPDX-License-Identifier: Apache-2.0
"""Readers that read a whole stream of COUNT records again and again: catch_up.py NAME COUNT READERS

Says READ after each time, and ends after a line on stdin. Nothing is tried twice: whatever fails is
a failure of this script.
"""

import asyncio
import sys

from common import BASIN, client, lines, read_whole, run, say

NAME, COUNT, READERS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def read(is_over):
    while not is_over.is_set():
        async with client(attempts=1) as s2:
            await read_whole(s2.basin(BASIN).stream(NAME), COUNT)
        say("READ")


async def main():
    is_over = asyncio.Event()
    readers = [asyncio.create_task(read(is_over)) for _ in range(READERS)]

    async def await_line():
        await anext(lines())
        is_over.set()
    await asyncio.gather(await_line(), *readers)


run(main)
