"""Reads that race: who is found slow is not waited for by reads that have asked it already, and who could not answer is
asked once more before anybody is told that too few answer."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.errors import Unavailable
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES
from tests.unit.chunks.site import CONFIG, opened


@pytest.mark.parametrize("is_told", [True, False])
async def test_reads_under_way_leave_a_node_that_hangs(tmp_path: Path, is_told: bool) -> None:
    """There are hedges for some of them only; the detector suspects the node, or the first of them find it slow."""
    data = os.urandom(CHUNK_MAX_BYTES)
    share = 0.0 if is_told else CONFIG.hedge_share
    config = replace(CONFIG, confirm_ms=10_000, fragment_timeout_s=20.0, hedge_share=share)
    async with opened(tmp_path, 6, config=config) as nodes:
        stored = await nodes.write(1, data)
        hangs = next(node for node in stored.placed[0].holders[:4] if node != 1)
        shard = stored.placed[0].holders.index(hangs)
        assert await nodes.read(1, stored) == data
        nodes.site.faults[hangs].is_dead = True
        offset = shard * UNIT_BYTES
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            reads = [group.create_task(nodes.read(1, stored, offset, 1000)) for _ in range(40)]
            await asyncio.sleep(0.5)
            if is_told:
                nodes.site.suspected.add(hangs)
        assert all(read.result() == data[offset : offset + 1000] for read in reads)


@pytest.mark.parametrize("size_bytes", [CHUNK_MAX_BYTES, 10_000], ids=["encoded", "copies"])
async def test_who_could_not_answer_is_asked_again_before_the_read_fails(tmp_path: Path, size_bytes: int) -> None:
    """A node that has just started refuses while the others that hold the chunk are gone."""
    data = os.urandom(size_bytes)
    config = replace(CONFIG, fragment_timeout_s=1.0)
    async with opened(tmp_path, 5, config=config) as nodes:
        stored = await nodes.write(1, data)
        placed = stored.placed[0]
        others = [node for node in placed.holders if node != 1]
        needed = placed.scheme.k - (1 in placed.holders)
        for node in others[needed:]:
            nodes.site.faults[node].is_dead = True
        for node in others[:needed]:
            nodes.site.faults[node].refuses = 1
        assert await nodes.read(1, stored) == data


async def test_who_refuses_twice_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with opened(tmp_path, 3, config=replace(CONFIG, fragment_timeout_s=0.5)) as nodes:
        stored = await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))
        for faults in nodes.site.faults.values():
            faults.refuses = 1000
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable, match="too few nodes with fragments"):
                await nodes.read(1, stored)
        assert 1000 - nodes.site.faults[2].refuses < 20
