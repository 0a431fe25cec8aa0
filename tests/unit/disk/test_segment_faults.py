"""Segments that are damaged as a whole, and disks and indexes that refuse."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from edgestore.disk import FragmentUnit
from edgestore.errors import Closing, Corrupt, DiskFailed, StorageFull
from tests.unit.disk.place import (
    FaultyFiles,
    chunk_id,
    close,
    compact_all,
    flip,
    found,
    kill,
    open_segments,
    put,
    read,
    segment_file,
)


async def test_a_segment_with_a_damaged_header_is_set_aside_and_the_rest_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segments = await open_segments(tmp_path)
    bodies = {number: os.urandom(300_000) for number in range(6)}
    for number, body in bodies.items():
        await put(segments, number, body)
    bad = found(segments, 0).segment
    lost = {number for number in bodies if found(segments, number).segment == bad}
    kill(segments)
    header = segment_file(tmp_path, bad).read_bytes()[:512]
    flip(segment_file(tmp_path, bad), 10)
    again = await open_segments(tmp_path)
    assert again.quarantined == {bad}
    assert "segment-quarantined" in caplog.text
    assert {number: await read(again, number) for number in bodies.keys() - lost} == {
        number: body for number, body in bodies.items() if number not in lost
    }
    await compact_all(again)
    assert segment_file(tmp_path, bad).exists()
    await close(again)
    with segment_file(tmp_path, bad).open("r+b") as file:
        file.write(header)
    mended = await open_segments(tmp_path)
    assert {number: await read(mended, number) for number in bodies} == bodies
    await close(mended)


async def test_rows_of_a_segment_that_is_set_aside_are_corrupt_when_read(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    await put(segments, 1, b"content")
    bad = found(segments, 1).segment
    await close(segments)
    flip(segment_file(tmp_path, bad), 10)
    again = await open_segments(tmp_path)
    with pytest.raises(Corrupt, match="header"):
        again.lookup(chunk_id(1))
    await close(again)


async def test_the_next_segment_is_made_off_the_loop_and_its_failure_is_fatal(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    on_loop: list[str] = []
    made = files.replace

    def watch(path: str, content: bytes, *, mode: int = 0o644) -> None:
        if threading.current_thread() is threading.main_thread():
            on_loop.append(path)
        made(path, content, mode=mode)

    files.replace = watch  # type: ignore[method-assign]
    for number in range(60):
        await put(segments, number, os.urandom(60_000))
    assert len(segments.numbers()) > 3
    assert not on_loop
    failures: list[BaseException] = []
    segments.on_failure = failures.append
    files.fault = lambda call, path, offset: DiskFailed("fsync failed") if call == "replace" else None
    for number in range(60, 90):
        if not failures:
            await put(segments, number, os.urandom(60_000))
    assert failures
    segments.abandon()
    segments._index.close()


async def test_a_write_that_the_index_refuses_for_good_is_fatal(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    failures: list[BaseException] = []
    segments.on_failure = failures.append

    def refuse(changes: object) -> None:
        raise DiskFailed("the index is read-only")

    await put(segments, 1, b"content")
    segments._index.write = refuse  # type: ignore[assignment]
    with pytest.raises(DiskFailed):
        segments.delete(chunk_id(1))
    assert failures
    segments.abandon()
    segments._index.close()
    with pytest.raises(Closing):
        segments.lookup(chunk_id(1))


async def test_what_met_a_full_disk_and_was_dropped_is_not_kept_in_memory(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    await put(segments, 0, b"makes the segment")
    files.fault = lambda call, path, offset: StorageFull("no space left") if call == "write" else None
    for number in range(1, 20):
        future = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None, number: int = number, told: asyncio.Future[object] = future) -> None:
            segments.delete(chunk_id(number))
            told.set_result(error)

        segments.put(chunk_id(number), os.urandom(50_000), (FragmentUnit(50_000, 50_000),))
        segments.sync(done)
        assert isinstance(await future, StorageFull)
        assert not segments._writes
    files.fault = lambda call, path, offset: None
    await put(segments, 20, b"there is space again")
    await close(segments)
