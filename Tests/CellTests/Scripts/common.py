# SPDX-License-Identifier: Apache-2.0
"""What the scripts share. The cell is where S2_* variables say; stdout is for the harness."""

import asyncio
import os
import random
import sys
from datetime import timedelta

from s2_sdk import S2, Endpoints, ReadLimit, Retry, SeqNum, Timeout

BASIN = "cell-test-basin"


def client(endpoint=None, attempts=3):
    endpoint = endpoint or os.environ["S2_ACCOUNT_ENDPOINT"]
    return S2(
        os.environ["S2_ACCESS_TOKEN"],
        endpoints=Endpoints(endpoint, endpoint),
        retry=Retry(max_attempts=attempts),
        timeout=Timeout(request=timedelta(seconds=20)),
    )


async def stream(s2, name):
    await s2.ensure_basin(BASIN)
    await s2.basin(BASIN).ensure_stream(name)
    return s2.basin(BASIN).stream(name)


PAD = int(os.environ.get("CELL_TEST_PAD", "0"))


def body(number):
    """A body that tells its number and whose length varies, the same each time."""
    letters = bytes(random.Random(number).choices(b"abcdefgh", k=number % 97))
    return b"%08d:" % number + letters + b"." * PAD


def say(*words):
    print(*words, flush=True)


def check(condition, *words):
    if not condition:
        say("FAILED", *words)
        # At once, whoever waits for what.
        os._exit(1)


async def read_whole(stream, count):
    """Reads a stream's first `count` records, each of which must be as `body` tells."""
    due = 0
    async for batch in stream.read_session(start=SeqNum(0), limit=ReadLimit(count=count)):
        for record in batch.records:
            check(record.seq_num == due, "expected", due, "got", record.seq_num)
            check(record.body == body(due), "body of", due)
            due += 1
    check(due == count, "read", due)


async def lines():
    """What the harness says on stdin, line by line."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


def run(main):
    asyncio.run(asyncio.wait_for(main(), timeout=150))
    say("OK")
