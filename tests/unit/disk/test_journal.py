"""The journal keeps what it acknowledged, cuts what is torn, and refuses what is damaged (rule 5)."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgestore.config import DiskConfig
from edgestore.disk import Journal, JournalRecord, RecordKind, SystemFiles
from edgestore.disk.files import Buffer
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    Place,
    decode_file_header,
    decode_frame,
    encode_file_header,
    encode_frame,
    encode_record,
)
from edgestore.disk.system_files import SystemFile
from edgestore.errors import Corrupt, DiskFailed, InUse, TooBusy

CONFIG = DiskConfig(journal_file_bytes=64 * 1024, journal_idle_mark_ms=20)
SALT = bytes(range(16))


def entry(index: int, payload: bytes = b"command", group: int = 0) -> JournalRecord:
    """A log entry."""
    return JournalRecord(group, 0, RecordKind.ENTRY, index, 1, payload)


async def append(journal: Journal, *records: JournalRecord) -> None:
    """Appends and waits for the sync."""
    future = asyncio.get_running_loop().create_future()
    for record in records:
        journal.append(record)
    journal.sync(lambda: future.set_result(None))
    await future


def open_journal(folder: Path, config: DiskConfig = CONFIG) -> Journal:
    """As the node opens it."""
    return Journal.open(SystemFiles(str(folder)), "journal", config, os.urandom)


def abandon(journal: Journal) -> None:
    """A kill: nothing is closed but the thread."""
    if journal._idle is not None:
        journal._idle.cancel()
    journal._worker.close()


def newest_file(folder: Path) -> Path:
    """The file that was written last."""
    return sorted((folder / "journal").glob("*.journal"))[-1]


def end_of_frames(path: Path) -> int:
    """Offset behind the last frame that checks out."""
    content = path.read_bytes()
    number = int(path.stem)
    salt = decode_file_header(content[:FILE_HEADER_BYTES], number)
    assert salt is not None
    at = FILE_HEADER_BYTES
    while (frame := decode_frame(memoryview(content), Place(number, at), salt)) is not None:
        at = frame.end
    return at


@pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
async def test_synced_records_are_there_after_a_restart(tmp_path: Path, clean: bool) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 200):
        await append(journal, entry(index, os.urandom(index * 7)), entry(index, b"other group", group=3))
    if clean:
        await journal.close()
    else:
        abandon(journal)
    again = open_journal(tmp_path)
    assert [record.index for record in again.records(0) if record.kind is RecordKind.ENTRY] == list(range(1, 200))
    assert len(list(again.records(3))) == 199
    assert list(again.records(7)) == []
    await again.close()


@pytest.mark.parametrize("tail", [bytes(600), b"\xff" * 600, b"ESJB" * 150], ids=["zeroes", "ones", "magic"])
async def test_a_torn_tail_is_cut(tmp_path: Path, tail: bytes) -> None:
    journal = open_journal(tmp_path)
    await append(journal, *(entry(index) for index in range(1, 20)))
    abandon(journal)
    path = newest_file(tmp_path)
    end = end_of_frames(path)
    with path.open("r+b") as file:
        file.seek(end)
        file.write(tail)
    again = open_journal(tmp_path)
    assert len(list(again.records(0))) == 19
    await append(again, entry(20))
    await again.close()
    last = open_journal(tmp_path)
    assert len(list(last.records(0))) == 20
    await last.close()


async def test_a_batch_that_tore_is_not_served_by_half(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, entry(1))
    end = end_of_frames(newest_file(tmp_path))
    await append(journal, *(entry(index, b"x" * 500) for index in range(2, 10)))
    abandon(journal)
    path = newest_file(tmp_path)
    with path.open("r+b") as file:
        file.seek(end + 2048)
        file.write(bytes(512))
    again = open_journal(tmp_path)
    assert [record.index for record in again.records(0)] == [1]
    await again.close()


async def test_damage_before_the_synced_place_is_refused_with_what_to_do(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 50):
        await append(journal, entry(index, b"y" * 100))
    await journal.close()
    path = newest_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[end_of_frames(path) // 2] ^= 0x04
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="salvage") as refused:
        open_journal(tmp_path)
    assert path.name in str(refused.value)


async def test_every_flipped_bit_in_a_closed_journal_is_found(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, entry(1, b"payload"), entry(2, b"payload"))
    await journal.close()
    path = newest_file(tmp_path)
    content = path.read_bytes()
    marked = Place(int(path.stem), 0)
    rng = random.Random(5)
    used = end_of_frames(path)
    for _ in range(120):
        at = rng.randrange(used - 40)
        damaged = bytearray(content)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            again = open_journal(tmp_path)
        except Corrupt:
            continue
        found = [record.payload for record in again.records(0)]
        await again.close()
        assert found == [b"payload", b"payload"], (marked, at)  # the flip was in padding
        for extra in sorted((tmp_path / "journal").glob("*.journal"))[-1:]:
            extra.unlink()


async def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 400):
        await append(journal, entry(index, b"z" * 1000))
    await journal.close()
    files = sorted((tmp_path / "journal").glob("*.journal"))
    assert len(files) > 3
    files[1].unlink()
    with pytest.raises(Corrupt, match="missing"):
        open_journal(tmp_path)


async def test_stale_bytes_of_a_reused_file_never_pass_for_frames(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 300):
        await append(journal, entry(index, b"old" * 200))
    journal.trim(0, 299)
    await asyncio.sleep(0.1)
    assert (tmp_path / "journal" / "spare").exists()
    for index in range(300, 500):
        await append(journal, entry(index, b"new" * 200))
    abandon(journal)
    again = open_journal(tmp_path)
    found = [record for record in again.records(0) if record.kind is RecordKind.ENTRY]
    assert [record.index for record in found][-200:] == list(range(300, 500))
    assert all(record.payload == (b"old" if record.index < 300 else b"new") * 200 for record in found)
    await again.close()


async def test_trimming_keeps_what_any_group_needs(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 300):
        await append(journal, entry(index, b"a" * 500), entry(index, b"b" * 500, group=1))
    before = len(list((tmp_path / "journal").glob("*.journal")))
    journal.trim(0, 299)
    await asyncio.sleep(0.1)
    assert len(list((tmp_path / "journal").glob("*.journal"))) == before
    journal.trim(1, 299)
    await asyncio.sleep(0.1)
    assert len(list((tmp_path / "journal").glob("*.journal"))) < before
    await journal.close()


async def test_each_file_begins_with_hard_state(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, JournalRecord(0, 0, RecordKind.HARD_STATE, term=7, payload=b"node-1"))
    for index in range(1, 300):
        await append(journal, entry(index, b"a" * 600))
    journal.trim(0, 299)
    await asyncio.sleep(0.1)
    await journal.close()
    again = open_journal(tmp_path)
    states = [record for record in again.records(0) if record.kind is RecordKind.HARD_STATE]
    assert states
    assert all((state.term, state.payload) == (7, b"node-1") for state in states)
    await again.close()


class FailingFiles(SystemFiles):
    """A disk whose syncs fail when told to: the bottom may be replaced."""

    failing = False

    def open(self, path: str, *, create: bool = False, write: bool = True) -> Any:
        """A file that asks before it syncs."""
        file = super().open(path, create=create, write=write)

        class Failing(type(file)):  # type: ignore[misc]
            """See FailingFiles."""

            def write_synced(inner, offset: int, *parts: Buffer) -> None:
                """The bytes reach the page cache in any case."""
                inner.write_at(offset, *parts)
                inner.sync()

            def sync(inner) -> None:
                """Fails when told to."""
                if self.failing:
                    raise DiskFailed("fdatasync failed")
                super().sync()

        return Failing(file.path, file._fd)


async def test_a_failed_sync_is_fatal_and_acknowledges_nothing(tmp_path: Path) -> None:
    files = FailingFiles(str(tmp_path))
    journal = Journal.open(files, "journal", CONFIG, os.urandom)
    failures: list[BaseException] = []
    journal.on_failure = failures.append
    await append(journal, entry(1))
    files.failing = True
    acknowledged: list[int] = []
    journal.append(entry(2))
    journal.sync(lambda: acknowledged.append(2))
    await asyncio.sleep(0.1)
    files.failing = False
    with pytest.raises(DiskFailed):
        journal.append(entry(3))
    assert len(failures) == 1
    assert acknowledged == []
    abandon(journal)


class NotedFile(SystemFile):
    """Notes what is written to it."""

    notes: ClassVar[list[tuple[str, int, bytes]]] = []

    def write_at(self, offset: int, *parts: Buffer) -> None:
        self.notes.append((self.path, offset, b"".join(parts)))
        super().write_at(offset, *parts)


class NotingFiles(SystemFiles):
    """Opens files that note."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SystemFile:
        file = super().open(path, create=create, write=write)
        return NotedFile(file.path, file._fd)


