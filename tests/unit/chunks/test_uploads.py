"""Uploads to several nodes that end early: whatever fails, no memory stays taken and no number stays open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgestore.chunks import Digests, IteratorBody
from edgestore.errors import BadDigest, EdgeStoreError
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
