"""Bodies come as units, all full but the last, whatever the pieces are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgestore.chunks import Body, IteratorBody, UnitPool, bytes_body
from edgestore.errors import IncompleteBody
from edgestore.records import UNIT_BYTES


def pool() -> UnitPool:
    return UnitPool(8 * UNIT_BYTES)


async def units_of(body: Body) -> list[bytes]:
    found = []
    while (unit := await body.next_unit()) is not None:
        found.append(bytes(unit.view))
        unit.release()
    assert await body.next_unit() is None
    return found


async def pieces_of(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2 * UNIT_BYTES), max_size=6))
def test_any_pieces_make_full_units_but_the_last(sizes: list[int]) -> None:
    pieces = [bytes((number + 1,)) * size for number, size in enumerate(sizes)]
    units = pool()
    found = asyncio.run(units_of(IteratorBody(units, pieces_of(pieces), sum(sizes))))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(unit) == UNIT_BYTES for unit in found[:-1])
    assert all(found)
    assert units.taken_bytes == 0


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), b""])
def test_anything_that_is_bytes_is_a_body(data: bytes) -> None:
    body = bytes_body(pool(), data)
    assert body.size_bytes == len(data)
    assert b"".join(asyncio.run(units_of(body))) == bytes(data)


@pytest.mark.parametrize("announced", [9, 11])
def test_a_body_of_another_length_than_announced_is_refused(announced: int) -> None:
    units = pool()
    with pytest.raises(IncompleteBody):
        asyncio.run(units_of(IteratorBody(units, pieces_of([b"x" * 10]), announced)))
    assert units.taken_bytes == 0


def test_a_source_that_fails_keeps_no_unit() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ConnectionError("gone")

    units = pool()
    with pytest.raises(ConnectionError):
        asyncio.run(units_of(IteratorBody(units, pieces(), None)))
    assert units.taken_bytes == 0
