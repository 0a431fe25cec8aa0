"""A full disk: the journal refuses records before it writes any, opens without a new file, and recovers with space."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from edgestore.disk import Journal, RecordKind, SystemFiles
from edgestore.disk.journal_frames import FRAME_HEADER_BYTES, Place, encode_frame, encode_record
from edgestore.disk.journal_recovery import recover
from edgestore.disk.system_files import SystemFile
from edgestore.errors import StorageFull, TooBusy
from tests.unit.disk.test_journal import CONFIG, abandon, append, end_of_frames, entry, newest_file, open_journal


class FullFiles(SystemFiles):
    """A disk that has no room for new files when told so: the bottom may be replaced."""

    is_full = False

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        """A file that asks before it grows."""
        file, files = super().open(path, create=create, write=write), self

        class Growing(SystemFile):
            """See FullFiles."""

            def allocate(self, length: int) -> None:
                """Leaves half of it behind, as a file system may."""
                if files.is_full:
                    self.truncate(length // 2)
                    raise StorageFull("no space left")
                super().allocate(length)

        return Growing(file.path, file._fd)


def open_on(files: FullFiles) -> Journal:
    """As the node opens it."""
    return Journal.open(files, "journal", CONFIG, os.urandom)


def indices(journal: Journal) -> list[int]:
    """Of the entries found."""
    return [record.index for record in journal.records(0) if record.kind is RecordKind.ENTRY]


async def fill(journal: Journal, index: int) -> int:
    """Appends entries from `index` on until the disk is full; returns the first index that was refused."""
    for number in range(index, index + 2000):
        try:
            await append(journal, entry(number, os.urandom(700)))
        except TooBusy:  # the spare is on its way
            await asyncio.sleep(0.01)
            await append(journal, entry(number, os.urandom(700)))
        except StorageFull:
            return number
    raise AssertionError("the disk never was full")


async def spare_is_there(journal: Journal) -> None:
    """Waits for the next file."""
    async with asyncio.timeout(5):
        while not journal._has_spare:
            await asyncio.sleep(0.005)


async def test_a_spare_is_always_kept_ahead(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 300):
        await append(journal, entry(index, b"x" * 700))
        if index % 50 == 0:
            await spare_is_there(journal)
            assert (tmp_path / "journal" / "spare").stat().st_size == CONFIG.journal_file_bytes
    await journal.close()


async def test_a_full_disk_refuses_records_and_recovers(tmp_path: Path) -> None:
    files = FullFiles(str(tmp_path))
    journal = open_on(files)
    failures: list[BaseException] = []
    journal.on_failure = failures.append
    await append(journal, entry(1))
    await spare_is_there(journal)
    files.is_full = True
    refused = await fill(journal, 2)
    assert refused > 100, "the spare was used"
    assert journal.is_short
    assert (tmp_path / "journal" / "spare").stat().st_size == 0, "a piece of a file is of no use to anybody"
    for _ in range(3):
        with pytest.raises(StorageFull):
            journal.append(entry(refused, b"x" * 700))
    journal.trim(0, refused - 1)  # what a flush gives back is a file
    await spare_is_there(journal)
    next_refused = await fill(journal, refused)
    files.is_full = False
    async with asyncio.timeout(5):
        while not journal._has_spare:
            with pytest.raises((StorageFull, TooBusy)):
                journal.append(entry(next_refused, b"x" * 700))
            await asyncio.sleep(0.05)
    await append(journal, entry(next_refused, b"x" * 700))
    assert failures == []
    await journal.close()
    again = open_on(files)
    assert indices(again)[-1] == next_refused
    await again.close()


async def test_control_records_have_room_in_a_full_journal(tmp_path: Path) -> None:
    files = FullFiles(str(tmp_path))
    journal = open_on(files)
    await spare_is_there(journal)
    files.is_full = True
    refused = await fill(journal, 1)
    await append(journal, entry(refused, b"\x01"))
    await journal.close()
    again = open_on(files)
    await append(again, entry(refused + 1, b"\x01"))
    assert indices(again) == list(range(1, refused + 1))
    await again.close()


async def test_a_full_disk_opens_and_goes_on_in_the_last_file(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 20):
        await append(journal, entry(index, b"before"))
    await spare_is_there(journal)
    abandon(journal)
    await asyncio.sleep(0.05)
    (tmp_path / "journal" / "spare").unlink()
    files = FullFiles(str(tmp_path))
    files.is_full = True
    for turn in range(3):
        again = open_on(files)
        assert indices(again) == list(range(1, 20 + turn))
        await append(again, entry(20 + turn, b"after"))
        abandon(again)
    assert len(list((tmp_path / "journal").glob("*.journal"))) == 1
    files.is_full = False
    last = open_on(files)
    assert indices(last) == list(range(1, 23))
    await last.close()


async def test_no_stale_frame_follows_where_the_last_file_goes_on(tmp_path: Path) -> None:
    """Behind a torn frame lies a whole one: with a new frame in the gap it would count, were it left there."""
    journal = open_journal(tmp_path)
    await append(journal, entry(1, b"kept"))
    await spare_is_there(journal)
    abandon(journal)
    path = newest_file(tmp_path)
    (tmp_path / "journal" / "spare").unlink()
    checked = recover(SystemFiles(str(tmp_path)), "journal").files[-1]
    end = end_of_frames(path)
    gap = encode_frame(Place(checked.number, end), checked.salt, Place(checked.number, end), [encode_record(entry(2))])
    behind = Place(checked.number, end + len(gap))
    stale = encode_frame(behind, checked.salt, Place(checked.number, end), [encode_record(entry(3, b"stale"))])
    with path.open("r+b") as file:
        file.seek(end + FRAME_HEADER_BYTES)
        file.write(gap[FRAME_HEADER_BYTES:] + stale)  # the header of the first frame never reached the disk
    files = FullFiles(str(tmp_path))
    files.is_full = True
    again = open_on(files)
    await append(again, entry(2))
    abandon(again)
    last = open_journal(tmp_path)
    assert indices(last) == [1, 2]
    await last.close()