async def test_after_a_failed_sync_what_the_page_cache_holds_is_written_again(tmp_path: Path) -> None:
    """The kernel takes the pages of a failed sync for written: a second sync alone would put nothing on the disk."""
    files = FailingFiles(str(tmp_path))
    journal = Journal.open(files, "journal", CONFIG, os.urandom)
    await append(journal, entry(1))
    files.failing = True
    journal.append(entry(2))
    journal.sync(lambda: None)
    await asyncio.sleep(0.1)
    abandon(journal)
    last = newest_file(tmp_path)
    frames = last.read_bytes()[: end_of_frames(last)]
    NotedFile.notes.clear()
    journal = Journal.open(NotingFiles(str(tmp_path)), "journal", CONFIG, os.urandom)
    assert [record.index for record in journal.records(0)] == [1, 2]
    again = [(at, data) for path, at, data in NotedFile.notes if path == f"journal/{last.name}" and data.strip(b"\0")]
    assert again
    assert all(frames[at : at + len(data)] == data for at, data in again)
    assert max(at + len(data) for at, data in again) == len(frames)
    assert encode_record(entry(2)) in b"".join(data for _, data in again)
    abandon(journal)


async def test_the_buffer_is_bounded(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, DiskConfig(journal_file_bytes=1 << 20, journal_pending_max_bytes=10_000))
    with pytest.raises(TooBusy):
        for index in range(1, 100):
            journal.append(entry(index, b"x" * 1000))
    await journal.close()


