"""Reading a journal at start: which frames count, where the torn tail begins, and what is damage (rule 5).

Rule: what lies before a synced place that any frame records must be whole; behind it anything may be torn, and is cut.
A sector that cannot be read may have held what was acknowledged, so a start goes round none. A file is read through a
window: of its records only those stay in memory that somebody keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgestore.disk.files import File, Files
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    HEADER_KINDS,
    Frame,
    JournalRecord,
    Place,
    RecordKind,
    decode_file_header,
    decode_frame,
    frame_bytes,
)
from edgestore.disk.readable import ReadableFile
from edgestore.errors import Corrupt, DiskFailed

log = logging.getLogger("edgestore.disk")

ENDING = ".journal"
SPARE = "spare"
WINDOW_BYTES = 1024 * 1024


@dataclass
class RecoveredFile:
    """One file. `end`: offset behind its last frame that counts."""

    number: int
    path: str
    salt: bytes
    end: int = FILE_HEADER_BYTES
    newest_index: dict[int, int] = field(default_factory=dict)


@dataclass
class Recovered:
    """What was found: `files` in ascending order, `headers`: the newest record of each group and header kind."""

    files: list[RecoveredFile] = field(default_factory=list)
    headers: dict[tuple[int, RecordKind], JournalRecord] = field(default_factory=dict)
    synced: dict[int, int] = field(default_factory=dict)
    """File number -> highest offset that some frame says was synced."""


class FrameReader:
    """The frames of one file."""

    def __init__(self, file: File | ReadableFile, number: int, salt: bytes) -> None:
        self._file, self._number, self._salt = file, number, salt
        self._start, self._window = 0, b""
        self.size_bytes = file.size()

    def frame_at(self, offset: int) -> Frame | None:
        """The frame at an offset; None where none checks out. Raises ValueError for a record of an unknown kind."""
        if not self._holds(offset, FRAME_HEADER_BYTES):
            return None
        length = frame_bytes(memoryview(self._window), offset - self._start)
        if length is None or offset + length > self.size_bytes or not self._holds(offset, length):
            return None
        return decode_frame(memoryview(self._window), Place(self._number, offset), self._salt, self._start)

    def frames(self, end: int | None = None) -> Iterator[Frame]:
        """From the first one on, up to the first that does not check out, or up to `end`."""
        at = FILE_HEADER_BYTES
        while (end is None or at < end) and (frame := self.frame_at(at)) is not None:
            yield frame
            at = frame.end

    def find_magic(self, offset: int) -> int:
        """The next offset at which a frame may begin; -1 for none."""
        while self._holds(offset, FRAME_HEADER_BYTES):
            found = self._window.find(FRAME_MAGIC, offset - self._start)
            if found >= 0:
                return self._start + found
            offset = self._start + len(self._window) - len(FRAME_MAGIC) + 1
        return -1

    def _holds(self, offset: int, length: int) -> bool:
        """Whether these bytes are in the window, which is moved there where they are not."""
        if not (self._start <= offset and offset + length <= self._start + len(self._window)):
            self._window = b""
            self._start, self._window = offset, _read(self._file, offset, max(WINDOW_BYTES, length))
        return length <= len(self._window) - (offset - self._start)


def file_path(folder: str, number: int) -> str:
    """The path of a file of the journal."""
    return f"{folder}/{number:016d}{ENDING}"


def recover(files: Files, folder: str) -> Recovered:
    """Checks every file. Raises Corrupt for damage in what was synced, and for what another version wrote."""
    found = Recovered()
    for number, path in journal_files(files, folder):
        if found.files and number != found.files[-1].number + 1:
            raise damaged(file_path(folder, found.files[-1].number + 1), 0, "the file is missing")
        file = files.open(path, write=False)
        try:
            found.files.append(_check_file(file, path, number, found))
        except ValueError as error:
            raise Corrupt(f"{path}: {error}; it was written by another version of edgestore", path=path) from error
        finally:
            file.close()
    for checked in found.files:
        if checked.end < found.synced.get(checked.number, 0):
            raise damaged(checked.path, checked.end, f"it was synced up to offset {found.synced[checked.number]}")
    if found.files and max(found.synced, default=0) > found.files[-1].number:
        raise damaged(file_path(folder, max(found.synced)), 0, "the file is missing")
    return found


def journal_files(files: Files, folder: str) -> list[tuple[int, str]]:
    """(number, path) of every file, ascending."""
    stems = [name.removesuffix(ENDING) for name in files.list(folder) if name.endswith(ENDING)]
    return sorted((int(stem), f"{folder}/{stem}{ENDING}") for stem in stems if stem.isdigit())


def _check_file(file: File, path: str, number: int, found: Recovered) -> RecoveredFile:
    salt = decode_file_header(_read(file, 0, FILE_HEADER_BYTES), number)
    if salt is None:
        raise damaged(path, 0, "its header does not check out")
    checked, reader = RecoveredFile(number, path, salt), FrameReader(file, number, salt)
    for frame in reader.frames():
        _note_synced(found, frame.synced)
        checked.end = frame.end
        for record in frame.records:
            if record.kind in HEADER_KINDS:
                found.headers[record.group, record.kind] = record
            checked.newest_index[record.group] = max(checked.newest_index.get(record.group, 0), record.index)
    for frame in find_frames(reader, checked.end):
        _note_synced(found, frame.synced)
    return checked


def find_frames(reader: FrameReader, start: int) -> Iterator[Frame]:
    """Every frame that checks out from `start` on, wherever it lies: what is left behind damage."""
    at = reader.find_magic(start)
    while at >= 0:
        frame = reader.frame_at(at)
        if frame is not None:
            yield frame
        at = reader.find_magic(at + 1)


def read_records(files: Files, recovered: list[RecoveredFile], group: int) -> Iterator[JournalRecord]:
    """The records of a group in log order, out of files that `recover` has checked."""
    for checked in recovered:
        file = files.open(checked.path, write=False)
        try:
            for frame in FrameReader(file, checked.number, checked.salt).frames(checked.end):
                yield from (record for record in frame.records if record.group == group)
        finally:
            file.close()


def salvage_records(files: Files, folder: str, group: int) -> Iterator[JournalRecord]:
    """Whatever still checks out, in the order of the files, before damage and behind it: for salvage."""
    for number, path in journal_files(files, folder):
        try:
            file = files.open(path, write=False)
            try:
                for frame in _salvage_frames(ReadableFile(file), number):
                    yield from (record for record in frame.records if record.group == group)
            finally:
                file.close()
        except (DiskFailed, OSError, ValueError) as error:
            log.warning("journal-rest-left-out path=%s reason=%s", path, error)


def _salvage_frames(file: ReadableFile, number: int) -> Iterator[Frame]:
    """Raises ValueError where nothing of the file can be told."""
    salt = decode_file_header(file.read_at(0, FILE_HEADER_BYTES), number)
    if salt is None:
        raise ValueError("the header of the file does not check out")
    reader = FrameReader(file, number, salt)
    at = reader.find_magic(FILE_HEADER_BYTES)
    while at >= 0:
        try:
            frame = reader.frame_at(at)
        except ValueError:  # a record of a version that is not known here
            frame = None
        if frame is not None:
            yield frame
        at = reader.find_magic(at + 1)


def _read(file: File | ReadableFile, offset: int, length: int) -> bytes:
    """Raises Corrupt that names the first page which cannot be read."""
    try:
        return file.read_at(offset, length)
    except DiskFailed as error:
        readable = ReadableFile(file)
        readable.read_at(offset, length)
        raise _refusal("cannot be read", file.path, next(iter(readable.unreadable), offset), str(error)) from error


def _note_synced(found: Recovered, place: Place) -> None:
    found.synced[place.file] = max(found.synced.get(place.file, 0), place.offset)


def damaged(path: str, offset: int, what: str) -> Corrupt:
    """The refusal of rule 5."""
    return _refusal("is damaged in its synced part", path, offset, what)


def _refusal(state: str, path: str, offset: int, what: str) -> Corrupt:
    message = (
        f"the journal {state}: {path} at offset {offset} ({what}). Acknowledged writes may be lost, so the node does "
        "not start. Restore the file from a copy, or save what still checks out with `edgestore doctor --salvage`"
    )
    return Corrupt(message, path=path, offset=offset)
