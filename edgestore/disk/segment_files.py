"""The segments of a disk and their descriptors: as many stay open as `disk.open_files_max` says.

Rule: a descriptor is closed when the last one that reads or writes through it has let go of its `OpenFile`; nobody
closes it under a running call.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from edgestore.disk.files import File, Files
from edgestore.disk.fragments import SEGMENT_HEADER_BYTES, decode_segment_header
from edgestore.errors import DiskFailed, NotFound

ENDING = ".segment"
UNFINISHED = ENDING + ".new"


class OpenFile:
    """Holds a file open for as long as anybody holds it."""

    __slots__ = ("file",)

    def __init__(self, file: File) -> None:
        self.file = file

    def __del__(self) -> None:
        self.file.close()


@dataclass(slots=True, eq=False)
class Segment:
    """One file. `tail`: where the next fragment goes; `live_bytes`: reserved bytes of fragments that the index
    names."""

    number: int
    path: str
    salt: bytes
    tail: int = SEGMENT_HEADER_BYTES
    live_bytes: int = 0
    opened: OpenFile | None = None
    used: bool = False

    @property
    def is_empty(self) -> bool:
        """No place in it was ever given out."""
        return self.tail <= SEGMENT_HEADER_BYTES


def segment_path(folder: str, number: int) -> str:
    """The file of a segment."""
    return f"{folder}/{number:016d}{ENDING}"


def segment_numbers(files: Files, folder: str) -> list[int]:
    """Of the files in a folder, ascending."""
    stems = [name.removesuffix(ENDING) for name in files.list(folder) if name.endswith(ENDING)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def read_salt(file: File, number: int) -> bytes | None:
    """The salt of a segment; None where its header cannot be read or does not check out. Raises UnknownFormat."""
    try:
        header = file.read_at(0, SEGMENT_HEADER_BYTES)
    except DiskFailed:
        return None
    return decode_segment_header(header, number)


class Descriptors:
    """Opens segments when they are asked for and lets the ones go that were not used lately."""

    def __init__(self, files: Files, limit: int) -> None:
        self._files, self._limit = files, max(1, limit)
        self._ring: deque[Segment] = deque()
        self._lock = threading.Lock()

    def hold(self, segment: Segment) -> OpenFile:
        """The open file, from any thread. Raises NotFound where compaction has removed it."""
        opened = segment.opened
        if opened is None:
            opened = self._open(segment)
        segment.used = True
        return opened

    def _open(self, segment: Segment) -> OpenFile:
        with self._lock:
            opened = segment.opened
            if opened is not None:
                return opened
            while len(self._ring) >= self._limit:
                self._let_one_go()
            try:
                opened = OpenFile(self._files.open(segment.path))
            except FileNotFoundError as error:
                raise NotFound("the segment is gone", segment=segment.number) from error
            segment.opened = opened
            self._ring.append(segment)
            return opened

    def _let_one_go(self) -> None:
        """The first one round the ring that was not used since the last round."""
        while True:
            segment = self._ring.popleft()
            if not segment.used:
                segment.opened = None
                return
            segment.used = False
            self._ring.append(segment)

    def forget(self, segment: Segment) -> None:
        """The segment is removed."""
        with self._lock:
            if segment.opened is not None:
                self._ring.remove(segment)
                segment.opened = None

    def close(self) -> None:
        """Lets all go."""
        with self._lock:
            while self._ring:
                self._ring.popleft().opened = None

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._ring)
