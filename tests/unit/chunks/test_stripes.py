"""Stripes against a dumb model, and the encoder around the kernel: any k fragments give back every byte."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from edgestore.chunks.compression import Compression
from edgestore.chunks.encoder import ChunkBuilder, Encoded, rebuild, scratch_bytes, slab_bytes
from edgestore.chunks.stripes import Stripes
from edgestore.kernels import page_crcs
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES

SCHEMES = [(1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2), (6, 3)]
SIZES = [1, 63, 64, 65, UNIT_BYTES - 1, UNIT_BYTES, UNIT_BYTES + 1, 3 * UNIT_BYTES + 7, CHUNK_MAX_BYTES]


def dumb_fragments(data: bytes, k: int) -> list[bytes]:
    """The data fragments, a stripe at a time."""
    fragments = [b""] * k
    if k == 1:
        return [data]
    while data:
        stripe, data = data[: k * UNIT_BYTES], data[k * UNIT_BYTES :]
        width = -(-len(stripe) // k)
        width = -(-width // 64) * 64
        for shard in range(k):
            fragments[shard] += stripe[shard * width : (shard + 1) * width].ljust(width, b"\0")
    return fragments


def encoded(data: bytes, k: int, m: int, room: int = 0) -> Encoded:
    """The chunk as the upload makes it."""
    room = room or len(data)
    builder = ChunkBuilder(memoryview(bytearray(slab_bytes(k, m, room))), k, m, room, Compression(1, 0.1))
    for at in range(0, len(data), UNIT_BYTES):
        builder.add(memoryview(data)[at : at + UNIT_BYTES])
    return builder.finish()


@pytest.mark.parametrize(("k", "m"), SCHEMES)
@pytest.mark.parametrize("size", SIZES)
def test_fragments_are_what_the_dumb_model_says(k: int, m: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    chunk = encoded(data, k, m, CHUNK_MAX_BYTES if size % 2 else 0)
    wanted = dumb_fragments(data, k)
    assert [bytes(chunk.fragment(shard)) for shard in range(k)] == wanted
    assert Stripes(k, size).fragment_bytes == len(wanted[0])
    for shard in range(k + m):
        assert page_crcs(chunk.fragment(shard)) == chunk.page_crcs(shard)


def test_every_range_is_found_in_the_fragments() -> None:
    chance = random.Random(7)
    for _ in range(300):
        k, size = chance.randint(1, 8), chance.choice([chance.randint(1, CHUNK_MAX_BYTES), chance.choice(SIZES)])
        data = chance.randbytes(size)
        fragments = dumb_fragments(data, k)
        start = chance.randrange(size)
        stop = chance.randint(start, size)
        at, found = start, b""
        for piece in Stripes(k, size).pieces(start, stop):
            assert piece.at == at
            found += fragments[piece.shard][piece.start : piece.stop]
            at += piece.stop - piece.start
        assert found == data[start:stop]


def test_a_unit_that_lies_plain_is_one_piece_of_one_fragment() -> None:
    stripes = Stripes(4, CHUNK_MAX_BYTES)
    for unit in range(16):
        assert len(stripes.pieces(unit * UNIT_BYTES, (unit + 1) * UNIT_BYTES)) == 1


@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2)])
def test_any_k_fragments_give_the_others(k: int, m: int) -> None:
    data = random.Random(k).randbytes(2 * UNIT_BYTES + 12_345) + b"edge " * 70_000
    chunk = encoded(data, k, m)
    for there in combinations(range(k + m), k):
        missing = [shard for shard in range(k + m) if shard not in there]
        length = len(chunk.fragment(0))
        rows = [memoryview(bytearray(length)) for _ in missing]
        scratch = memoryview(bytearray(scratch_bytes(k + m, length)))
        crcs = rebuild(k, m, {shard: chunk.fragment(shard) for shard in there}, missing, rows, scratch)
        assert [bytes(row) for row in rows] == [bytes(chunk.fragment(shard)) for shard in missing]
        assert crcs == b"".join(chunk.page_crcs(shard) for shard in missing)


def test_a_striped_chunk_as_copies_is_its_stored_bytes() -> None:
    data = random.Random(3).randbytes(5 * UNIT_BYTES + 99)
    copies = encoded(data, 4, 2).as_copies(1)
    assert (copies.k, copies.m, bytes(copies.fragment(1))) == (1, 1, data)
    assert page_crcs(data) == copies.page_crcs(1)
