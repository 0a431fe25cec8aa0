"""Chunks on several nodes: never a wrong byte, never an acknowledgement below k + t, whatever the nodes do."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.chunks import Digests, IteratorBody, StoredBody, stored_body
from edgestore.config import ChunksConfig
from edgestore.errors import Corrupt, EdgeStoreError, StorageFull, Unavailable
from edgestore.placement import Scheme
from edgestore.records import CHUNK_MAX_BYTES, UNIT_BYTES, NodeState, SiteSettings
from tests.unit.chunks.site import CONFIG, Nodes, opened, until


def mixed(size: int) -> bytes:
    """Units that pack well beside units that do not."""
    units = [
        os.urandom(UNIT_BYTES) if at % 3 else b"edge " * (UNIT_BYTES // 5 + 1) for at in range(-(-size // UNIT_BYTES))
    ]
    return b"".join(unit[:UNIT_BYTES] for unit in units)[:size]


def is_safe(nodes: Nodes, stored: StoredBody) -> bool:
    """Whether each chunk lies on k + t nodes that the extents name."""
    return all(
        held >= placed.scheme.needed for held, placed in zip(nodes.held(stored), stored.placed, strict=True)
    ) and bool(stored.placed)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
async def test_what_one_node_wrote_every_node_reads_in_any_range(tmp_path: Path, count: int) -> None:
    data = mixed(CHUNK_MAX_BYTES + 5 * UNIT_BYTES + 17)
    async with opened(tmp_path, count, config=replace(CONFIG, confirm_ms=10_000)) as nodes:
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        assert [extent.missing for extent in stored.extents()] == [()]
        assert [extent.exceptions for extent in stored.extents()] == [()]
        chance = random.Random(count)
        for number in range(1, count + 1):
            assert await nodes.read(number, stored) == data
            for _ in range(8):
                offset = chance.randrange(len(data))
                length = min(chance.choice([1, 1000, UNIT_BYTES, 2_000_000]), len(data) - offset)
                assert await nodes.read(number, stored, offset, length) == data[offset : offset + length]
        assert nodes.memory_is_free()


@pytest.mark.parametrize("size", [1, 9000, 128 * 1024, 128 * 1024 + 1, UNIT_BYTES])
async def test_small_bodies(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    async with opened(tmp_path, 6) as nodes:
        for stored in (await nodes.put_small(2, data), await nodes.write(2, data)):
            assert is_safe(nodes, stored)
            placed = stored.placed[0]
            assert (placed.scheme.k == 1) == (size <= CONFIG.copies_max_bytes)
            for number in range(1, 7):
                assert await nodes.read(number, stored) == data
                small = nodes.store(number).read_small(stored.extents()[0])
                assert small is None or bytes(small) == data


async def test_any_tolerated_deaths_leave_everything_readable(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES + 70_000)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        for dead in ((1, 2), (3, 4), (5, 6), (2, 6)):
            for number in dead:
                nodes.site.faults[number].is_dead = True
            reader = next(number for number in range(1, 7) if number not in dead)
            assert await nodes.read(reader, stored) == data
            for number in dead:
                nodes.site.faults[number].is_dead = False
        assert nodes.memory_is_free()


async def test_a_small_range_touches_one_fragment(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        for faults in nodes.site.faults.values():
            faults.asked.clear()
        assert await nodes.read(3, stored, 3 * UNIT_BYTES + 5, 1000) == data[3 * UNIT_BYTES + 5 :][:1000]
        assert sum(len(faults.asked) for faults in nodes.site.faults.values()) <= 1


async def test_damaged_bytes_are_never_handed_out(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        nodes.site.faults[2].damage = nodes.site.faults[5].damage = True
        for number in (1, 3, 4):
            assert await nodes.read(number, stored) == data
        nodes.site.faults[3].damage = nodes.site.faults[4].damage = nodes.site.faults[6].damage = True
        with pytest.raises(Corrupt):
            await nodes.read(1, stored)


@pytest.mark.parametrize("data", [os.urandom(20_000), b"edge " * 4000], ids=["plain", "packed"])
async def test_a_small_body_damaged_here_comes_from_another_node(tmp_path: Path, data: bytes) -> None:
    """It is read by the way that a small GET takes, which looks at the own page cache first."""
    async with opened(tmp_path, 3) as nodes:
        stored = await nodes.put_small(1, data)
        holders = [node for node in stored.placed[0].holders if node]
        nodes.flip(holders[0], stored)
        for number in range(1, 4):
            assert await nodes.read_small(number, stored) == data
        for number in holders[1:]:
            nodes.flip(number, stored)
        with pytest.raises(Corrupt):
            await nodes.read_small(holders[0], stored)


async def test_a_late_answer_is_overtaken(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        for _ in range(8):
            await nodes.read(1, stored)  # it learns how long reads take
        nodes.site.faults[4].delay_s = 0.9
        begun = asyncio.get_running_loop().time()
        assert await nodes.read(1, stored, 0, UNIT_BYTES * 4) == data[: UNIT_BYTES * 4]
        assert asyncio.get_running_loop().time() - begun < 0.7


async def test_a_node_that_was_stalled_itself_passes_nobody_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All owners have their fragment long before it wakes up; only their answers wait in its own loop."""
    caplog.set_level(logging.INFO, "edgestore.chunks")
    async with opened(tmp_path, 4, config=replace(CONFIG, confirm_ms=600, fragment_timeout_s=10.0)) as nodes:
        for faults in nodes.site.faults.values():
            faults.delay_s = 0.3
        asyncio.get_running_loop().call_later(0.1, _stall, 1.2)
        stored = await nodes.write(1, mixed(500_000))
        assert stored.extents()[0].exceptions == ()
        assert "node-passed-over" not in caplog.text


