"""Reads that race: who is found slow is not waited for by the reads that have asked it already."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

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
