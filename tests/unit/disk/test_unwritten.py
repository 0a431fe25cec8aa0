"""Fragments between their row and the sync that writes them: who asks for one gets its bytes, and nobody takes it for
damaged."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from edgestore.disk import FragmentUnit, scrub
from edgestore.errors import StorageFull
from edgestore.kernels import page_crcs
from tests.unit.disk.place import CONFIG, FaultyFiles, chunk_id, close, open_segments, put, sync

SMALL = os.urandom(70_000)
LARGE = os.urandom(200_000)


async def test_what_is_not_written_yet_is_read_from_memory(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    await put(segments, 1, SMALL)  # the file is open from now on
    segments.put(chunk_id(2), bytearray(SMALL), (FragmentUnit(len(SMALL), len(SMALL)),))
    info = segments.lookup(chunk_id(2))
    assert info is not None
    for offset, length in ((0, len(SMALL)), (65_530, 100), (69_999, 1)):
        expected = SMALL[offset : offset + length]
        cached = segments.read_cached(info, offset, length)
        assert cached is not None
        assert bytes(cached) == expected
        assert bytes(segments.read_blocking(info, offset, length)) == expected
        assert bytes(await segments.read(info, offset, length)) == expected
    await sync(segments)
    assert bytes(await segments.read(info, 0, len(SMALL))) == SMALL
    assert not segments._unwritten
    await close(segments)


async def test_the_memory_may_be_used_again_after_the_sync_whoever_reads(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    memory = bytearray(SMALL)
    segments.put(chunk_id(1), memory, (FragmentUnit(len(SMALL), len(SMALL)),))
    info = segments.lookup(chunk_id(1))
    assert info is not None
    found = segments.read_blocking(info, 0, len(SMALL))
    await sync(segments)
    memory[:] = bytes(len(memory))
    assert bytes(found) == SMALL
    await close(segments)


async def test_the_scrub_takes_nothing_for_damaged_that_is_not_written_yet(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    segments.put(chunk_id(1), SMALL, (FragmentUnit(len(SMALL), len(SMALL)),))
    writer = segments.begin(chunk_id(2), stored_max_bytes=len(LARGE))
    writer.write(LARGE)
    segments.wrote(writer)
    segments.seal(writer, (FragmentUnit(len(LARGE), len(LARGE)),), page_crcs(LARGE))
    report = await scrub(segments, CONFIG)
    assert (report.fragments, report.damaged, report.corrupt) == (2, 0, [])
    assert not segments.damaged
    await sync(segments)
    await close(segments)


async def test_what_met_a_full_disk_keeps_its_bytes_whatever_becomes_of_the_memory(tmp_path: Path) -> None:
    """Who is told that the sync failed fills its memory with something else; the block goes with the next sync."""
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    await put(segments, 1, SMALL)
    memory = bytearray(SMALL)
    segments.put(chunk_id(2), memory, (FragmentUnit(len(SMALL), len(SMALL)),))
    files.fault = lambda call, path, offset: StorageFull("no space left") if call == "write" else None
    told: list[BaseException | None] = []

    def done(error: BaseException | None) -> None:
        memory[:] = bytes(len(memory))
        told.append(error)

    segments.sync(done)
    while not told:
        await asyncio.sleep(0.01)
    assert isinstance(told[0], StorageFull)
    info = segments.lookup(chunk_id(2))
    assert info is not None
    assert bytes(segments.read_blocking(info, 0, len(SMALL))) == SMALL
    files.fault = lambda call, path, offset: None
    await sync(segments)
    assert not segments._unwritten
    assert bytes(segments.read_blocking(info, 0, len(SMALL))) == SMALL
    await close(segments)