def _stall(stall_s: float) -> None:
    """What a machine does that is busy with others."""
    until_s = time.monotonic() + stall_s
    while time.monotonic() < until_s:
        pass


async def test_an_owner_that_does_not_confirm_is_passed_over(tmp_path: Path) -> None:
    data = os.urandom(2 * CHUNK_MAX_BYTES)
    async with opened(tmp_path, 7) as nodes:
        nodes.site.faults[3].is_dead = True
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        assert all(3 not in placed.holders for placed in stored.placed)
        assert await nodes.read(2, stored) == data
        await until(nodes.memory_is_free)


async def test_an_owner_has_a_quarter_of_a_second_to_confirm_and_not_until_its_call_ends(tmp_path: Path) -> None:
    patience_s = ChunksConfig().confirm_ms / 1000
    config = replace(CONFIG, confirm_ms=ChunksConfig().confirm_ms, fragment_timeout_s=60.0, write_timeout_s=60.0)
    async with opened(tmp_path, 7, config=config) as nodes:
        data = os.urandom(4 * UNIT_BYTES)
        victim = next(node for node in (await nodes.write(1, data)).placed[0].holders if node != 1)
        nodes.site.faults[victim].is_dead = True
        begun_s = time.monotonic()
        stored = await nodes.write(1, data)
        took_s = time.monotonic() - begun_s
        assert is_safe(nodes, stored)
        assert took_s < 10 * patience_s
        assert victim not in (await nodes.write(1, data)).placed[0].holders


async def test_three_nodes_with_one_dead_write_copies_on_the_two(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES + 1000)
    async with opened(tmp_path, 3) as nodes:
        nodes.site.faults[2].is_dead = True
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        assert all((placed.scheme.k, set(placed.holders)) == (1, {1, 3}) for placed in stored.placed)
        assert await nodes.read(3, stored) == data
        nodes.site.change(2, NodeState.DOWN)
        assert is_safe(nodes, await nodes.write(3, data))


async def test_below_k_plus_t_nothing_is_acknowledged_and_nothing_stays(tmp_path: Path) -> None:
    async with opened(tmp_path, 2) as nodes:
        nodes.site.faults[2].is_dead = True
        with pytest.raises(Unavailable):
            await nodes.write(1, os.urandom(3 * UNIT_BYTES))
        with pytest.raises(Unavailable):
            await nodes.put_small(1, os.urandom(50_000))
        await until(lambda: nodes.fragments() == 0)
        await until(nodes.memory_is_free)


