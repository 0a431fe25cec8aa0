"""Segments find what they hold, check it on every read, give space back, and are their own index."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from edgestore.config import DiskConfig
from edgestore.disk import FragmentUnit, RocksIndex, Segments, SystemFiles, compact, scrub
from edgestore.disk.files import Buffer, SystemFile
from edgestore.errors import Corrupt, NotFound, StorageFull
from edgestore.kernels import page_crcs

CONFIG = DiskConfig(segment_bytes=1 << 20, reserve_bytes=0, compaction_bytes_per_s=1 << 30, scrub_bytes_per_s=1 << 30)


def chunk_id(number: int) -> bytes:
    """An id."""
    return (1).to_bytes(8, "big") + number.to_bytes(8, "big")


async def open_segments(folder: Path, config: DiskConfig = CONFIG) -> Segments:
    """As the core opens them."""
    files = SystemFiles(str(folder))
    index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
    return await Segments.open(files, "segments", index, config, entropy=os.urandom)


async def sync(segments: Segments) -> None:
    """Waits for the group sync."""
    future = asyncio.get_running_loop().create_future()
    segments.sync(lambda error: future.set_exception(error) if error else future.set_result(None))
    await future


async def put(segments: Segments, number: int, data: bytes) -> None:
    """A small fragment."""
    segments.put(chunk_id(number), data, (FragmentUnit(len(data), len(data)),))
    await sync(segments)


async def close(segments: Segments) -> None:
    """Closes both stores."""
    await segments.close()
    segments._index.close()


def kill(segments: Segments) -> None:
    """Ends the threads without flushing anything."""
    segments._sync_worker.close()
    segments._readers.close()
    segments._index.close()


async def compact_all(segments: Segments) -> int:
    """Turns of compaction until there is nothing to do."""
    removed = 0
    while gone := await compact(segments, CONFIG):
        removed += gone
    return removed


async def read(segments: Segments, number: int) -> bytes:
    """The whole fragment."""
    info = segments.lookup(chunk_id(number))
    assert info is not None
    return bytes(await segments.read(info, 0, info.fragment.stored_bytes))


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


class FullFiles(SystemFiles):
    """A disk that is full when told to be: the bottom may be replaced."""

    full = False

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SystemFile:
        """A file that asks before it writes."""
        plain, files = super().open(path, create=create, write=write), self

        class Full(SystemFile):
            """See FullFiles."""

            def write_at(self, offset: int, *parts: Buffer) -> None:
                """Fails when told to."""
                if files.full:
                    raise StorageFull("no space left")
                super().write_at(offset, *parts)

        return Full(plain.path, plain._fd)


async def test_a_block_that_met_a_full_disk_in_anothers_batch_is_there_after_the_next_sync(tmp_path: Path) -> None:
    files = FullFiles(str(tmp_path))
    index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
    segments = await Segments.open(files, "segments", index, CONFIG, entropy=os.urandom)
    await put(segments, 0, b"makes the segment")
    body = os.urandom(70_000)
    segments.put(chunk_id(1), body, (FragmentUnit(len(body), len(body)),))
    files.full = True
    with pytest.raises(StorageFull):
        await sync(segments)
    files.full = False
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
