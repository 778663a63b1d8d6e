# SPDX-License-Identifier: Apache-2.0
"""The official Python client, through all that it offers; its sessions are in `sdk_sessions`."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from s2_sdk import (S2, AppendInput, BasinConfig, CommandRecord, Compression, Endpoints,
                    EnsureStatus, FencingTokenMismatchError, ReadLimit, ReadUnwrittenError, Record,
                    Retry, S2ServerError, SeqNum, SeqNumMismatchError, StreamConfig, TailOffset,
                    Timeout, Timestamp, Timestamping, TimestampingMode, metered_bytes)

from . import check, same, true


def client(cell, compression=Compression.NONE):
    return S2(cell.token, endpoints=Endpoints(cell.origin, cell.origin), compression=compression,
              retry=Retry(max_attempts=1), timeout=Timeout(request=timedelta(seconds=15)))


@asynccontextmanager
async def new_stream(cell, config=None, compression=Compression.NONE):
    async with client(cell, compression) as s2:
        name = cell.fresh("sdk")
        await s2.basin(cell.basin).create_stream(name, config=config)
        yield s2.basin(cell.basin).stream(name)


async def fails(awaitable, status, code):
    try:
        await awaitable
    except S2ServerError as error:
        same((error.status_code, error.code), (status, code))
        return error
    true(False, "no error where %d %s is due" % (status, code))


def batch(*bodies, **more):
    return AppendInput([Record(b) for b in bodies], **more)


ALL = StreamConfig(
    storage_class="standard", retention_policy=86_400,
    timestamping=Timestamping(TimestampingMode.CLIENT_REQUIRE, True), delete_on_empty_min_age=60)


@check("sdk_01")
async def basins(cell):
    async with client(cell) as s2:
        name = cell.fresh("sdk")
        config = BasinConfig(default_stream_config=ALL, create_stream_on_append=True,
                             create_stream_on_read=True)
        info = await s2.create_basin(name, config=config)
        same((info.name, info.deleted_at), (name, None))
        same(await s2.get_basin_config(name), config)
        await fails(s2.create_basin(name), 409, "resource_already_exists")
        changed = await s2.reconfigure_basin(name, config=BasinConfig(
            default_stream_config=StreamConfig(retention_policy="infinite"),
            create_stream_on_read=False))
        same((changed.create_stream_on_append, changed.create_stream_on_read), (True, False))
        same(changed.default_stream_config.retention_policy, "infinite")
        same(changed.default_stream_config.storage_class, "standard")
        same(changed, await s2.get_basin_config(name))
        ensured = await s2.ensure_basin(name, config=config)
        same((ensured.status, ensured.basin), (EnsureStatus.CONFIG_UPDATED, info))
        ensured = await s2.ensure_basin(name, config=config)
        same(ensured.status, EnsureStatus.CONFIG_UNCHANGED)
        same((await s2.ensure_basin(name)).status, EnsureStatus.CONFIG_UPDATED)
        other = name + "-x"
        same((await s2.ensure_basin(other)).status, EnsureStatus.CREATED)
        page = await s2.list_basins(prefix=name)
        same(([b.name for b in page.items], page.has_more), ([name, other], False))
        page = await s2.list_basins(prefix=name, limit=1)
        same(([b.name for b in page.items], page.has_more), ([name], True))
        page = await s2.list_basins(prefix=name, start_after=name)
        same([b.name for b in page.items], [other])
        same([b async for b in s2.list_all_basins(prefix=name)][0], info)
        await s2.delete_basin(other)
        same([b.name async for b in s2.list_all_basins(prefix=name)], [name], "76")
        found = [b async for b in s2.list_all_basins(prefix=other, include_deleted=True)]
        true(not found or found[0].deleted_at is not None, "deleted_at", found)
        await fails(s2.get_basin_config("never-" + name), 404, "basin_not_found")
        await fails(s2.delete_basin("never-" + name), 404, "basin_not_found")
        await s2.delete_basin("never-" + name, ignore_not_found=True)


@check("sdk_02")
async def streams(cell):
    async with client(cell) as s2:
        basin = s2.basin(await cell.make_basin())
        info = await basin.create_stream("a/1", config=ALL)
        same((info.name, info.deleted_at, info.cipher), ("a/1", None, None))
        same(await basin.get_stream_config("a/1"), ALL)
        await fails(basin.create_stream("a/1"), 409, "resource_already_exists")
        changed = await basin.reconfigure_stream("a/1", config=StreamConfig(
            retention_policy="infinite", delete_on_empty_min_age=0,
            timestamping=Timestamping(uncapped=False)))
        same(changed, StreamConfig("standard", "infinite", Timestamping(
            TimestampingMode.CLIENT_REQUIRE, False), 0))
        ensured = await basin.ensure_stream("a/1", config=ALL)
        same((ensured.status, ensured.stream), (EnsureStatus.CONFIG_UPDATED, info))
        ensured = await basin.ensure_stream("a/1", config=ALL)
        same(ensured.status, EnsureStatus.CONFIG_UNCHANGED)
        same((await basin.ensure_stream("a/2")).status, EnsureStatus.CREATED)
        for name in ("b", "日本 語/ü?#%"):
            await basin.create_stream(name)
        page = await basin.list_streams(prefix="a/")
        same(([s.name for s in page.items], page.has_more), (["a/1", "a/2"], False))
        page = await basin.list_streams(limit=2, start_after="a/1")
        same(([s.name for s in page.items], page.has_more), (["a/2", "b"], True))
        await basin.stream("日本 語/ü?#%").append(batch(b"x"))
        await basin.delete_stream("a/2")
        names = [s.name async for s in basin.list_all_streams()]
        same(names, ["a/1", "b", "日本 語/ü?#%"], "116")
        await fails(basin.delete_stream("none"), 404, "stream_not_found")
        await basin.delete_stream("none", ignore_not_found=True)
        await fails(basin.get_stream_config("none"), 404, "stream_not_found")


@check("sdk_03")
async def appends_and_tails(cell):
    async with new_stream(cell) as stream:
        same((await stream.check_tail()).seq_num, 0)
        ack = await stream.append(AppendInput([
            Record(b"a", [(b"k", b"v"), (b"", b"")][:1], timestamp=1000), Record(b"")]))
        same((ack.start.seq_num, ack.start.timestamp, ack.end.seq_num), (0, 1000, 2))
        same(await stream.check_tail(), ack.tail)
        same((await stream.append(batch(b"c", match_seq_num=2))).start.seq_num, 2)
        try:
            await stream.append(batch(b"x", match_seq_num=0))
            true(False, "a wrong match was accepted")
        except SeqNumMismatchError as error:
            same(error.expected_seq_num, 3)
        await stream.append(AppendInput([CommandRecord.fence("me")]))
        await stream.append(batch(b"y", fencing_token="me"))
        try:
            await stream.append(batch(b"x", fencing_token="you"))
            true(False, "a wrong token was accepted")
        except FencingTokenMismatchError as error:
            same(error.expected_fencing_token, "me")
        await stream.append(AppendInput([CommandRecord.trim(2)], fencing_token="me"))
        found = await stream.read(start=SeqNum(0))
        same([r.seq_num for r in found.records], [2, 3, 4, 5])
        found = await stream.read(start=SeqNum(0), ignore_command_records=True)
        same([r.body for r in found.records], [b"c", b"y"])
        await fails(stream.append(AppendInput([Record(b"", [(b"", b"what")])])), 422, "invalid")


@check("sdk_04")
async def reads(cell):
    async with new_stream(cell) as stream:
        try:
            await stream.read(start=SeqNum(0))
            true(False, "an empty stream was read")
        except ReadUnwrittenError as error:
            same(error.tail.seq_num, 0)
        records = [Record(b"%d" % n * 10, timestamp=100 * n) for n in range(10)]
        await stream.append(AppendInput(records))
        size = metered_bytes(records[:3])

        async def seqs(**query):
            return [r.seq_num for r in (await stream.read(**query)).records]
        same(await seqs(start=SeqNum(7)), [7, 8, 9])
        same(await seqs(start=Timestamp(701)), [8, 9])
        same(await seqs(start=TailOffset(1)), [9])
        same(await seqs(start=SeqNum(0), limit=ReadLimit(count=2)), [0, 1])
        same(await seqs(start=SeqNum(0), limit=ReadLimit(bytes=size)), [0, 1, 2])
        same(await seqs(start=SeqNum(0), limit=ReadLimit(5, size)), [0, 1, 2])
        same(await seqs(start=SeqNum(1), until_timestamp=300), [1, 2])
        same(await seqs(start=SeqNum(99), clamp_to_tail=True, wait=1), [])
        same(await seqs(start=TailOffset(0), wait=1), [])
        for start in (SeqNum(10), SeqNum(99), Timestamp(901)):
            try:
                await stream.read(start=start)
                true(False, "read beyond the tail")
            except ReadUnwrittenError as error:
                same((error.tail.seq_num, error.tail.timestamp), (10, 900))
        await fails(stream.read(start=Timestamp(5), until_timestamp=5), 422, "invalid")
        waiting = asyncio.create_task(stream.read(start=TailOffset(0), wait=20))
        await asyncio.sleep(0.5)
        ack = await stream.append(batch(b"new"))
        found = await waiting
        same(([r.body for r in found.records], found.tail), ([b"new"], ack.tail))


@check("sdk_05")
async def compression(cell):
    for kind in (Compression.GZIP, Compression.ZSTD):
        async with new_stream(cell, ALL, kind) as stream:
            bodies = [b"%d" % n * 3000 for n in range(5)]
            await stream.append(AppendInput([Record(b, timestamp=5) for b in bodies]))
            async with stream.append_session() as session:
                for body in bodies:
                    await session.submit(AppendInput([Record(body, timestamp=6)]))
            found = await stream.read(start=SeqNum(0))
            same([r.body for r in found.records], bodies * 2)
            found = []
            async for part in stream.read_session(start=SeqNum(0), limit=ReadLimit(count=10)):
                found += [r.body for r in part.records]
            same(found, bodies * 2)
        async with client(cell, kind) as s2:
            name = cell.fresh("sdk")
            config = BasinConfig(default_stream_config=ALL)
            same((await s2.ensure_basin(name, config=config)).status, EnsureStatus.CREATED)
            same((await s2.ensure_basin(name)).status, EnsureStatus.CONFIG_UPDATED)
            same((await s2.basin(name).ensure_stream("s")).status, EnsureStatus.CREATED)


@check("sdk_06")
async def streams_made_by_their_first_use(cell):
    name = await cell.make_basin({"create_stream_on_append": True, "create_stream_on_read": True})
    wish = StreamConfig(retention_policy="infinite")
    async with client(cell) as s2:
        basin = s2.basin(name)
        await basin.stream("a").append(batch(b"x", stream_config=wish))
        async with basin.stream("b").append_session(stream_config=wish) as session:
            same((await (await session.submit(batch(b"x")))).start.seq_num, 0)
        async with basin.stream("c").producer(stream_config=wish) as producer:
            same((await (await producer.submit(Record(b"x")))).seq_num, 0)
        try:
            await basin.stream("d").read(start=SeqNum(0), stream_config=wish)
        except ReadUnwrittenError:
            pass
        session = basin.stream("e").read_session(start=SeqNum(0), stream_config=wish)
        async with session:
            same((await asyncio.wait_for(session.caught_up(), 10)).seq_num, 0)
            await asyncio.sleep(0.1)
        for stream in "abcde":
            found = await basin.get_stream_config(stream)
            same(found.retention_policy, "infinite", stream)


@check("sdk_07")
async def what_is_not_built(cell):
    from s2_sdk import AccessTokenScope, AccountMetricSet, Operation
    async with client(cell) as s2:
        scope = AccessTokenScope(ops=[Operation.APPEND])
        for call in (s2.list_access_tokens(), s2.issue_access_token("t", scope=scope),
                     s2.revoke_access_token("t"), s2.list_locations(), s2.get_default_location(),
                     s2.set_default_location("here"),
                     s2.account_metrics(set=AccountMetricSet.ACTIVE_BASINS, start=0, end=1)):
            await fails(call, 501, "not_implemented")


@check("sdk_08")
async def tokens_that_are_not_valid(cell):
    async with S2("nonsense", endpoints=Endpoints(cell.origin, cell.origin)) as s2:
        await fails(s2.list_basins(), 401, "authn")
        await fails(s2.basin(cell.basin).stream("a").check_tail(), 401, "authn")
