"""Segments find what they hold, check it on every read, give space back, and are their own index."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.config import DiskConfig
from edgestore.disk import FragmentUnit, compact, scrub
from edgestore.disk.fragments import encode_segment_header
from edgestore.errors import Corrupt, DiskFailed, NotFound, StorageFull, UnknownFormat
from edgestore.kernels import page_crcs
from tests.unit.disk.place import (
    CONFIG,
    FaultyFiles,
    chunk_id,
    close,
    compact_all,
    found,
    kill,
    open_segments,
    put,
    put_in_pieces,
    read,
    segment_file,
    sync,
)


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
async def test_synced_fragments_are_found_after_a_restart(tmp_path: Path, clean: bool) -> None:
    rng = random.Random(1)
    bodies = {number: rng.randbytes(rng.choice((1, 500, 70_000, 200_000))) for number in range(40)}
    segments = await open_segments(tmp_path)
    for number, body in bodies.items():
        await put(segments, number, body)
    if clean:
        await close(segments)
    else:
        kill(segments)
    again = await open_segments(tmp_path)
    assert {number: await read(again, number) for number in bodies} == bodies
    assert sorted(again.chunk_ids()) == sorted(chunk_id(number) for number in bodies)
    await close(again)


async def test_the_index_can_be_rebuilt_from_the_segments(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    for number in range(30):
        await put(segments, number, os.urandom(50_000))
    before = {number: await read(segments, number) for number in range(30)}
    await close(segments)
    shutil.rmtree(tmp_path / "index")
    again = await open_segments(tmp_path)
    assert {number: await read(again, number) for number in range(30)} == before
    await close(again)


async def test_ranges_are_checked_and_exact(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(300_000)
    segments = await open_segments(tmp_path)
    await put(segments, 1, body)
    info = segments.lookup(chunk_id(1))
    assert info is not None
    for offset, length in ((0, 1), (65_535, 2), (65_536, 65_536), (299_999, 1), (1, 299_999), (100, 0)):
        assert bytes(await segments.read(info, offset, length)) == body[offset : offset + length]
        cached = segments.read_cached(info, offset, length)
        assert cached is None or bytes(cached) == body[offset : offset + length]
    await close(segments)


async def test_flipped_bits_are_found_by_reads_and_by_the_scrub(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    for number in range(5):
        await put(segments, number, os.urandom(100_000))
    info = segments.lookup(chunk_id(3))
    assert info is not None
    path = sorted((tmp_path / "segments").glob("*.segment"))[info.segment - 1]
    with path.open("r+b") as file:
        file.seek(info.data_offset + 70_000)
        byte = file.read(1)[0]
        file.seek(info.data_offset + 70_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(Corrupt):
        await segments.read(info, 65_536, 10)
    assert await segments.read(info, 0, 65_536)
    report = await scrub(segments, CONFIG)
    assert report.fragments == 5
    assert len(report.corrupt) == 1
    assert chunk_id(3).hex() in report.corrupt[0]
    await close(segments)


async def test_a_fragment_written_in_pieces_is_there_only_when_sealed(tmp_path: Path) -> None:
    pieces = [os.urandom(100_000), os.urandom(50_001)]
    segments = await open_segments(tmp_path)
    sealed = segments.begin(chunk_id(1), stored_max_bytes=300_000)
    unsealed = segments.begin(chunk_id(2), stored_max_bytes=300_000)
    for piece in pieces:
        sealed.write(piece)
        unsealed.write(piece)
    units = tuple(FragmentUnit(len(piece), len(piece)) for piece in pieces)
    segments.wrote(sealed)
    segments.seal(sealed, units, page_crcs(b"".join(pieces)))
    await sync(segments)
    assert await read(segments, 1) == b"".join(pieces)
    assert segments.lookup(chunk_id(2)) is None
    await put(segments, 3, b"behind them")
    kill(segments)
    shutil.rmtree(tmp_path / "index")
    again = await open_segments(tmp_path)
    assert await read(again, 1) == b"".join(pieces)
    assert again.lookup(chunk_id(2)) is None
    assert await read(again, 3) == b"behind them"
    await close(again)


async def test_compaction_gives_space_back_and_keeps_what_lives(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    bodies = {number: os.urandom(60_000) for number in range(60)}
    for number, body in bodies.items():
        await put(segments, number, body)
    before = sum(path.stat().st_size for path in (tmp_path / "segments").iterdir())
    stale = segments.lookup(chunk_id(0))
    for number in range(60):
        if number % 5:
            segments.delete(chunk_id(number))
    removed = await compact_all(segments)
    assert removed >= 2
    after = sum(path.stat().st_size for path in (tmp_path / "segments").iterdir())
    assert after < before / 2
    for number in range(0, 60, 5):
        assert await read(segments, number) == bodies[number]
    assert stale is not None
    with pytest.raises(NotFound):
        await segments.read(stale, 0, 10)
    kill(segments)
    again = await open_segments(tmp_path)
    for number in range(0, 60, 5):
        assert await read(again, number) == bodies[number]
    await close(again)


async def test_the_reserve_is_kept(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path, DiskConfig(reserve_bytes=1 << 60))
    with pytest.raises(StorageFull, match="reserve"):
        segments.put(chunk_id(1), b"x", (FragmentUnit(1, 1),))
    with pytest.raises(StorageFull):
        segments.begin(chunk_id(1), stored_max_bytes=1)
    await close(segments)


async def test_a_user_s_bytes_never_pass_for_a_fragment(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    await put(segments, 1, os.urandom(1000))
    await close(segments)
    image = sorted((tmp_path / "segments").glob("*.segment"))[0].read_bytes()
    other = tmp_path / "other"
    segments = await open_segments(other)
    await put(segments, 7, image)
    kill(segments)
    shutil.rmtree(other / "index")
    again = await open_segments(other)
    assert list(again.chunk_ids()) == [chunk_id(7)]
    await close(again)


async def test_a_block_that_met_a_full_disk_in_anothers_batch_is_there_after_the_next_sync(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments = await open_segments(tmp_path, files=files)
    await put(segments, 0, b"makes the segment")
    body = os.urandom(70_000)
    segments.put(chunk_id(1), body, (FragmentUnit(len(body), len(body)),))
    files.fault = lambda call, path, offset: StorageFull("no space left") if call == "write" else None
    with pytest.raises(StorageFull):
        await sync(segments)
    files.fault = lambda call, path, offset: None
    await put(segments, 2, b"a later chunk of the same upload")
    kill(segments)
    shutil.rmtree(tmp_path / "index")
    again = await open_segments(tmp_path)
    assert await read(again, 1) == body
    assert await read(again, 2) == b"a later chunk of the same upload"
    await close(again)


async def test_a_writer_never_runs_into_the_next_fragment(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    writer = segments.begin(chunk_id(1), stored_max_bytes=10_000)
    await put(segments, 2, b"neighbour")
    writer.write(bytes(10_000))
    with pytest.raises(ValueError, match="longer"):
        writer.write(bytes(1024))
    segments.abort(writer)
    assert await read(segments, 2) == b"neighbour"
    await close(segments)


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("index", ["kept", "lost"])
async def test_a_copy_that_a_crash_cut_short_does_not_hide_the_fragment(tmp_path: Path, torn: bool, index: str) -> None:
    body = os.urandom(300_000)
    segments = await open_segments(tmp_path)
    await put(segments, 1, body)
    await close(segments)
    segments = await open_segments(tmp_path)
    await put(segments, 2, b"in the next segment")
    old = segments.lookup(chunk_id(1))
    assert old is not None
    copy = segments._seal_copy(old, await segments.copy(old, body))
    await sync(segments)
    kill(segments)
    assert copy.segment > old.segment
    if torn:
        with (tmp_path / "segments" / f"{copy.segment:016d}.segment").open("r+b") as file:
            file.truncate(copy.data_offset + 280_000)
    if index == "lost":
        shutil.rmtree(tmp_path / "index")
    again = await open_segments(tmp_path)
    found = again.lookup(chunk_id(1))
    assert found is not None
    assert found.segment == (old if torn else copy).segment
    assert await read(again, 1) == body
    await compact(again, CONFIG)
    assert await read(again, 1) == body
    await close(again)


async def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    for number in range(40):
        await put(segments, number, os.urandom(60_000))
    await segments.flush_index()
    used = segments._last_number
    for number in range(40):
        segments.delete(chunk_id(number))
    await compact_all(segments)
    kill(segments)
    again = await open_segments(tmp_path)
    for number in range(40, 43):
        await put(again, number, b"acknowledged")
    assert found(again, 40).segment >= used
    kill(again)
    last = await open_segments(tmp_path)
    assert [await read(last, number) for number in range(40, 43)] == [b"acknowledged"] * 3
    await close(last)


async def test_the_checkpoint_is_durable_before_a_file_goes(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    for number in range(40):
        await put(segments, number, os.urandom(60_000))
    await segments.flush_index()
    for number in range(40):
        segments.delete(chunk_id(number))
    files = FaultyFiles(str(tmp_path))
    held = segments._files
    segments._files = files
    files.fault = lambda call, path, offset: DiskFailed("power goes here") if call == "remove" else None
    with pytest.raises(DiskFailed):
        await compact(segments, CONFIG)
    segments._files = held
    kill(segments)
    again = await open_segments(tmp_path)
    assert list(again.chunk_ids()) == []
    await close(again)


async def test_a_place_whose_row_was_refused_is_not_given_out_again(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    await put(segments, 0, b"x")
    live = segments.live_bytes(1)
    write = segments._index.write

    def refuse(changes: object) -> None:
        raise StorageFull("the index is full")

    segments._index.write = refuse  # type: ignore[assignment]
    with pytest.raises(StorageFull):
        await put(segments, 1, os.urandom(100_000))
    segments._index.write = write  # type: ignore[method-assign]
    body = os.urandom(200_000)
    await put_in_pieces(segments, 2, body)
    assert await read(segments, 2) == body
    assert segments.live_bytes(1) == live + found(segments, 2).fragment.reserved_bytes
    assert not segments._writes
    await close(segments)


def descriptors(folder: Path) -> int:
    """Open files of this process in a folder."""
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(str(folder / "segments") in os.readlink(link) for link in links if os.path.lexists(link))


async def test_descriptors_are_bounded_and_end_with_the_segments(tmp_path: Path) -> None:
    config = replace(CONFIG, open_files_max=3)
    segments = await open_segments(tmp_path, config)
    bodies = {number: os.urandom(300_000) for number in range(40)}
    for number, body in bodies.items():
        await put(segments, number, body)
    assert len(segments.numbers()) > 10
    for _ in range(2):
        for number, body in bodies.items():
            assert await read(segments, number) == body
            assert descriptors(tmp_path) <= 4  # one more where a fragment is just being written
    await close(segments)
    assert descriptors(tmp_path) == 0
    again = await open_segments(tmp_path, config)
    assert await read(again, 0) == bodies[0]
    assert descriptors(tmp_path) <= 3
    again.abandon()
    again._index.close()


async def test_a_file_that_is_let_go_under_a_reader_stays_open_for_it(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path, replace(CONFIG, open_files_max=1))
    for number in range(8):
        await put(segments, number, os.urandom(300_000))
    first = segments._segments[found(segments, 0).segment]
    held = segments._descriptors.hold(first)
    for number in range(1, 8):
        await read(segments, number)
    assert first.opened is None
    assert held.file.read_at(found(segments, 0).data_offset, 300_000)
    await close(segments)


@pytest.mark.parametrize("what", ["header", "block"])
async def test_an_unknown_version_is_refused(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = await open_segments(tmp_path)
    if what == "block":
        monkeypatch.setattr("edgestore.disk.fragments.FORMAT", 2)
    await put(segments, 1, b"content")
    monkeypatch.undo()
    kill(segments)
    if what == "header":
        monkeypatch.setattr("edgestore.disk.fragments.FORMAT", 2)
        header = encode_segment_header(1, segments._segments[1].salt)
        monkeypatch.undo()
        with segment_file(tmp_path, 1).open("r+b") as file:
            file.write(header)
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(UnknownFormat, match="version that wrote it"):
        await open_segments(tmp_path)
