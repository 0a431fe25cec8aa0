"""Sectors that a disk cannot read (EIO) when a node starts: the start goes round those of a segment and loses nothing
else; those of the journal it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgestore.disk import Journal, SegmentFile
from edgestore.disk import open_segments as open_files
from edgestore.disk.journal_recovery import salvage_records
from edgestore.disk.readable import UNREADABLE_BYTES, ReadableFile
from edgestore.disk.scrubber import scrub
from edgestore.disk.segments import Segments
from edgestore.errors import Corrupt
from tests.unit.disk.place import (
    CONFIG,
    FaultyFiles,
    chunk_id,
    close,
    compact_all,
    found,
    kill,
    open_segments,
    page_of,
    put,
    read,
    segment_file,
)
from tests.unit.disk.test_journal import CONFIG as JOURNAL_CONFIG
from tests.unit.disk.test_journal import abandon, append, entry, newest_file, open_journal

SIZE = 20_000
VICTIM = 7


async def fill(folder: Path, files: FaultyFiles) -> tuple[Segments, dict[int, bytes]]:
    """Fragments in one segment, and one of them in a page that cannot be read from now on."""
    segments = await open_segments(folder, files=files)
    bodies = {number: os.urandom(SIZE) for number in range(20)}
    for number, body in bodies.items():
        await put(segments, number, body)
    victim = found(segments, VICTIM)
    files.unreadable.add((segment_file(Path("."), victim.segment).as_posix(), page_of(victim.offset)))
    return segments, bodies


async def read_all(segments: Segments, bodies: dict[int, bytes]) -> None:
    assert {number: await read(segments, number) for number in bodies} == bodies


async def test_a_start_goes_round_what_cannot_be_read_and_nothing_is_lost_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without rows all of a segment is scanned. When the disk gives the page again, the fragment is there again."""
    files = FaultyFiles(str(tmp_path))
    segments, bodies = await fill(tmp_path, files)
    bad = found(segments, VICTIM).segment
    kill(segments)
    shutil.rmtree(tmp_path / "index")
    again = await open_segments(tmp_path, files=files)
    assert "segment-unreadable" in caplog.text
    assert again.unreadable == {bad}
    assert again.lookup(chunk_id(VICTIM)) is None
    others = {number: body for number, body in bodies.items() if number not in (VICTIM - 1, VICTIM)}
    await read_all(again, others)
    with pytest.raises(Corrupt):  # its last bytes lie in the page
        await read(again, VICTIM - 1)
    for number in others.keys() | {VICTIM - 1}:
        again.delete(chunk_id(number))
    await compact_all(again)
    assert segment_file(tmp_path, bad).exists()
    await close(again)
    files.unreadable.clear()
    mended = await open_segments(tmp_path, files=files)
    assert not mended.unreadable
    assert await read(mended, VICTIM) == bodies[VICTIM]
    for number in bodies:
        mended.delete(chunk_id(number))
    await compact_all(mended)
    assert not segment_file(tmp_path, bad).exists()
    await close(mended)


async def test_a_fragment_that_has_a_row_is_served_and_the_scrub_names_it(tmp_path: Path) -> None:
    """The page holds its block, and the end of the fragment before."""
    files = FaultyFiles(str(tmp_path))
    segments, bodies = await fill(tmp_path, files)
    files.unreadable.clear()
    await close(segments)
    again = await open_segments(tmp_path, files=files)
    victim = found(again, VICTIM)
    files.unreadable.add((segment_file(Path("."), victim.segment).as_posix(), page_of(victim.offset)))
    report = await scrub(again, CONFIG)
    assert report.damaged == 2
    assert again.is_damaged(chunk_id(VICTIM - 1))
    assert again.is_damaged(chunk_id(VICTIM))
    assert await read(again, VICTIM + 1) == bodies[VICTIM + 1]
    await close(again)


async def test_of_two_copies_the_later_one_does_not_count_where_it_cannot_be_read(tmp_path: Path) -> None:
    """A crash came before the first one was removed."""
    files = FaultyFiles(str(tmp_path))
    segments, bodies = await fill(tmp_path, files)
    files.unreadable.clear()
    before = found(segments, VICTIM)
    segments._next(None, 1)
    writer = await segments.copy(before, bodies[VICTIM])
    await segments.publish([(before, writer)])
    later = found(segments, VICTIM)
    assert later.segment > before.segment
    kill(segments)
    shutil.rmtree(tmp_path / "index")
    path = segment_file(Path("."), later.segment).as_posix()
    files.unreadable.add((path, page_of(later.data_offset + SIZE // 2)))
    again = await open_segments(tmp_path, files=files)
    assert found(again, VICTIM).segment == before.segment
    await read_all(again, bodies)
    await close(again)


async def test_salvage_goes_round_what_cannot_be_read(tmp_path: Path) -> None:
    files = FaultyFiles(str(tmp_path))
    segments, bodies = await fill(tmp_path, files)
    kill(segments)
    there = {info.fragment.chunk_id for file in open_files(files, "segments") for info in SegmentFile.scan(file)}
    assert there == {chunk_id(number) for number in bodies if number != VICTIM}


async def test_a_journal_that_cannot_be_read_is_refused_with_what_to_do_and_salvage_goes_round(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 40):
        await append(journal, entry(index, b"acknowledged" * 50))
    abandon(journal)
    files, name = FaultyFiles(str(tmp_path)), newest_file(tmp_path).name
    files.unreadable.add((f"journal/{name}", 2 * UNREADABLE_BYTES))
    with pytest.raises(Corrupt, match="salvage") as refused:
        Journal.open(files, "journal", JOURNAL_CONFIG, os.urandom)
    assert f"{name} at offset {2 * UNREADABLE_BYTES} (" in str(refused.value)
    assert "cannot be read" in str(refused.value)
    left = [record.index for record in salvage_records(files, "journal", 0)]
    assert left[0] == 1
    assert left[-1] == 39
    assert 25 < len(left) < 39


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 8191, 12_288, 20_000])
@pytest.mark.parametrize("length", [1, 512, 4096, 10_000, 100_000])
def test_only_the_page_of_a_bad_sector_is_zeroes(tmp_path: Path, at: int, length: int) -> None:
    content = os.urandom(20_123)
    (tmp_path / "file").write_bytes(content)
    files = FaultyFiles(str(tmp_path))
    files.unreadable.update({("file", 4096), ("file", 16_384)})
    file = ReadableFile(files.open("file"))
    expected = bytearray(content)
    expected[4096:8192], expected[16_384:20_123] = bytes(4096), bytes(20_123 - 16_384)
    found = file.read_at(at, length)
    assert found == expected[at : at + length]
    pages = [page for page in (4096, 16_384) if page < at + length and at < page + 4096 and at < len(content)]
    assert file.unreadable == pages
