# SPDX-License-Identifier: Apache-2.0
"""H: append sessions."""

import asyncio
import time

from . import check, same, true
from .cell import error
from .wire import append_input, fence, frame, record, trim


async def opened(cell, config=None):
    stream = await cell.make_stream(config)
    return stream, await stream.append_session()


@check(231)
async def all_acks_then_a_clean_end(cell):
    stream, session = await opened(cell)
    sizes = [1, 3, 10, 1, 7]
    for size in sizes:
        await session.send([(b"x",)] * size)
    await session.end()
    seq = 0
    for size in sizes:
        ack = await session.ack()
        same((ack.start[0], ack.end[0]), (seq, seq + size), "232")
        true(ack.tail[0] >= ack.end[0], "232: a tail before its end", ack)
        seq += size
    same(await session.next(), None, "239")


@check(233)
async def batches_are_read_back_in_order(cell):
    stream, session = await opened(cell)
    for n in range(50):
        await session.send([(b"%d/%d" % (n, k),) for k in range(n % 4 + 1)])
    for _ in range(50):
        await session.ack()
    found = (await stream.read("seq_num=0")).bodies
    same(found, [b"%d/%d" % (n, k) for n in range(50) for k in range(n % 4 + 1)])
    session.close()


@check(235)
async def a_failure_comes_behind_the_acks(cell):
    for bad, status, body in (
            (append_input([(b"x",)], match=99), 412, {"seq_num_mismatch": 4}),
            (append_input([(b"x",)], token="no"), 412, {"fencing_token_mismatch": ""}),
            (append_input([(b"x",)] * 1001), 422, None),
            (append_input([]), 422, None),
            (append_input([record(b"", [(b"", b"bad")])]), 422, None),
            (append_input([(b"x",)], token="t" * 37), 422, None)):
        stream, session = await opened(cell)
        data = b"".join(frame(append_input([(b"%d" % n,)])) for n in range(4))
        data += frame(bad) + frame(append_input([(b"later",)])) * 3
        await session.raw(data)
        for n in range(4):
            same((await session.ack()).start[0], n, str(status))
        found = await session.failure()
        if body is None:
            same((found[0], found[1]["code"]), (status, "invalid"), "243")
        else:
            same(found, (status, body))
        same((await stream.tail())[0], 4, "237: later inputs")
        session.close()


@check(236)
async def fencing_in_a_session(cell):
    stream, session = await opened(cell)
    await session.send([fence("t")])
    await session.send([(b"a",)], token="t")
    await session.send([fence("u")], token="t")
    await session.send([(b"b",), trim(1)], token="u")
    for n in (0, 1, 2, 3):
        same((await session.ack()).start[0], n)
    other = await stream.append_session()
    await other.send([(b"c",)])
    same((await other.ack()).start[0], 5, "no token at all")
    await session.send([(b"x",)], token="t")
    same(await session.failure(), (412, {"fencing_token_mismatch": "u"}))
    await other.send([(b"d",)], token="u")
    same((await other.ack()).start[0], 6, "other sessions go on")


@check(238)
async def sessions_that_are_refused(cell):
    for basin, code in ((cell.basin, "stream_not_found"), ("no-such-basin", "basin_not_found")):
        from .cell import Stream
        session = await Stream(cell, basin, "none").append_session()
        error(await session.begin(), 404, code, "249")


@check(240)
async def a_session_without_input(cell):
    stream, session = await opened(cell)
    await session.end()
    same((await session.begin()).status, 200)
    same(await session.next(), None)
    same(await stream.tail(), (0, 0))


@check(242)
async def chains_of_conditions(cell):
    stream, session = await opened(cell)
    data = b"".join(frame(append_input([(b"%d" % n,)], match=n)) for n in range(100))
    await session.raw(data)
    for n in range(100):
        same((await session.ack()).start[0], n)
    await session.send([(b"x",)], match=99)
    same(await session.failure(), (412, {"seq_num_mismatch": 100}))


@check(244)
async def many_large_records(cell):
    stream, session = await opened(cell)
    body = b"z" * 131_072

    async def send():
        for n in range(192):
            await session.send([(body,)], match=n)
        await session.end()
    task = asyncio.create_task(send())
    for n in range(192):
        same((await session.ack()).start[0], n)
    await task
    same(await session.next(), None)
    reader = await stream.read_session("seq_num=0&count=192")
    seqs = [s for b in await reader.until_end() for s in b.seqs]
    same(seqs, list(range(192)))


@check(245)
async def full_batches_back_to_back(cell):
    stream, session = await opened(cell)
    await session.begin()
    data = frame(append_input([(b"y" * ((1 << 20) - 8),)]))

    async def send():
        for _ in range(24):
            await session.raw(data)
        await session.end()
    task = asyncio.create_task(send())
    start = time.monotonic()
    for n in range(24):
        same((await session.ack(30)).start[0], n)
        took, start = time.monotonic() - start, time.monotonic()
        true(took < 5, "247: between two acks", took)
    await task


@check(247)
async def acks_are_prompt(cell):
    stream, session = await opened(cell)
    for n in range(20):
        start = time.monotonic()
        await session.send([(b"x",)])
        await session.ack()
        true(time.monotonic() - start < 4, "an ack", time.monotonic() - start)


@check("236b")
async def many_sessions_share_a_stream(cell):
    stream = await cell.make_stream()

    async def write(number):
        session = await stream.append_session()
        starts = []
        for n in range(20):
            await session.send([(b"%d.%d" % (number, n),)] * 2)
        for n in range(20):
            starts.append((await session.ack()).start[0])
        await session.end()
        same(await session.next(), None)
        same(starts, sorted(starts))
        return starts
    starts = [s for one in await asyncio.gather(*(write(n) for n in range(8))) for s in one]
    same(sorted(starts), list(range(0, 320, 2)))
    bodies = (await stream.read("seq_num=0")).bodies
    for number in range(8):
        mine = [b for b in bodies if b.startswith(b"%d." % number)]
        same(mine, [b"%d.%d" % (number, n // 2) for n in range(40)])


@check("239b")
async def a_client_that_drops_its_connection(cell):
    """What was received may be applied, in order and without a hole."""
    stream, session = await opened(cell)
    for n in range(30):
        await session.send([(b"%d" % n,)], match=n)
    same((await session.ack()).start[0], 0)
    session.vanish()
    await stream.append([(b"end",)])
    bodies = (await stream.read("seq_num=0")).bodies
    kept = [b for b in bodies if b != b"end"]
    same(kept, [b"%d" % n for n in range(len(kept))])


@check("222b")
async def a_stream_is_deleted_under_its_writer(cell):
    stream, session = await opened(cell)
    await session.send([(b"a",)])
    await session.ack()
    same((await stream.call("DELETE")).status, 202)
    await session.send([(b"b",)])
    status, body = await session.failure()
    same((status, body["code"]), (409, "stream_deletion_pending"))


@check(241, slow="dormancy")
async def a_session_outlives_dormancy(cell):
    stream, session = await opened(cell)
    await session.send([(b"a",)])
    await session.ack()
    await asyncio.sleep(2.5 * cell.dormancy)
    await session.send([(b"b",)], match=1)
    same((await session.ack()).start[0], 1)
    session.close()
