# SPDX-License-Identifier: Apache-2.0
"""Reads a stream through one frontend; when that dies, carries on through the next."""

import sys

from common import body, check, client, run, say, stream
from s2_sdk import S2ClientError, S2Error, ReadLimit, SeqNum


async def main():
    name, count, endpoints = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    expected, failures = 0, 0
    for endpoint in endpoints:
        try:
            async with client(endpoint, attempts=1) as s2:
                read = s2.basin("cell-test-basin").stream(name)
                limit = ReadLimit(count=count - expected)
                async for batch in read.read_session(start=SeqNum(expected), limit=limit):
                    for record in batch.records:
                        check(record.seq_num == expected, "expected", expected, "got", record)
                        check(record.body == body(expected), "body of", expected)
                        expected += 1
                        if expected == count // 4 and failures == 0:
                            say("HALFWAY")
                            # The harness kills the frontend, then lets us go on.
                            sys.stdin.readline()
        except (S2Error, S2ClientError, OSError) as error:
            failures += 1
            say("lost", type(error).__name__, "at", expected)
        if expected == count:
            break
    check(expected == count, "read", expected)
    check(failures > 0, "the frontend was killed and nobody noticed")


run(main)
