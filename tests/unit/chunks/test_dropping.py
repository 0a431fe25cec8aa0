"""What is dropped: at once on the own disk, on others as far as there is room for it, and the sweep has the rest."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.errors import DiskFailed
from edgestore.net import Method
from edgestore.records import CHUNK_MAX_BYTES
from tests.unit.chunks.site import CONFIG, opened, until


async def test_no_more_drops_are_under_way_than_may_be_and_the_own_disk_needs_none(tmp_path: Path) -> None:
    async with opened(tmp_path, 6, config=replace(CONFIG, confirm_ms=10_000, drops_max=4)) as nodes:
        stored = await nodes.write(1, os.urandom(3 * CHUNK_MAX_BYTES))
        assert nodes.held(stored) == [6, 6, 6]
        for faults in nodes.site.faults.values():
            faults.delay_s = 0.05
            faults.asked.clear()
        others = asyncio.all_tasks()
        nodes.store(1).drop(stored)
        assert len(asyncio.all_tasks() - others) == 4
        assert list(nodes.segments[1].chunk_ids()) == []
        await until(lambda: asyncio.all_tasks() <= others)
        asked = [method for faults in nodes.site.faults.values() for method in faults.asked]
        assert asked == [Method.FRAGMENT_DROP] * 4
        assert nodes.store(1).low_water() == stored.chunks[-1].number + 1  # the sweep may have what is left
        assert nodes.sweep() == 3 * 5 - 4


async def test_a_disk_that_fails_keeps_no_drop_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="edgestore.chunks")
    async with opened(tmp_path, 6, config=replace(CONFIG, confirm_ms=10_000)) as nodes:
        stored = await nodes.write(1, os.urandom(2 * CHUNK_MAX_BYTES))

        def write(changes: Sequence[tuple[bytes, bytes | None]]) -> None:
            raise DiskFailed("EIO")

        site, index = nodes.store(1).site, nodes.segments[1]._index
        assert site is not None
        index.write, whole = write, index.write  # type: ignore[method-assign]
        site.drop(stored)
        assert caplog.text.count("fragment-not-dropped node=1 ") == 2
        await until(lambda: nodes.fragments() == 2)
        index.write = whole  # type: ignore[method-assign]
