# SPDX-License-Identifier: Apache-2.0
"""H: frames, whole and broken."""

import gzip

import zstandard

from . import check, same, true
from .cell import unpack
from .wire import Batch, append_input, frame, record

ZSTD, GZIP = 0x20, 0x40


def zstd(data):
    return zstandard.ZstdCompressor().compress(data)


@check(225)
async def frames_in_any_pieces(cell):
    stream = await cell.make_stream()
    data = b"".join(frame(append_input([(b"body %d" % n, [(b"k", b"v")])])) for n in range(4))
    session = await stream.append_session()
    for byte in data:
        await session.raw(bytes([byte]))
    await session.raw(data)
    for cut in range(1, len(data), 7):
        await session.raw(data[:cut])
        await session.raw(data[cut:])
    rounds = 2 + len(range(1, len(data), 7))
    for n in range(4 * rounds):
        same((await session.ack()).start[0], n)
    await session.end()
    same(await session.next(), None)
    bodies = (await stream.read("seq_num=0&count=1000")).bodies
    same(bodies, [b"body %d" % (n % 4) for n in range(4 * rounds)])


async def broken(cell, data, what, ends=False):
    """`data`, behind one good input, must end the session as a bad frame does."""
    stream = await cell.make_stream()
    session = await stream.append_session()
    await session.send([(b"good",)])
    await session.raw(data)
    if ends:
        await session.end()
    same((await session.ack()).start[0], 0, what)
    try:
        status, body = await session.failure()
    except ConnectionError as lost:
        true(False, what, lost)
    same((status, body.get("code")), (400, "bad_frame"), what)
    same((await stream.tail())[0], 1, what)
    session.close()


@check(226)
async def lengths_out_of_bounds(cell):
    await broken(cell, b"\0\0\0", "length 0")
    await broken(cell, b"\0\0\0\0abc", "length 0, and more")
    await broken(cell, (2_097_153).to_bytes(3, "big"), "2,097,153, as soon as it is there")
    await broken(cell, b"\xff\xff\xff\0", "the largest")


@check(227)
async def frames_that_are_broken(cell):
    good = append_input([(b"x" * 2000,)])
    for data, what in (
            (frame(good, 0x60), "an unknown compression"),
            (frame(b"\x01\x90{}", 0x80), "a terminal frame"),
            (frame(good, 0x80), "a terminal frame with an input"),
            (frame(b"\xff"), "no protobuf"), (frame(good[:-1]), "truncated protobuf"),
            (frame(good, GZIP), "no gzip"), (frame(good, ZSTD), "no zstd"),
            (frame(gzip.compress(good)[:-9], GZIP), "truncated gzip"),
            (frame(zstd(good)[:-3], ZSTD), "truncated zstd"),
            (frame(b"", ZSTD), "no zstd at all"), (frame(b"", GZIP), "no gzip at all"),
            (frame(gzip.compress(b"\xff\xff"), GZIP), "no protobuf in gzip")):
        await broken(cell, data, what)
    for data, what in ((b"\0", "a length cut off"), (frame(good)[:-1], "a frame cut off"),
                       (frame(good)[:3], "nothing behind a length")):
        await broken(cell, data, what, ends=True)


@check(228)
async def decompression_bombs(cell):
    for size in (2_097_152, 64 << 20):
        bomb = append_input([(bytes(size),)])
        for flags, compress in ((GZIP, gzip.compress), (ZSTD, zstd)):
            await broken(cell, frame(compress(bomb), flags), "%d bytes" % size)


@check(229)
async def compressed_frames(cell):
    stream = await cell.make_stream()
    session = await stream.append_session()
    bodies = [b"%d" % n * 1500 for n in range(6)]
    data = [append_input([(b,)]) for b in bodies]
    await session.raw(frame(gzip.compress(data[0]), GZIP) + frame(zstd(data[1]), ZSTD))
    await session.raw(frame(data[2]) + frame(zstd(data[3]), ZSTD | 0x0F))
    await session.raw(frame(gzip.compress(append_input([(b"tiny",)])), GZIP))
    streaming = zstandard.ZstdCompressor().compressobj()
    await session.raw(frame(streaming.compress(data[5]) + streaming.flush(), ZSTD))
    for n in range(6):
        same((await session.ack()).start[0], n)
    wanted = bodies[:4] + [b"tiny", bodies[5]]
    for offer in ("gzip", "zstd", "gzip, zstd", "identity", "br"):
        reader = await stream.read_session("seq_num=0&count=6", {"accept-encoding": offer})
        found = []
        while (one := await reader.next()) is not None:
            flags, payload = one
            coding = flags >> 5 & 3
            true(coding == 0 or ("zstd" if coding == 1 else "gzip") in offer,
                 "230: not offered", flags)
            message = unpack(flags, payload)
            true(coding == 0 or len(message) >= 1024, "230: too small", len(message))
            same(flags & 0x8F, 0, "flags")
            found += Batch(message).bodies
        same(found, wanted, offer)
    session.close()


@check("225b")
async def the_documents_examples(cell):
    stream = await cell.make_stream({"timestamping": {"uncapped": True}})
    session = await stream.append_session()
    await session.raw(bytes.fromhex("00000A00 0A071A0568656C6C6F"))
    await session.raw(bytes.fromhex(
        "00001E40 1F8B08000000000002 03E3629762CD48CDC9C90700 8194B31A09000000"))
    await session.raw(bytes.fromhex("00001320 28B52FFD200949 0000 0A071A0568656C6C6F"))
    for n in range(3):
        same((await session.ack()).start[0], n)
    same((await stream.read("seq_num=0")).bodies, [b"hello"] * 3)
    session.close()
    stream = await cell.make_stream({"timestamping": {"mode": "client-require"}})
    session = await stream.append_session()
    at = 1_700_000_000_000
    await session.raw(frame(append_input([record(b"a", timestamp=at), record(b"b", timestamp=at)])))
    flags, payload = await session.next()
    same((flags, payload.hex()),
         (0, "0a071080d095ffbc31" "1209080210" "80d095ffbc31" "1a09080210" "80d095ffbc31"))
    await session.raw(frame(append_input([record(b"", timestamp=at)], match=0)))
    flags, payload = await session.next()
    same((flags, payload), (0x80, b'\x01\x9c{"seq_num_mismatch":2}'))
    same(await session.next(), None)
    empty = await cell.make_stream()
    reader = await empty.read_session("seq_num=0")
    same(await reader.next(), (0, b"\x12\0"), "a heartbeat of an empty stream")
    reader.close()


@check("226b")
async def the_largest_frame(cell):
    """A frame may hold more than a batch may: that is a matter of the batch."""
    stream = await cell.make_stream()
    session = await stream.append_session()
    await session.raw(frame(append_input([(b"x" * 2_000_000,)])))
    status, body = await session.failure()
    same((status, body["code"]), (422, "invalid"))
    session = await stream.append_session()
    await session.send([(b"x" * ((1 << 20) - 8),)])
    same((await session.ack()).end[0], 1)
    session.close()
