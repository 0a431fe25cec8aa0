"""How a node goes on with others that hang, are shut out or lie, and what it tells of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgestore.chunks.facts import Source
from edgestore.chunks.race import worst
from edgestore.chunks.site import Manners
from edgestore.disk.system_files import SystemFile
from edgestore.errors import Corrupt, Denied, DiskFailed, NotFound, Unavailable
from edgestore.net import Outcome, Work
from edgestore.records import CHUNK_MAX_BYTES, ChunkRef, NodeState
from tests.unit.chunks.site import CONFIG, opened
from tests.unit.chunks.test_site import mixed


async def test_a_node_that_hangs_is_not_waited_for_again_and_again(tmp_path: Path) -> None:
    """Without this each MiB of a body would wait for it, and only some of them are raced."""
    data = os.urandom(4 * CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        nodes.site.faults[4].is_dead = True
        begun = asyncio.get_running_loop().time()
        for _ in range(3):
            assert await nodes.read(1, stored) == data
        assert asyncio.get_running_loop().time() - begun < 4


async def test_a_node_that_is_down_keeps_no_reader_of_copies(tmp_path: Path) -> None:
    """In the layout of its death another node seems to hold its copy, has not got it yet, and the dead one would be
    asked next: each reader would wait for that until its request runs out of time."""
    bodies = [mixed(20_000 + number) for number in range(12)]
    async with opened(tmp_path, 3) as nodes:
        stored = [await nodes.put_small(1, body) for body in bodies]
        nodes.site.faults[2].is_dead = True
        nodes.site.suspected.add(2)
        nodes.site.change(2, NodeState.DOWN)
        begun = asyncio.get_running_loop().time()
        for body, one in zip(bodies, stored, strict=True):
            assert await nodes.read(3, one) == body
        assert asyncio.get_running_loop().time() - begun < 1


async def test_a_node_that_is_shut_out_takes_no_data_for_damaged(tmp_path: Path) -> None:
    """It was removed, or its certificate has run out: what it may not ask for is there."""
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, mixed(CHUNK_MAX_BYTES))
        for number in (2, 3, 4, 5, 6):
            nodes.site.faults[number].denies = True
        with pytest.raises(Unavailable):
            await nodes.read(1, stored)


async def test_a_slow_node_whose_bytes_are_bad_too_is_no_reason_to_try_again(tmp_path: Path) -> None:
    """It was left for last, and its answer counts, not that it was not asked at first."""
    data = mixed(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        site_store = nodes.site.stores[1].site
        assert site_store is not None
        for number in (2, 3, 4, 5, 6):
            nodes.site.faults[number].damage = True
            for _ in range(2):
                site_store.manners.overtaken(number)
        with pytest.raises(Corrupt):
            await nodes.read(1, stored)


def test_who_is_refused_by_the_others_does_not_say_that_bytes_are_gone() -> None:
    """Its node may be no member any more, and not know it yet."""
    source = Source(ChunkRef(1, 1, 1000), 2, 1)
    gone = NotFound("the fragment is not here")
    refused = Denied("this is for members of the site")
    assert isinstance(worst([gone, refused], source, is_anybody_away=False), Unavailable)


@pytest.mark.parametrize("state", [NodeState.REMOVED, NodeState.QUARANTINED])
async def test_a_reader_on_a_node_that_is_no_member_any_more_does_not_say_that_bytes_are_gone(
    tmp_path: Path, state: NodeState
) -> None:
    """Nobody waits for it any more, so what it reads may be deleted under it."""
    async with opened(tmp_path, 4) as nodes:
        stored = await nodes.put_small(1, os.urandom(50_000))
        reader = next(number for number in range(1, 5) if number not in stored.placed[0].holders)
        nodes.sweep()
        with pytest.raises(Corrupt):
            await nodes.read(reader, stored)
        nodes.site.change(reader, state)
        with pytest.raises(Unavailable):
            await nodes.read(reader, stored)


def test_what_nobody_has_is_lost_only_where_nobody_is_away() -> None:
    source = Source(ChunkRef(1, 1, 1000), 2, 1)
    gone, bad = NotFound("the fragment is not here"), Corrupt("the fragment does not check out")
    assert isinstance(worst([gone, gone], source, is_anybody_away=True), Unavailable)
    assert isinstance(worst([gone, gone], source, is_anybody_away=False), Corrupt)
    assert isinstance(worst([bad, bad], source, is_anybody_away=True), Corrupt)


@pytest.mark.parametrize(
    ("fault", "outcome"), [("none", Outcome.GOOD), ("damage", Outcome.DAMAGED), ("is_dead", Outcome.FAILED)]
)
async def test_how_calls_went_is_told_to_who_judges_the_nodes(tmp_path: Path, fault: str, outcome: Outcome) -> None:
    async with opened(tmp_path, 3) as nodes:
        data = mixed(CHUNK_MAX_BYTES)
        stored = [await nodes.write(1, data) for _ in range(4)]
        assert {(seen[2], seen[3]) for seen in nodes.site.seen} == {(Work.WRITE, Outcome.GOOD)}
        nodes.site.seen.clear()
        if fault != "none":
            setattr(nodes.site.faults[3], fault, True)
        for one in stored:
            assert await nodes.read(2, one) == data
        assert outcome in {seen[3] for seen in nodes.site.seen if seen[:3] == (2, 3, Work.READ)}
        assert {seen[3] for seen in nodes.site.seen if seen[1] == 1} == {Outcome.GOOD}


async def test_a_read_counts_as_late_after_what_nineteen_of_twenty_took() -> None:
    sites: Any = SimpleNamespace(saw=lambda *_: None, is_suspected=lambda number: False, own_number=1)
    manners = Manners(sites, CONFIG)
    for turn in range(5):
        for took_ms in range(1, 101):
            manners.answered(2, took_ms / 1000)
        assert turn == 0 or 0.09 <= manners.late_s <= 0.1
    for _ in range(300):
        manners.answered(2, 0.0001)
    assert manners.late_s == CONFIG.hedge_min_ms / 1000
    for _ in range(300):
        manners.answered(2, 60.0)
    assert manners.late_s == CONFIG.hedge_max_ms / 1000


@pytest.mark.parametrize("size_bytes", [CHUNK_MAX_BYTES, 50_000], ids=["encoded", "copies"])
@pytest.mark.parametrize("broken", [1, 2, 3])
async def test_sectors_that_nobody_can_read_cost_no_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, broken: int
) -> None:
    """EIO on one disk, whichever node asks: the fragment is damaged, and the others make up for it."""
    data = os.urandom(size_bytes)
    async with opened(tmp_path, 3) as nodes:
        stored = await nodes.write(1, data) if size_bytes > 100_000 else await nodes.put_small(1, data)
        whole, bad = SystemFile.read_at, str(tmp_path / str(broken) / "segments")
        refused: list[int] = []

        def read_at(self: SystemFile, offset: int, length: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{self._fd}").startswith(bad):
                refused.append(offset)
                raise DiskFailed("reading failed (Input/output error)", path=self.path)
            return whole(self, offset, length)

        monkeypatch.setattr(SystemFile, "read_at", read_at)
        monkeypatch.setattr(SystemFile, "read_cached", lambda *place: None)
        monkeypatch.setattr(SystemFile, "read_cached_into", lambda *place: False)
        for reader in (1, 2, 3):
            assert await nodes.read(reader, stored) == data
        chunk_id = stored.placed[0].chunk.chunk_id
        shards = nodes.segments[broken].shards(chunk_id)
        assert any(nodes.segments[broken].is_damaged(chunk_id, shard) for shard in shards) == bool(refused)


@pytest.mark.parametrize("packs", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("liar", [1, 2, 3])
async def test_who_says_that_a_chunk_is_packed_otherwise_is_not_believed_alone(
    tmp_path: Path, liar: int, packs: bool
) -> None:
    data = mixed(CHUNK_MAX_BYTES) if packs else os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 3) as nodes:
        stored = await nodes.write(1, data)
        nodes.site.faults[liar].lies_by_bytes = 1
        for reader in {1, 2, 3} - {liar}:
            for _ in range(2):
                assert await nodes.read(reader, stored) == data
        others = [faults for number, faults in nodes.site.faults.items() if number != liar]
        for number, faults in enumerate(others, 2):
            faults.lies_by_bytes = number
        with pytest.raises(Corrupt):
            await nodes.read(liar, stored)
