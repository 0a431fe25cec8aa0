"""Reading a journal at start: which frames count, where the torn tail begins, and what is damage (rule 5).

Rule: what lies before a synced place that any frame records must be whole; behind it anything may be torn, and is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgestore.disk.files import Files
from edgestore.disk.journal_frames import (
    FILE_HEADER_BYTES,
    JournalRecord,
    Place,
    decode_file_header,
    decode_frame,
    find_frames,
)
from edgestore.errors import Corrupt

ENDING = ".journal"
SPARE = "spare"


@dataclass
class RecoveredFile:
    """One file. `end`: offset behind its last frame that counts; `used`: behind its last byte that is not zero."""

    number: int
    path: str
    end: int = FILE_HEADER_BYTES
    used: int = 0
    newest_index: dict[int, int] = field(default_factory=dict)


@dataclass
class Recovered:
    """What was found: `files` in ascending order, `records` by group in log order."""

    files: list[RecoveredFile] = field(default_factory=list)
    records: dict[int, list[JournalRecord]] = field(default_factory=dict)
    synced: dict[int, int] = field(default_factory=dict)
    """File number -> highest offset that some frame says was synced."""


def file_path(folder: str, number: int) -> str:
    """The path of a file of the journal."""
    return f"{folder}/{number:016d}{ENDING}"


def recover(files: Files, folder: str) -> Recovered:
    """Reads every file. Raises Corrupt for damage in what was synced."""
    found = Recovered()
    for name in files.list(folder):
        stem = name.removesuffix(ENDING)
        if name == stem or not stem.isdigit():
            continue
        number = int(stem)
        if found.files and number != found.files[-1].number + 1:
            raise damaged(file_path(folder, found.files[-1].number + 1), 0, "the file is missing")
        found.files.append(_read_file(files, f"{folder}/{name}", number, found))
    for file in found.files:
        if file.end < found.synced.get(file.number, 0):
            raise damaged(file.path, file.end, f"it was synced up to offset {found.synced[file.number]}")
    if found.files and max(found.synced, default=0) > found.files[-1].number:
        raise damaged(file_path(folder, max(found.synced)), 0, "the file is missing")
    return found


def _read_file(files: Files, path: str, number: int, found: Recovered) -> RecoveredFile:
    content = files.read(path)
    try:
        salt = decode_file_header(content[:FILE_HEADER_BYTES], number)
    except ValueError as error:
        raise Corrupt(f"{path}: {error}; it was written by another version of edgestore", path=path) from error
    if salt is None:
        raise damaged(path, 0, "its header does not check out")
    data = memoryview(content)
    file = RecoveredFile(number, path, used=len(content.rstrip(b"\0")))
    while frame := decode_frame(data, Place(number, file.end), salt):
        _note_synced(found, frame.synced)
        file.end = frame.end
        for record in frame.records:
            found.records.setdefault(record.group, []).append(record)
            file.newest_index[record.group] = max(file.newest_index.get(record.group, 0), record.index)
    for frame in find_frames(data, file.end, number, salt):
        _note_synced(found, frame.synced)
    return file


def _note_synced(found: Recovered, place: Place) -> None:
    found.synced[place.file] = max(found.synced.get(place.file, 0), place.offset)


def damaged(path: str, offset: int, what: str) -> Corrupt:
    """The refusal of rule 5."""
    message = (
        f"the journal is damaged in its synced part: {path} at offset {offset} ({what}). Acknowledged writes may be "
        "lost, so the node does not start. Restore the file from a copy, or save what still checks out with "
        "`edgestore doctor --salvage`"
    )
    return Corrupt(message, path=path, offset=offset)
