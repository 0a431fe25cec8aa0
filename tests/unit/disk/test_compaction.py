"""Compaction gives space back by what the index names; what cannot be read stays, and the rest goes on."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.config import DiskConfig
from edgestore.disk import Segments, compact, compaction, scrub
from edgestore.disk.fragments import BLOCK_BYTES
from edgestore.errors import DiskFailed, NotFound, StorageFull
from tests.sim.disk import Disk, SimFiles
from tests.sim.index import SimIndex
from tests.sim.loop import SimLoop
from tests.unit.disk.place import (
    CONFIG,
    FaultyFiles,
    chunk_id,
    close,
    compact_all,
    flip,
    found,
    open_segments,
    put,
    read,
    segment_file,
)


async def fill(segments: Segments, count: int = 60, *, keep_every: int = 5) -> dict[int, bytes]:
    """So many fragments of 60 KB; all but every fifth are deleted again. What is left."""
    bodies = {number: os.urandom(60_000) for number in range(count)}
    for number, body in bodies.items():
        await put(segments, number, body)
    for number in range(count):
        if number % keep_every:
            segments.delete(chunk_id(number))
            del bodies[number]
    return bodies


async def test_a_damaged_block_header_hides_nothing_from_compaction_and_scrub(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    bodies = await fill(segments)
    victim = found(segments, 0)
    flip(segment_file(tmp_path, victim.segment), victim.offset + 20)
    report = await scrub(segments, CONFIG)
    assert (report.fragments, report.damaged) == (len(bodies), 1)
    assert "block" in report.corrupt[0]
    await compact_all(segments)
    assert {number: await read(segments, number) for number in bodies} == bodies
    assert found(segments, 0).segment != victim.segment
    assert (await scrub(segments, CONFIG)).damaged == 0
    await close(segments)


async def test_no_segment_goes_on_a_counter_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segments = await open_segments(tmp_path)
    bodies = await fill(segments, keep_every=1)
    for segment in segments._segments.values():
        segment.live_bytes = 0
    assert await compact(segments, CONFIG) == 0
    assert "segment-miscounted" in caplog.text
    assert {number: await read(segments, number) for number in bodies} == bodies
    await close(segments)


@pytest.mark.parametrize("damage", ["flipped bit", "bad sector"])
async def test_what_cannot_be_read_stays_with_its_segment_and_the_rest_goes_on(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    bodies = await fill(segments, 150)
    victim = found(segments, 0)
    if damage == "flipped bit":
        flip(segment_file(tmp_path, victim.segment), victim.data_offset + 5)
    else:
        path = f"segments/{victim.segment:016d}.segment"
        files.fault = lambda call, at, offset: (
            DiskFailed("EIO") if (call, at, offset) == ("read", path, victim.data_offset) else None
        )
    del bodies[0]
    sealed = set(segments.numbers()) - {segments._active.number, segments._last_number}  # type: ignore[union-attr]
    assert len(sealed) > 4
    for _ in range(len(sealed) + 2):
        await compact(segments, CONFIG)
    assert sealed & set(segments.numbers()) == {victim.segment}
    assert found(segments, 0) == victim
    assert caplog.text.count("fragment-damaged") == 1
    assert list(segments.damaged) == [b"f" + chunk_id(0) + bytes(2)]
    assert {number: await read(segments, number) for number in bodies} == bodies
    segments.delete(chunk_id(0))
    assert not segments.damaged
    await compact_all(segments)
    assert victim.segment not in segments.numbers()
    await close(segments)


async def test_copies_are_written_in_bounded_batches_and_kept_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCH_BYTES", 200_000)
    segments = await open_segments(tmp_path, replace(CONFIG, segment_bytes=4 << 20))
    bodies = await fill(segments, 140, keep_every=3)
    batches: list[int] = []
    publish = segments.publish

    async def watch(copies: list) -> None:  # type: ignore[type-arg]
        batches.append(sum(info.fragment.stored_bytes for info, _ in copies))
        assert not segments._writes
        await publish(copies)

    segments.publish = watch  # type: ignore[method-assign]
    await compact_all(segments, replace(CONFIG, segment_bytes=4 << 20))
    assert len(batches) > 5
    assert max(batches) <= 260_000
    assert {number: await read(segments, number) for number in bodies} == bodies
    await close(segments)


async def test_one_segment_is_emptied_a_turn(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    await fill(segments)
    turns = 0
    while (removed := await compact(segments, CONFIG)) and turns < 50:
        turns += 1
        assert removed == 1
    assert turns > 2
    await close(segments)


async def test_a_full_disk_leaves_no_pending_copies_and_loses_nothing(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    bodies = await fill(segments)
    files.fault = lambda call, path, offset: StorageFull("no space left") if call == "write" else None
    for _ in range(5):
        with pytest.raises(StorageFull):
            await compact(segments, CONFIG)
        assert not segments._writes
        assert not segments._in_progress
    files.fault = lambda call, path, offset: None
    await compact_all(segments)
    assert {number: await read(segments, number) for number in bodies} == bodies
    await close(segments)


async def test_copies_may_use_half_the_reserve(tmp_path: Path) -> None:
    free = SimFilesWithSpace(str(tmp_path))
    segments = await open_segments(tmp_path, files=free)
    await fill(segments)
    segments._config = replace(CONFIG, reserve_bytes=10 << 20)
    free.left_bytes = 8 << 20
    segments._free_checked_s = -1.0
    with pytest.raises(StorageFull):
        segments.put(chunk_id(1000), b"content", ())
    assert await compact(segments, segments._config) == 1
    free.left_bytes = 4 << 20
    segments._free_checked_s = -1.0
    with pytest.raises(StorageFull):
        await compact(segments, segments._config)
    await close(segments)


class SimFilesWithSpace(FaultyFiles):
    """Tells how much is free."""

    left_bytes = 1 << 40

    def free_bytes(self) -> int:
        """As told."""
        return self.left_bytes


async def test_a_failed_sync_of_a_copy_is_fatal(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    await fill(segments)
    failures: list[BaseException] = []
    segments.on_failure = failures.append
    files.fault = lambda call, path, offset: DiskFailed("fdatasync failed") if call == "sync" else None
    with pytest.raises(DiskFailed):
        await compact(segments, CONFIG)
    assert failures
    segments.abandon()
    segments._index.close()


async def test_the_block_of_a_copy_is_written_after_its_data_is_synced(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    await fill(segments)
    places: list[tuple[str, int]] = []

    def watch(call: str, path: str, offset: int) -> None:
        if call in ("write", "sync"):
            places.append((call, offset))

    files.fault = watch
    assert await compact(segments, CONFIG)
    writes = [at for at, (call, _) in enumerate(places) if call == "write"]
    blocks = {offset for call, offset in places if call == "write" and ("write", offset + BLOCK_BYTES) in places}
    data = [at for at in writes if places[at][1] - BLOCK_BYTES in blocks]
    sealed = [at for at in writes if places[at][1] in blocks]
    assert data
    assert sealed
    assert any(places[at][0] == "sync" for at in range(max(data), min(sealed)))
    await close(segments)


def test_compaction_keeps_to_its_rate() -> None:
    loop, disk = SimLoop(), Disk(random.Random(1))
    config = DiskConfig(segment_bytes=1 << 20, reserve_bytes=0, compaction_bytes_per_s=1 << 20)

    async def live() -> tuple[int, float]:
        files = SimFiles(disk, loop)
        index = SimIndex.open(files, "index")
        segments = await Segments.open(files, "segments", index, config, entropy=random.Random(2).randbytes)
        bodies = await fill(segments, 40)
        began_s, moved = loop.time(), 0
        while True:
            before = {number: found(segments, number) for number in bodies}
            if not await compact(segments, config):
                break
            moved += sum(60_000 for number in bodies if found(segments, number) != before[number])
        return moved, loop.time() - began_s

    moved, took_s = loop.run(live())
    loop.close()
    assert moved >= 300_000
    assert moved / took_s <= 1 << 20


async def test_a_fragment_that_is_deleted_while_it_is_copied_stays_deleted(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    bodies = await fill(segments)
    old = found(segments, 0)
    writer = await segments.copy(old, bodies[0])
    publishing = asyncio.ensure_future(segments.publish([(old, writer)]))
    await asyncio.sleep(0)
    segments.delete(chunk_id(0))
    await publishing
    assert segments.lookup(chunk_id(0)) is None
    with pytest.raises(NotFound):
        await compact_all(segments)
        await segments.read(old, 0, 10)
    await close(segments)