@pytest.mark.parametrize("seed", range(6))
async def test_owners_die_in_the_middle_of_a_body(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    data = mixed(3 * CHUNK_MAX_BYTES + chance.randrange(UNIT_BYTES))
    async with opened(tmp_path, 6) as nodes:
        for number in chance.sample(range(2, 7), chance.choice([1, 2])):
            nodes.site.faults[number].dies_after = chance.randrange(4)
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        assert await nodes.read(1, stored) == data
        await until(nodes.memory_is_free)


async def test_a_death_in_the_middle_of_a_body_ends_an_extent_and_the_next_has_another_scheme(tmp_path: Path) -> None:
    data = mixed(6 * CHUNK_MAX_BYTES)
    async with opened(tmp_path, 3) as nodes:
        nodes.site.faults[2].dies_after = 3
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        extents = stored.extents()
        assert [(one.k, one.m) for one in (extents[0], extents[-1])] == [(2, 1), (1, 1)]
        assert len(extents) == 2
        assert await nodes.read(3, stored) == data


async def test_a_full_disk_is_passed_over_and_all_full_is_said(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 7, reserve_bytes={4: 1 << 60}) as nodes:
        stored = await nodes.write(1, data)
        assert is_safe(nodes, stored)
        assert 4 not in stored.placed[0].holders
    async with opened(tmp_path / "full", 3, reserve_bytes=dict.fromkeys(range(1, 4), 1 << 60)) as nodes:
        async with asyncio.timeout(CONFIG.write_timeout_s / 2):
            with pytest.raises(StorageFull):
                await nodes.write(1, data)


async def test_on_a_site_the_room_of_the_voters_counts_and_not_the_own(tmp_path: Path) -> None:
    async with opened(tmp_path, 3, reserve_bytes={1: 1 << 60}) as nodes:
        nodes.site.stores[1].check_room(8192)
        assert 1 not in (await nodes.write(1, os.urandom(8192))).placed[0].holders
        nodes.site.is_full = True
        with pytest.raises(StorageFull):
            nodes.site.stores[2].check_room(8192)


async def test_a_commit_that_came_too_late_is_mended(tmp_path: Path) -> None:
    data = mixed(2 * CHUNK_MAX_BYTES)
    async with opened(tmp_path, 7) as nodes:
        stored = await nodes.write(1, data)
        lost = stored.placed[0].holders[0]
        nodes.site.faults[lost].is_dead = True
        nodes.site.change(lost, NodeState.DOWN)
        writer = next(number for number in range(1, 8) if number != lost)
        mended = await nodes.store(1 if lost != 1 else writer).mend(stored, None)
        assert is_safe(nodes, mended)
        assert all(lost not in placed.holders for placed in mended.placed)
        assert {extent.layout_epoch for extent in mended.extents()} == {2}
        assert await nodes.read(writer, mended) == data


async def test_too_few_nodes_for_the_scheme_and_the_chunk_is_written_again(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 3) as nodes:
        stored = await nodes.write(1, data)
        nodes.site.faults[3].is_dead = True
        nodes.site.change(3, NodeState.DOWN)
        mended = await nodes.store(1).mend(stored, None)
        assert is_safe(nodes, mended)
        assert [(placed.scheme.k, placed.scheme.m) for placed in mended.placed] == [(1, 1)]
        assert await nodes.read(2, mended) == data


async def test_repair_makes_any_shard_again(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        placed = stored.placed[0]
        chunk_id = placed.chunk.chunk_id
        for shard, node in enumerate(placed.holders):
            before = nodes.segments[node].lookup(chunk_id, shard)
            assert before is not None
            site = nodes.store(1).site
            assert site is not None
            await site.shelves.of(node).drop(chunk_id, (shard,))
            assert not nodes.segments[node].shards(chunk_id)
            await site.restore(placed.source(), shard, node)
            after = nodes.segments[node].lookup(chunk_id, shard)
            assert after is not None
            assert after.fragment.page_crcs == before.fragment.page_crcs
            assert nodes.segments[node].shards(chunk_id) == [shard]
        assert await nodes.read(2, stored) == data


async def test_a_chunk_is_encoded_again_by_another_scheme(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES)
    async with opened(tmp_path, 6) as nodes:
        stored = await nodes.write(1, data)
        site = nodes.store(2).site
        assert site is not None
        again = await site.encode_again(stored.placed[0].source(), Scheme(2, 2, 1))
        swapped = stored_body((again,), site.sites)
        assert [(extent.k, extent.m, extent.tolerate) for extent in swapped.extents()] == [(2, 2, 1)]
        assert await nodes.read(3, swapped) == data


async def test_what_is_dropped_goes_on_every_node(tmp_path: Path) -> None:
    async with opened(tmp_path, 4) as nodes:
        stored = await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))
        small = await nodes.put_small(2, os.urandom(20_000))
        assert nodes.fragments() == 4 + 2
        nodes.store(1).drop(stored)
        nodes.store(2).drop(small)
        await until(lambda: nodes.fragments() == 0)
        assert nodes.store(1).low_water() == stored.chunks[-1].number + 1


