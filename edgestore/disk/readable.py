"""Reading around what a disk does not give: a sector that cannot be read takes its page with it, and nothing else.

Rule: zeroes stand in for what cannot be read, so whoever reads through here believes only what a checksum covers.
"""

from __future__ import annotations

from itertools import pairwise

from edgestore.disk.files import File
from edgestore.errors import DiskFailed

UNREADABLE_BYTES = 4096
"""A page of the page cache: the system reads no less, so all of it is lost where one of its sectors is."""


class ReadableFile:
    """The part of `File` that looks for what checks out. `unreadable`: offsets of the pages that were met and could not
    be read, in order."""

    def __init__(self, file: File | ReadableFile) -> None:
        self._file = file
        self.path: str = file.path
        self._unreadable: set[int] = set()

    @property
    def unreadable(self) -> list[int]:
        """See above."""
        return sorted(self._unreadable)

    def read_at(self, offset: int, length: int) -> bytes:
        """See `File.read_at`; page by page where the disk refuses the whole."""
        try:
            return self._file.read_at(offset, length)
        except DiskFailed:
            end = max(offset, min(offset + length, self._file.size()))
        places = [offset, *range(offset - offset % UNREADABLE_BYTES + UNREADABLE_BYTES, end, UNREADABLE_BYTES), end]
        return b"".join(self._piece(start, stop) for start, stop in pairwise(places))

    def _piece(self, start: int, stop: int) -> bytes:
        try:
            return self._file.read_at(start, stop - start).ljust(stop - start, b"\0")
        except DiskFailed:
            self._unreadable.add(start - start % UNREADABLE_BYTES)
            return bytes(stop - start)

    def size(self) -> int:
        """See `File.size`."""
        return self._file.size()
