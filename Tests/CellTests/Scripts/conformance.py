# SPDX-License-Identifier: Apache-2.0
"""Checks a running cell against the API: conformance.py ORIGIN TOKEN [options]

Prints a line for each check that fails and says how many passed. The checks are in `checks/`; each
is independent of the others, makes what it needs under names of its own, and can fail.
"""

import argparse
import asyncio
import re
import sys
import time

from checks import CHECKS, explain
from checks import (appends, auto_create, basins, basins_config, hostile, http, http2,  # noqa: F401
                    later, reads, sdk, sdk_sessions, session_appends, session_frames, sse,
                    stream_config, streams, streaming, transport)
from checks.cell import Cell


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("origin", help="of a frontend, such as http://127.0.0.1:8080")
    parser.add_argument("token")
    parser.add_argument("--slow", action="store_true",
                        help="also checks that wait for a minute, or until streams are dormant")
    parser.add_argument("--dormancy", type=float, default=60,
                        help="seconds after which the cell's streams are; few make that check fast")
    parser.add_argument("--only", default="", help="a regular expression for names")
    parser.add_argument("--pid", type=int, help="of the frontend, whose memory is watched")
    parser.add_argument("--jobs", type=int, default=12, help="checks at once")
    parser.add_argument("--again", action="store_true",
                        help="what fails beside others is tried once more, alone; a few may")
    parser.add_argument("--verbose", action="store_true", help="prints every check and its time")
    return parser.parse_args()


# So many checks may need a second try before that is a failure of its own.
AGAIN_MAX = 4


class Run:
    def __init__(self, options, cell):
        self.options = options
        self.cell = cell
        self.passed = 0
        self.failed = []
        # Those that passed at the second try only.
        self.again = []

    async def one(self, name, function, slow):
        start = time.monotonic()
        limit = asyncio.timeout(max(110, 3 * self.options.dormancy) if slow else 60)
        try:
            async with limit:
                await function(self.cell)
            self.passed += 1
            problem = None
        except Exception as error:
            problem = "it did not end in time" if limit.expired() else explain(error)
        if problem is not None:
            self.failed.append((name, function, slow))
            print("FAILED %s: %s" % (name, problem), flush=True)
        elif self.options.verbose:
            print("passed %s (%.1f s)" % (name, time.monotonic() - start), flush=True)

    async def all(self):
        wanted = [c for c in CHECKS if (self.options.slow or not c[2])
                  and re.search(self.options.only, c[0])]
        if not wanted:
            raise SystemExit("no check has such a name")
        # Those that only wait do so beside all others.
        wanted.sort(key=lambda c: not c[2])
        gate = asyncio.Semaphore(self.options.jobs)

        async def gated(name, function, slow):
            async with gate:
                await self.one(name, function, slow)

        await asyncio.gather(*(gated(name, function, slow) for name, function, slow, last in wanted
                               if not last))
        for name, function, slow, last in wanted:
            if last:
                await self.one(name, function, slow)
        if self.options.again:
            again, self.failed = self.failed, []
            for name, function, slow in again:
                print("once more: %s" % name, flush=True)
                passed = self.passed
                await self.one(name, function, slow)
                if self.passed > passed:
                    self.again.append(name)


async def main():
    options = arguments()
    cell = Cell(options.origin, options.token, options.pid, options.dormancy)
    await cell.prepare()
    run = Run(options, cell)
    start = time.monotonic()
    await run.all()
    print("%d passed, %d failed, %d at the second try only in %.0f s" % (
        run.passed, len(run.failed), len(run.again), time.monotonic() - start), flush=True)
    if len(run.again) > AGAIN_MAX:
        print("FAILED: too many passed at the second try only: %s" % ", ".join(run.again))
    return 1 if run.failed or len(run.again) > AGAIN_MAX else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
