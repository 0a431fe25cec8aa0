"""The own disk as a shelf: nothing that comes in costs a good fragment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgestore.chunks.facts import Facts
from edgestore.chunks.shelf import LocalShelf
from edgestore.errors import BadDigest, Conflict, StorageFull
from edgestore.kernels import page_crcs
from edgestore.records import CHUNK_MAX_BYTES
from tests.unit.chunks.site import Nodes, opened


async def one_fragment(nodes: Nodes, size: int) -> tuple[LocalShelf, Facts, bytes]:
    """A fragment where it lies, what its block says, and its bytes."""
    stored = await nodes.write(1, os.urandom(size))
    placed = stored.placed[0]
    site = nodes.store(placed.holders[0]).site
    assert site is not None
    facts, _, data = await site.local.read(placed.chunk.chunk_id, 0, 0, CHUNK_MAX_BYTES)
    return site.local, facts, bytes(data)


async def is_there(local: LocalShelf, facts: Facts, data: bytes) -> bool:
    return (await local.read(facts.chunk_id, facts.shard, 0, CHUNK_MAX_BYTES))[::2] == (facts, data)


@pytest.mark.parametrize("size", [20_000, CHUNK_MAX_BYTES])
async def test_a_put_that_does_not_check_out_costs_no_good_fragment(tmp_path: Path, size: int) -> None:
    async with opened(tmp_path, 4) as nodes:
        local, facts, data = await one_fragment(nodes, size)
        with pytest.raises((BadDigest, Conflict)):
            await local.put(replace(facts, page_crcs=bytes(len(facts.page_crcs))), data)
        assert await is_there(local, facts, data)


async def test_a_whole_fragment_of_the_same_name_stays(tmp_path: Path) -> None:
    async with opened(tmp_path, 4) as nodes:
        local, facts, data = await one_fragment(nodes, 20_000)
        other = os.urandom(len(data))
        with pytest.raises(Conflict):
            await local.put(replace(facts, page_crcs=page_crcs(other)), other)
        assert await is_there(local, facts, data)


@pytest.mark.parametrize("size", [20_000, CHUNK_MAX_BYTES])
async def test_a_damaged_one_is_there_until_the_new_one_is_written(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, 4) as nodes:
        local, facts, data = await one_fragment(nodes, size)
        segments = next(one for one in nodes.segments.values() if one.lookup(facts.chunk_id, facts.shard))
        segments.mark_damaged(facts.chunk_id, facts.shard, "a test says so")
        with pytest.raises(BadDigest):
            await local.put(facts, bytes(len(data)))
        with monkeypatch.context() as full:
            full.setattr(segments, "_files", Full())
            full.setattr(segments, "_free_checked_s", -1.0)
            with pytest.raises(StorageFull):
                await local.put(facts, data)
        assert await is_there(local, facts, data)
        assert segments.is_damaged(facts.chunk_id, facts.shard)
        segments._free_checked_s = -1.0
        await local.put(facts, data)
        assert not segments.is_damaged(facts.chunk_id, facts.shard)
        assert await is_there(local, facts, data)


class Full:
    """A disk without room."""

    def free_bytes(self) -> int:
        return -1


@pytest.mark.parametrize("size", [20_000, 300_000])
async def test_a_put_that_no_sync_has_room_for_leaves_nothing(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, 4) as nodes:
        local, facts, data = await one_fragment(nodes, size)
        segments = next(one for one in nodes.segments.values() if one.lookup(facts.chunk_id, facts.shard))
        with monkeypatch.context() as full:
            full.setattr(segments, "sync", lambda done: done(StorageFull("no space left")))
            with pytest.raises(StorageFull):
                await local.put(facts, data)
            assert await is_there(local, facts, data), "it was there before"
            await local.drop(facts.chunk_id)
            with pytest.raises(StorageFull):
                await local.put(facts, data)
            assert segments.lookup(facts.chunk_id, facts.shard) is None
        await local.put(facts, data)
        assert await is_there(local, facts, data)
