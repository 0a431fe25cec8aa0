"""Whole fragments, piece by piece."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgestore.chunks import Source
from edgestore.chunks.facts import facts_of
from edgestore.chunks.gather import Gather
from edgestore.chunks.pieces import AT_ONCE, Pace, brought, made
from edgestore.errors import NotFound, Unavailable
from edgestore.net import Method
from edgestore.records import CHUNK_MAX_BYTES, PAGE_BYTES
from tests.unit.chunks.site import Nodes, opened

K, COUNT = 4, 6


@dataclass
class Spread:
    """One chunk of 4+2 on six nodes, and who gathers it."""

    nodes: Nodes
    source: Source
    holders: tuple[int, ...]
    gather: Gather

    def on_disk(self, shard: int) -> tuple[object, bytes]:
        segments = self.nodes.segments[self.holders[shard]]
        info = segments.lookup(self.source.chunk.chunk_id, shard)
        assert info is not None
        data = segments.read_cached(info, 0, info.fragment.stored_bytes)
        assert data is not None
        return facts_of(info), bytes(data)


@asynccontextmanager
async def spread(folder: Path) -> AsyncIterator[Spread]:
    async with opened(folder, COUNT) as nodes:
        placed = (await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))).placed[0]
        site = nodes.store(1).site
        assert site is not None
        yield Spread(nodes, placed.source(), placed.holders, site.gather)
        assert not site.gather.budget.taken_bytes


@pytest.mark.parametrize("piece_bytes", [PAGE_BYTES, 3 * PAGE_BYTES, CHUNK_MAX_BYTES])
async def test_a_fragment_is_the_same_whatever_its_pieces_and_each_is_paid_for(
    tmp_path: Path, piece_bytes: int
) -> None:
    async with spread(tmp_path) as one:
        for shard in range(COUNT):
            paid: list[int] = []

            async def pay(count: int, paid: list[int] = paid) -> None:
                paid.append(count)

            facts, data = await brought(one.gather, one.source, shard, Pace(piece_bytes, pay))
            assert (facts, bytes(data)) == one.on_disk(shard)
            assert (sum(paid), max(paid)) == (len(data), min(piece_bytes, len(data)))
            paid.clear()
            facts, data = await made(one.gather, one.source, shard, Pace(piece_bytes, pay))
            assert (facts, bytes(data)) == one.on_disk(shard)
            assert (sum(paid), max(paid)) == (K * len(data), K * min(piece_bytes, len(data)))


async def test_who_fails_at_one_piece_is_done_without_and_asked_last_from_then_on(tmp_path: Path) -> None:
    async with spread(tmp_path) as one:
        bad = one.nodes.site.faults[one.holders[1]]
        turns = 0

        async def pay(count: int) -> None:
            nonlocal turns
            turns += 1
            bad.damage = turns >= 3

        facts, data = await made(one.gather, one.source, 5, Pace(4 * PAGE_BYTES, pay))
        assert (facts, bytes(data)) == one.on_disk(5)
        assert bad.asked.count(Method.FRAGMENT_READ) == 3
        assert turns == 4


async def test_a_copy_of_a_whole_chunk_comes_by_pieces_that_do_not_divide_it(tmp_path: Path) -> None:
    async with opened(tmp_path, 2) as nodes:
        data = os.urandom(CHUNK_MAX_BYTES)
        source = (await nodes.write(1, data)).placed[0].source()
        site = nodes.store(1).site
        assert site is not None
        for shard in range(2):
            for found in (
                await brought(site.gather, source, shard, Pace(3 * PAGE_BYTES), [2, 1]),
                await made(site.gather, source, shard, Pace(3 * PAGE_BYTES)),
            ):
                assert bytes(found[1]) == data


async def test_nothing_is_paid_for_where_nobody_is_at_hand(tmp_path: Path) -> None:
    async def pay(count: int) -> None:
        raise AssertionError(count)

    async with spread(tmp_path) as one:
        with pytest.raises(NotFound):
            await brought(one.gather, one.source, 1, Pace(PAGE_BYTES, pay), [])


async def test_too_few_others_make_nothing(tmp_path: Path) -> None:
    async with spread(tmp_path) as one:
        for shard in (1, 2, 3):
            one.nodes.site.faults[one.holders[shard]].denies = True
        with pytest.raises(Unavailable, match="too few nodes"):
            await made(one.gather, one.source, 5, AT_ONCE)
