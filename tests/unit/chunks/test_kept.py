"""A fragment that a shelf says to keep is on the platter, whatever became of its node before."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from edgestore.chunks.facts import Facts
from edgestore.chunks.shelf import SMALL_BYTES, LocalShelf
from edgestore.config import DiskConfig
from edgestore.disk import FragmentUnit, Segments
from edgestore.errors import Corrupt, DiskFailed, NotFound
from edgestore.kernels import Buffers, page_crcs
from tests.sim.disk import Disk, SimFiles
from tests.sim.index import SimIndex
from tests.sim.loop import SimLoop

CHUNK_ID = bytes(16)
CONFIG = DiskConfig(segment_bytes=4 << 20, reserve_bytes=0)


def live(disk: Disk, work: Callable[[LocalShelf], Awaitable[bool]]) -> bool:
    """One life of a node, which ends without a word."""
    loop = SimLoop()

    async def main() -> bool:
        files = SimFiles(disk, loop)
        index = SimIndex.open(files, "index")
        segments = await Segments.open(files, "segments", index, CONFIG, entropy=disk.rng.randbytes)
        return await work(LocalShelf(segments, files.worker("intake"), Buffers(1 << 20)))

    try:
        return loop.run(main())
    finally:
        loop.abandon()


def facts_and_bytes(size: int) -> tuple[Facts, bytes]:
    data = random.Random(size).randbytes(size)
    return Facts(CHUNK_ID, 1, 1, 0, size, (FragmentUnit(size, size),), page_crcs(data)), data


@pytest.mark.parametrize("size", [3000, SMALL_BYTES + 70_000])
@pytest.mark.parametrize("again", ["keeps", "put"])
@pytest.mark.parametrize("seed", range(24))
def test_what_a_failed_sync_or_a_crash_left_is_not_taken_for_kept(seed: int, again: str, size: int) -> None:
    disk = Disk(random.Random(seed))
    facts, data = facts_and_bytes(size)

    async def put(shelf: LocalShelf) -> bool:
        await shelf.put(facts, data)
        return True

    async def ask(shelf: LocalShelf) -> bool:
        return await put(shelf) if again == "put" else await shelf.keeps(CHUNK_ID, 1, 1, 0)

    async def read(shelf: LocalShelf) -> bool:
        _, _, found = await shelf.read(CHUNK_ID, 0, 0, size)
        return bytes(found) == data

    disk.sync_fails = lambda path: path.endswith(".segment")
    with pytest.raises(DiskFailed):
        live(disk, put)
    disk.sync_fails = lambda path: False
    (disk.lose_power if seed % 3 == 0 else disk.lose_process)()
    is_kept = live(disk, ask)
    disk.lose_power()
    is_there = False
    with suppress(NotFound, Corrupt):
        is_there = live(disk, read)
    assert is_there or not is_kept


@pytest.mark.parametrize("seed", range(8))
def test_what_was_synced_is_kept_after_a_crash(seed: int) -> None:
    disk = Disk(random.Random(seed))
    facts, data = facts_and_bytes(SMALL_BYTES + 1)

    async def put(shelf: LocalShelf) -> bool:
        await shelf.put(facts, data)
        return True

    assert live(disk, put)
    disk.lose_power()
    assert live(disk, lambda shelf: shelf.keeps(CHUNK_ID, 1, 1, 0))
