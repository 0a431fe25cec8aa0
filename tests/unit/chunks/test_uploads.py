"""Uploads to several nodes that end early: whatever fails, no memory stays taken and no number stays open."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgestore.chunks import Digests, IteratorBody
from edgestore.errors import (
    AlreadyApplied,
    BadDigest,
    DiskFailed,
    EdgeStoreError,
    StaleChunk,
    StaleFragments,
    Unavailable,
    is_refusal,
)
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES, NodeState
from tests.unit.chunks.site import opened, until


async def test_a_body_refused_behind_its_last_chunk_keeps_no_slab(tmp_path: Path) -> None:
    """As by a checksum in its trailer: the chunk is about to go out, and its task never takes a step."""
    async with opened(tmp_path, 4) as nodes:
        store = nodes.store(1)

        async def pieces() -> AsyncIterator[bytes]:
            yield os.urandom(2 * UNIT_BYTES)
            raise BadDigest("the trailer says otherwise")

        for _ in range(3):
            with pytest.raises(BadDigest):
                await store.write(IteratorBody(store.pool, pieces(), 2 * UNIT_BYTES), Digests())
        await until(nodes.memory_is_free)


async def test_a_mend_that_fails_half_way_leaves_no_number_open(tmp_path: Path) -> None:
    """The first chunk was written again under a new number before the second could not be read."""
    async with opened(tmp_path, 3) as nodes:
        stored = await nodes.write(1, os.urandom(2 * CHUNK_MAX_BYTES))
        store = nodes.store(1)
        nodes.site.faults[3].is_dead = True
        nodes.site.change(3, NodeState.DOWN)
        chunk_id = stored.chunks[1].chunk_id
        for number in (1, 2):
            for shard in nodes.segments[number].shards(chunk_id):
                nodes.segments[number].delete(chunk_id, shard)
        with pytest.raises(EdgeStoreError):
            await store.mend(stored, None)
        store.drop(stored)
        assert store.low_water() > stored.chunks[-1].number + 1
        await until(lambda: not list(nodes.segments[1].chunk_ids()))


def test_what_may_have_happened_is_no_refusal() -> None:
    for error in (StaleFragments(), StaleChunk(), BadDigest()):
        assert is_refusal(error)
    for error in (AlreadyApplied(), Unavailable(), DiskFailed()):
        assert not is_refusal(error)