async def test_an_idle_second_records_what_was_synced(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, entry(1))
    before = end_of_frames(newest_file(tmp_path))
    await asyncio.sleep(0.15)
    assert end_of_frames(newest_file(tmp_path)) > before
    await journal.close()


def test_a_frame_counts_only_where_it_was_written() -> None:
    frame = encode_frame(Place(3, 64), SALT, Place(2, 999), [encode_record(entry(5))])
    content = bytearray(200)
    content[64 : 64 + len(frame)] = frame
    decoded = decode_frame(memoryview(content), Place(3, 64), SALT)
    assert decoded is not None
    assert decoded.synced == Place(2, 999)
    assert decoded.records == [entry(5)]
    assert decode_frame(memoryview(content), Place(4, 64), SALT) is None
    assert decode_frame(memoryview(content), Place(3, 64), bytes(16)) is None
    moved = bytes(8) + bytes(content)
    assert decode_frame(memoryview(moved), Place(3, 72), SALT) is None


def test_an_unknown_format_is_refused() -> None:
    header = bytearray(encode_file_header(1, SALT))
    assert decode_file_header(bytes(header), 1) == SALT
    assert decode_file_header(bytes(header), 2) is None
    from edgestore.kernels import crc32c

    header[4] = 9
    header[32:36] = crc32c(bytes(header[:32])).to_bytes(4, "little")
    with pytest.raises(ValueError, match="format 9"):
        decode_file_header(bytes(header), 1)


async def test_a_record_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    await append(journal, entry(1))
    record = bytearray(encode_record(entry(2)))
    record[0] = 99
    journal._pending.append(bytes(record))
    await append(journal, entry(3))
    await journal.close()
    with pytest.raises(Corrupt, match="kind 99 is not known; it was written by another version"):
        open_journal(tmp_path)


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    first = SystemFiles(str(tmp_path)).lock("lock")
    with pytest.raises(InUse, match="in use"):
        SystemFiles(str(tmp_path)).lock("lock")
    first.release()
    SystemFiles(str(tmp_path)).lock("lock").release()


async def test_a_sync_that_fails_at_the_close_is_reported_and_the_close_ends(tmp_path: Path) -> None:
    files = FailingFiles(str(tmp_path))
    journal = Journal.open(files, "journal", CONFIG, os.urandom)
    failures: list[BaseException] = []
    journal.on_failure = failures.append
    journal.append(entry(1))
    files.failing = True
    async with asyncio.timeout(5):
        await journal.close()
    assert len(failures) == 1