async def test_a_slow_client_gives_its_slab_away(tmp_path: Path) -> None:
    """The reserve holds ten chunks of 4+2; all are held by clients that bring no more."""
    async with opened(tmp_path, 6) as nodes:
        store = nodes.store(1)
        end = asyncio.Event()

        async def pieces() -> AsyncIterator[bytes]:
            yield os.urandom(UNIT_BYTES)
            await end.wait()
            yield os.urandom(UNIT_BYTES)

        slow = [
            asyncio.create_task(store.write(IteratorBody(store.pool, pieces(), None), Digests())) for _ in range(16)
        ]
        await asyncio.sleep(0.1)
        stored = await asyncio.wait_for(nodes.write(1, os.urandom(CHUNK_MAX_BYTES)), 10)
        assert is_safe(nodes, stored)
        end.set()
        for task in slow:
            assert (await task).size_bytes == 2 * UNIT_BYTES
        await until(nodes.memory_is_free)


async def test_an_upload_that_is_cancelled_leaves_what_the_sweep_takes_at_most(tmp_path: Path) -> None:
    """A drop may be overtaken by the fragment on its way. Memory is free at once."""
    async with opened(tmp_path, 4) as nodes:
        store = nodes.store(1)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3 * CHUNK_MAX_BYTES // UNIT_BYTES):
                yield os.urandom(UNIT_BYTES)
            await asyncio.Event().wait()

        for wait_s in (0.0, 0.005, 0.02, 0.05, 0.1):
            task = asyncio.create_task(store.write(IteratorBody(store.pool, pieces(), None), Digests()))
            await asyncio.sleep(wait_s)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, EdgeStoreError)):
                await task
        await until(nodes.memory_is_free)
        await until(lambda: nodes.sweep() == 0)


async def test_an_upload_that_is_cancelled_while_its_node_leaves_starts_nothing_new(tmp_path: Path) -> None:
    async with opened(tmp_path, 4) as nodes:
        store = nodes.store(1)
        assert store.site is not None
        stored = await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))
        await store.leave_site()
        store.site.drop(stored)
        assert await nodes.read(2, stored)


async def test_one_node_of_a_site_writes_as_a_lone_one(tmp_path: Path) -> None:
    data = mixed(CHUNK_MAX_BYTES + 5)
    async with opened(tmp_path, 1) as nodes:
        stored = await nodes.write(1, data)
        assert not stored.placed
        assert await nodes.read(1, stored) == data


async def test_the_survivor_of_two_nodes_does_not_promise_less(tmp_path: Path) -> None:
    async with opened(tmp_path, 2) as nodes:
        nodes.site.change(2, NodeState.DOWN)
        with pytest.raises(Unavailable):
            await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))
        with pytest.raises(Unavailable):
            await nodes.put_small(1, os.urandom(20_000))
        nodes.site.settings = SiteSettings(tolerate=0)
        data = os.urandom(CHUNK_MAX_BYTES)
        stored = await nodes.write(1, data)
        assert not stored.placed
        assert [extent.layout_epoch for extent in stored.extents()] == [2]
        assert await nodes.read(1, stored) == data


async def test_settings_of_the_site_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, 5, settings=SiteSettings(tolerate=1, scheme="3+1")) as nodes:
        stored = await nodes.write(1, os.urandom(CHUNK_MAX_BYTES))
        assert [(placed.scheme.k, placed.scheme.m, placed.scheme.t) for placed in stored.placed] == [(3, 1, 1)]
